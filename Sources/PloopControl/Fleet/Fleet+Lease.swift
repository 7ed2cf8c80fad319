internal import Logging
internal import PloopIO

// How a node keeps its lease (docs/fleet.md, "The fence").

extension Fleet {
  /// Renews the lease when it is time to, or gets one, and waits.
  func renew(in folder: ImageFolder) {
    let sent = bootNanoseconds()
    var pause = settings.renewalMilliseconds
    do throws(LeaseError) {
      if let lease = state.withLock({ $0.lease }) {
        if try store.renew(lease.id) {
          lease.extend(to: end(of: sent))
          state.withLock { $0.trouble = nil }
        } else {
          lose(lease, "the lease had ended before it was renewed")
          pause = 0
        }
      } else {
        let id: UInt64
        if let before = try known(in: folder) {
          id = before
        } else {
          id = try store.begin(seconds: settings.leaseSeconds)
        }
        // Written down first: whoever is killed behind it comes back with it.
        try? folder.replace(Fleet.leaseFile, with: Array("\(node.name) \(id)\n".utf8), mode: 0o600)
        if try store.register(node, under: id) {
          log.notice("this node is in the fleet", metadata: ["node": "\(node.name)"])
          begin(Lease(id, until: end(of: sent)))
        } else {
          try? store.end(id)
          complain("another ploopd is the node \(node.name)")
          pause = 1_000
        }
      }
    } catch {
      complain(error.detail)
      pause = 500
    }
    _ = state.wait(until: .after(milliseconds: pause)) { $0.isStopping ? true : nil }
  }

  private func end(of sent: UInt64) -> UInt64 {
    sent + UInt64(settings.leaseSeconds) * 1_000_000_000 - settings.marginNanoseconds
  }

  private func begin(_ lease: Lease) {
    state.update { state in
      state.lease = lease
      state.leases = state.leases.filter { id, _ in
        state.claims.values.contains { $0.lease == id }
      }
      state.leases[lease.id] = lease
      state.trouble = nil
      state.changes += 1
    }
  }

  private func lose(_ lease: Lease, _ words: String) {
    lease.void()
    complain(words)
    state.update { state in
      state.lease = nil
      state.changes += 1
    }
  }

  func complain(_ words: String) {
    let isNews = state.withLock { state in
      defer { state.trouble = words }
      return state.trouble != words
    }
    if isNews { log.warning("the lease of this node", metadata: ["reason": "\(words)"]) }
  }

  /// The lease of an earlier life of this node, if it lives still: that process is gone, since this one has its state
  /// folder, and the devices are this node's as before.
  private func known(in folder: ImageFolder) throws(LeaseError) -> UInt64? {
    guard let bytes = try? folder.bytes(of: Fleet.leaseFile, limit: 256) else { return nil }
    let words = String(decoding: bytes, as: UTF8.self).split { $0 == " " || $0 == "\n" }
    guard words.count == 2, words[0] == node.name, let id = UInt64(words[1]) else { return nil }
    return try store.renew(id) ? id : nil
  }
}
