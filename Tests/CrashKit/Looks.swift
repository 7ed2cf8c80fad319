internal import PloopIO
internal import TestSupport

/// How states are chosen.
package struct Bounds: Sendable {
  /// States that are looked at behind each event and by each size of blocks, no more.
  package var samples: Int
  package var seed: UInt64

  package init(samples: Int, seed: UInt64) {
    self.samples = samples
    self.seed = seed
  }
}

/// Which states of one recording have been looked at, and which of its images QEMU has judged. It lasts for all
/// recordings of the same steps, so that each further one looks at what is new.
package final class Looks: Sendable {
  private struct State {
    var contents: Set<UInt64> = []
    var isOnlyForNew = false
    var images: Set<UInt64> = []
    var judged = 0
    /// Images that may be judged in this recording, how many were before it, and how many may have been by now.
    var limit = 0
    var before = 0
    var allowed = 0
  }

  private let state = Locked(State())

  package init() {}

  /// Different contents of the states that were looked at.
  package var distinct: Int { state.withLock { $0.contents.count } }
  /// Images that `qemu-img check` has judged, no two of them alike.
  package var judged: Int { state.withLock { $0.judged } }

  /// - Parameters:
  ///   - onlyNew: whether a content that has been there before is left out, wherever it was. Otherwise it is looked
  ///     at behind each event that leaves it, since more may be promised there.
  ///   - images: that QEMU judges, no more.
  package func begin(onlyNew: Bool, images: Int) {
    state.withLock { state in
      state.isOnlyForNew = onlyNew
      state.limit = images
      state.before = state.judged
      state.allowed = 0
    }
  }

  /// Images are judged all along the recording, not only at its beginning.
  func advance(to position: Int, of count: Int) {
    state.withLock { $0.allowed = $0.limit * (position + 1) / max(1, count) }
  }

  func isWorthwhile(_ digest: UInt64) -> Bool {
    state.withLock { state in
      let isNew = state.contents.insert(digest).inserted
      return isNew || !state.isOnlyForNew
    }
  }

  /// Has `qemu-img check` look at an image that is closed, unless it has looked at the same before, or at enough.
  ///
  /// - Returns: what it says against it.
  func judge(_ name: String, in folder: ImageFolder) throws -> String? {
    guard state.withLock({ $0.judged - $0.before < $0.allowed }) else { return nil }
    let digest = StateNames.digest(of: try folder.bytes(of: name, limit: 64 << 20))
    let isWanted = state.withLock { state in
      guard state.judged - state.before < state.allowed, state.images.insert(digest).inserted else {
        return false
      }
      state.judged += 1
      return true
    }
    guard isWanted else { return nil }
    do {
      try QEMU.expectSound("\(folder.path)/\(name)")
      return nil
    } catch { return "\(error)" }
  }
}
