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
    var unownedSince: [String: UInt64] = [:]
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
  private static let leaseFile = "fleet.lease"
  private static let longestDelaySeconds: UInt64 = 30

  package let settings: FleetSettings
  let store: any LeaseStore
  let state = Monitor(State())
  private let log: Logger

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

  // MARK: The lease

  /// Renews the lease when it is time to, or gets one, and waits.
  private func renew(in folder: ImageFolder) {
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

  private func complain(_ words: String) {
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

  // MARK: Watching

  private func watch() {
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

  // MARK: Acting

  /// Brings devices into the fleet that it does not know yet.
  func bring(_ records: [DeviceRecord]) {
    state.withLock { state in
      for record in records { state.brought[record.id] = record }
    }
  }

  /// What is brought is told, one after the other, and is the fleet's from then on.
  private func settleIn(_ service: Service) {
    let brought = state.withLock { state -> [String: DeviceRecord]? in
      guard state.view != nil, state.lease?.isHeld == true, !state.isSettlingIn,
        !state.brought.isEmpty
      else { return nil }
      state.isSettlingIn = true
      return state.brought
    }
    guard let brought else { return }
    service.engine.submit { [self] in
      service.engine.aside {
        for (id, record) in brought.sorted(by: { $0.key < $1.key }) {
          guard isTold(record, service) else { break }
          state.withLock { $0.brought[id] = nil }
        }
        if state.withLock({ $0.brought.isEmpty }) { service.hasJoinedFleet() }
        state.withLock { $0.isSettlingIn = false }
      }
    }
  }

  /// - Returns: false when that has to be tried again.
  private func isTold(_ record: DeviceRecord, _ service: Service) -> Bool {
    // An owner without an entry would be taken for an attach that has come to nothing.
    hold(record.id)
    defer { letGo(record.id) }
    do throws(LeaseError) {
      guard let lease = state.withLock({ $0.lease }) else { return false }
      if let known = try store.entry(of: record.id) {
        if known.record.uuid == record.uuid {
          service.forgetRecord(record.id)
        } else {
          log.error(
            "a device of this node is not in the fleet, which has another one of its id",
            metadata: ["device": "\(record.id)", "uuid": "\(record.uuid)"])
        }
        return true
      }
      guard let epoch = try store.acquire(record.id, for: node.name, under: lease.id) else {
        return false
      }
      let entry = FleetEntry(
        record: record, state: record.isAttached ? .serving : .closed, node: node.name,
        epoch: epoch)
      guard try store.keep(entry, of: record.id) else { return false }
      service.forgetRecord(record.id)
      return true
    } catch {
      complain(error.detail)
      return false
    }
  }

  /// Looks once, has everything be done that is to be done, and waits until something has changed.
  private func act(_ service: Service) {
    let seen = state.withLock { $0.changes }
    keepFence(service)
    settleIn(service)
    let actions = state.withLock { state -> [FleetPlan.Action] in
      guard let view = state.view, !service.isStopping else { return [] }
      let isHeld = state.lease?.isHeld == true
      let now = bootNanoseconds()
      let resting = state.delays.filter { $0.value.until > now }.keys
      let plan = FleetPlan(
        node: node, lease: isHeld ? state.lease?.id : nil, view: view, claims: state.claims,
        busy: state.busy.union(resting), settledAt: state.settledAt, now: now)
      state.settledAt = state.settledAt.filter { $0.value > view.revision }
      // A lease that may come back is no reason to abandon anything.
      let actions = plan.actions(&state.unownedSince).filter { action in
        if case .abandon(let device) = action {
          return isHeld || state.claims[device]?.lease != state.lease?.id
        }
        return true
      }
      for action in actions { state.busy.insert(action.device) }
      return actions
    }
    for action in actions { begin(action, service) }
    _ = state.wait(until: .after(milliseconds: 250)) { $0.changes == seen ? nil : true }
  }

  /// Nobody is served behind the end of the lease, and everybody again when it was renewed after all.
  private func keepFence(_ service: Service) {
    let isHeld = isHeld
    let turn = state.withLock { state -> Bool? in
      guard !state.claims.isEmpty || state.isFenced, state.isFenced == isHeld else { return nil }
      state.isFenced = !isHeld
      return isHeld
    }
    guard let turn else { return }
    log.warning(
      turn ? "the lease is held again; clients are let in" : "the lease is over; nobody is served")
    turn ? service.openFence() : service.closeFence()
  }

  private func begin(_ action: FleetPlan.Action, _ service: Service) {
    service.engine.submit { [self] in
      service.engine.aside {
        let isDone = carryOut(action, service)
        state.update { state in
          state.busy.remove(action.device)
          if isDone {
            state.delays[action.device] = nil
          } else {
            let count = min(state.delays[action.device]?.count ?? 0, 5)
            let seconds = min(Fleet.longestDelaySeconds, 1 << UInt64(count))
            state.delays[action.device] = (count + 1, bootNanoseconds() + seconds * 1_000_000_000)
          }
          state.changes += 1
        }
      }
    }
  }

  /// - Returns: false for what is to be tried again, and not at once.
  private func carryOut(_ action: FleetPlan.Action, _ service: Service) -> Bool {
    do throws(LeaseError) {
      switch action {
      case .abandon(let device):
        guard service.abandon(device) else { return false }
        state.withLock { $0.claims[device] = nil }
        return true
      case .take(let device, let ownership): return try take(device, ownership, service)
      case .acquire(let device):
        guard let lease = state.withLock({ $0.lease }),
          let epoch = try store.acquire(device, for: node.name, under: lease.id)
        else { return true }
        return try take(
          device, Ownership(node: node.name, lease: lease.id, epoch: epoch), service)
      }
    } catch {
      log.warning(
        "a device was not taken",
        metadata: ["device": "\(action.device)", "reason": "\(error.detail)"])
      return false
    }
  }

  private func take(
    _ device: String, _ ownership: Ownership, _ service: Service
  ) throws(LeaseError) -> Bool {
    // What was heard may be old: an image is touched by who has it now.
    guard try store.owner(of: device) == ownership else { return true }
    guard let entry = try store.entry(of: device) else {
      // Of an attach that has come to nothing.
      _ = try store.release(device, ownership, leaving: nil)
      return true
    }
    let jobs = try store.jobs(of: device)
    state.withLock { $0.claims[device] = ownership }
    guard service.take(device, entry, ownership, jobs) else {
      state.withLock { $0.claims[device] = nil }
      return false
    }
    return true
  }

  // MARK: For the service

  /// As what this node has a device; nil for one that it does not have.
  func claim(of device: String) -> Ownership? { state.withLock { $0.claims[device] } }

  /// Makes a device this node's, for one that is about to come into being.
  ///
  /// - Throws: `device-exists`, `fleet-unreachable`.
  func claim(_ device: String) throws(ServiceError) {
    let id = try requireLease()
    let isFree = state.withLock { state in
      guard state.claims[device] == nil else { return false }
      return state.busy.insert(device).inserted
    }
    guard isFree else {
      throw ServiceError(.deviceBusy, "the device \(device) is being taken", errno: "EBUSY")
    }
    defer { state.withLock { _ = $0.busy.remove(device) } }
    try asking { () throws(LeaseError) in
      guard let epoch = try store.acquire(device, for: node.name, under: id) else { return false }
      let ownership = Ownership(node: node.name, lease: id, epoch: epoch)
      if let entry = try store.entry(of: device) {
        // Somebody's who has gone: it is taken over as it is.
        _ = try store.release(device, ownership, leaving: entry)
        return false
      }
      state.withLock { $0.claims[device] = ownership }
      return true
    } orElse: {
      ServiceError(
        .deviceExists, "the device \(device) is in the fleet already", errno: "EEXIST",
        holder: view.owners[device].map { ServiceError.Holder(kind: "node", id: $0.node) })
    }
  }

  static func elsewhere(_ device: String, _ node: FleetNode) -> ServiceError {
    ServiceError(
      .deviceOwnedElsewhere, "the node \(node.name) has the device \(device)",
      holder: ServiceError.Holder(kind: "node", id: node.name),
      facts: ["device": .text(device), "endpoint": .text(node.endpoint)])
  }

  /// Tells the fleet what a device is now.
  ///
  /// - Throws: `fleet-unreachable`, also for one that this node has no more.
  func publish(
    _ record: DeviceRecord, as entryState: FleetEntry.State, reason: String? = nil
  ) throws(ServiceError) {
    guard let claim = claim(of: record.id) else { throw lost(record.id) }
    let entry = FleetEntry(
      record: record, state: entryState, node: node.name, epoch: claim.epoch, reason: reason)
    try asking { () throws(LeaseError) in
      try store.keep(entry, of: record.id)
    } orElse: {
      lost(record.id)
    }
  }

  private func lost(_ device: String) -> ServiceError {
    ServiceError(
      .fleetUnreachable, "the device \(device) is this node's no more",
      remedy: "ask again, and follow to the node that has it")
  }

  /// Whether no other device of the fleet has an export of this name, as far as is known here.
  func requireFree(export name: String, for device: String) throws(ServiceError) {
    let other = view.devices.first { $0.key != device && $0.value.exports.contains(name) }?.key
    guard let other else { return }
    throw ServiceError(
      .exportExists, "the export \(name) exists, for the device \(other) of the fleet",
      errno: "EEXIST", holder: .init(kind: "device", id: other))
  }

  /// Nobody knows whose a device is by now: it is forgotten here, and taken again if it is this node's.
  func drop(_ device: String) { state.withLock { $0.claims[device] = nil } }

  /// Gives a device up.
  ///
  /// - Parameter record: of one that others may take; nil for one that is forgotten.
  func release(_ device: String, leaving record: DeviceRecord?) throws(ServiceError) {
    guard let claim = claim(of: device) else { return }
    hold(device)
    defer { letGo(device) }
    let entry = record.map {
      FleetEntry(record: $0, state: .closed, node: node.name, epoch: claim.epoch)
    }
    var revision: UInt64?
    try asking { () throws(LeaseError) in
      revision = try store.release(device, claim, leaving: entry)
      return revision != nil
    } orElse: {
      lost(device)
    }
    leave(device, at: revision)
  }

  /// Hands a device over that is closed.
  ///
  /// - Returns: the new owner's epoch.
  func hand(
    _ record: DeviceRecord, as entryState: FleetEntry.State, to target: FleetNode
  ) throws(ServiceError) -> UInt64 {
    guard let claim = claim(of: record.id) else { throw lost(record.id) }
    guard let lease = view.leases[target.name] else { throw Fleet.noNode(target.name) }
    hold(record.id)
    defer { letGo(record.id) }
    let entry = FleetEntry(
      record: record, state: entryState, node: node.name, epoch: claim.epoch)
    var epoch: UInt64?
    try asking { () throws(LeaseError) in
      epoch = try store.hand(record.id, claim, to: target.name, under: lease, leaving: entry)
      return epoch != nil
    } orElse: {
      Fleet.noNode(target.name)
    }
    leave(record.id, at: epoch)
    return epoch ?? 0
  }

  /// What is watched meanwhile is what is being done here, and nobody's loss.
  private func hold(_ device: String) { state.withLock { _ = $0.busy.insert(device) } }

  private func letGo(_ device: String) {
    state.update { state in
      state.busy.remove(device)
      state.changes += 1
    }
  }

  private func leave(_ device: String, at revision: UInt64?) {
    state.withLock { state in
      state.claims[device] = nil
      state.settledAt[device] = revision
    }
  }

  /// Waits until nothing is being taken or given up; call it when nothing begins any more.
  ///
  /// - Returns: false when something still is.
  func settle(until deadline: Deadline) -> Bool {
    state.wait(until: deadline) { $0.busy.isEmpty ? true : nil } ?? false
  }

  static func noNode(_ name: String) -> ServiceError {
    ServiceError(.nodeNotFound, "there is no node \(name.prefix(80)) in the fleet", errno: "ENOENT")
  }

  /// Waits until a device's owner says what has become of it.
  func awaitAnswer(of device: String, _ epoch: UInt64, until deadline: Deadline) -> FleetDevice? {
    state.wait(until: deadline) { state in
      guard let known = state.view?.devices[device], known.epoch >= epoch, known.state != .taking
      else { return nil }
      return known
    }
  }

  /// - Throws: `fleet-unreachable`.
  @discardableResult
  func requireLease() throws(ServiceError) -> UInt64 {
    guard let lease = state.withLock({ $0.lease }), lease.isHeld else {
      throw ServiceError(
        .fleetUnreachable, "this node has no lease: \(trouble ?? "it has just ended")",
        remedy: "wait until etcd answers")
    }
    return lease.id
  }

  // MARK: Jobs

  /// A job that is in the queue, or goes on, goes with its device.
  func keep(_ job: JobRecord) throws(ServiceError) {
    guard let device = job.device, let claim = claim(of: device) else { return }
    try asking { () throws(LeaseError) in
      try store.keep(job, of: device, at: claim.epoch)
    } orElse: {
      lost(device)
    }
  }

  /// What has become of a job: another node goes on from there, or does it again where that was not heard.
  func note(_ job: JobRecord) {
    guard let device = job.device, let claim = claim(of: device) else { return }
    do throws(LeaseError) {
      if job.state.isFinal {
        _ = try store.remove(job: job.id, of: device, at: claim.epoch)
      } else {
        _ = try store.keep(job, of: device, at: claim.epoch)
      }
    } catch {
      log.warning(
        "the fleet does not know what has become of a job",
        metadata: ["job": "\(job.id)", "reason": "\(error.detail)"])
    }
  }

  // MARK: Pieces

  private func asking(
    _ body: () throws(LeaseError) -> Bool, orElse refusal: () -> ServiceError
  ) throws(ServiceError) {
    let isDone: Bool
    do throws(LeaseError) { isDone = try body() } catch {
      throw ServiceError(.fleetUnreachable, error.detail, remedy: "wait until etcd answers")
    }
    guard isDone else { throw refusal() }
  }
}

extension FleetPlan.Action {
  var device: String {
    switch self {
    case .abandon(let device), .take(let device, _), .acquire(let device): device
    }
  }
}
