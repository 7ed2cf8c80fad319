package import Logging
package import PloopEtcd
internal import PloopIO

/// How a node takes part in a fleet.
package struct FleetSettings: Sendable {
  package var node: FleetNode
  /// How long a node that says nothing keeps its devices.
  package var leaseSeconds = 15
  /// Whether locks on the files of the roots hold between the nodes, so that an owner whose locks are gone is gone.
  package var hasSharedLocks = false

  package init(node: FleetNode) { self.node = node }

  /// How much earlier than the store's lease this node's ends.
  var marginNanoseconds: UInt64 { UInt64(max(1_000, leaseSeconds * 250)) * 1_000_000 }
  var renewalMilliseconds: Int { leaseSeconds * 1_000 / 3 }
}

/// This node's part in a fleet: keeps its lease, knows who has what, and decides with all others, without asking them,
/// which devices are its own (docs/fleet.md).
///
/// Three threads: one renews the lease and does nothing else, one watches, and one acts on what has changed.
package final class Fleet: Sendable {
  struct State {
    /// Nil while there is none, or while another has the node's name.
    var lease: Lease?
    var view: FleetView?
    var claims: [String: Ownership] = [:]
    /// Under which lease of this node each of those is.
    var leases: [UInt64: Lease] = [:]
    /// Devices about which something is being done.
    var busy: Set<String> = []
    /// Devices that this node has given away, and the revision from which on a view knows that.
    var settledAt: [String: UInt64] = [:]
    var vacancies: [String: FleetPlan.Vacancy] = [:]
    /// Devices of which something did not succeed: how often, and from when on it is tried again.
    var delays: [String: (count: Int, until: UInt64)] = [:]
    var isSettlingIn = false
    /// What this node had for itself before it was in a fleet, and what the fleet may not know yet.
    var brought: [String: DeviceRecord] = [:]
    var isFenced = false
    var isStopping = false
    /// Why there is no lease, in words.
    var trouble: String? = "no lease yet"
    var changes: UInt64 = 0
  }

  /// How long one call watches: a member that has gone without a word is noticed then.
  private static let watchSeconds = 20
  static let leaseFile = "fleet.lease"

  package let settings: FleetSettings
  let store: any LeaseStore
  let state = Monitor(State())
  let log: Logger

  package convenience init(_ settings: FleetSettings, in etcd: EtcdClient, log: Logger) {
    self.init(settings, in: EtcdLeaseStore(etcd), log: log)
  }

  init(_ settings: FleetSettings, in store: any LeaseStore, log: Logger) {
    self.settings = settings
    self.store = store
    self.log = log
  }

  var node: FleetNode { settings.node }
  var view: FleetView { state.withLock { $0.view } ?? FleetView() }
  /// Why this node has no lease; nil while it has one.
  var trouble: String? {
    isHeld ? nil : state.withLock { $0.trouble } ?? "the lease is over"
  }
  /// Whether this node has a lease.
  var isHeld: Bool { state.withLock { $0.lease }?.isHeld == true }

  /// Under which it has a device, or would get one.
  func lease(of device: String) -> Lease {
    let lease = state.withLock { state in
      state.claims[device].map { state.leases[$0.lease] } ?? state.lease
    }
    return lease ?? Lease(0)
  }

  // MARK: Life

  /// - Parameter folder: where the lease is written down: who comes back soon goes on with it.
  func start(_ service: Service, in folder: ImageFolder) throws(IOError) {
    let threads: [(String, @Sendable (Fleet, Service) -> Void)] = [
      ("ploopd-lease", { fleet, _ in fleet.renew(in: folder) }),
      ("ploopd-watch", { fleet, _ in fleet.watch() }),
      ("ploopd-fleet", { fleet, service in fleet.act(service) }),
    ]
    for (name, turn) in threads {
      try Thread(name: name) { [weak self, weak service] in
        while let self, let service, !self.isStopping { turn(self, service) }
      }.detach()
    }
  }

  private var isStopping: Bool { state.withLock { $0.isStopping } }

  /// - Parameter isReleasing: whether others may have the devices at once, since all were closed.
  func end(releasing isReleasing: Bool, in folder: ImageFolder) {
    let lease = state.update { state in
      state.isStopping = true
      state.changes += 1
      return state.lease
    }
    guard isReleasing, let lease else { return }
    lease.void()
    do throws(LeaseError) { try store.end(lease.id) } catch {
      log.warning("the lease ends by itself", metadata: ["reason": "\(error.detail)"])
    }
    try? folder.removeIfThere(Fleet.leaseFile)
  }

  // MARK: Watching

  func watch() {
    do throws(LeaseError) {
      let seen: FleetView
      if let view = state.withLock({ $0.view }) {
        seen = view
      } else {
        seen = try store.list()
        state.update { state in
          state.view = seen
          state.changes += 1
        }
      }
      try store.watch(behind: seen.revision, seconds: Fleet.watchSeconds) { changes, revision in
        state.update { state in
          state.view?.apply(changes, at: revision)
          state.changes += 1
          return !state.isStopping
        }
      }
    } catch {
      if case .compacted = error.kind { state.withLock { $0.view = nil } }
      _ = state.wait(until: .after(milliseconds: 500)) { $0.isStopping ? true : nil }
    }
  }
}
