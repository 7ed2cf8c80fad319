internal import Logging
internal import PloopIO

// What the service tells the fleet of its devices and their jobs, and asks it.

extension Fleet {
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
  func hold(_ device: String) { state.withLock { _ = $0.busy.insert(device) } }

  func letGo(_ device: String) {
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
  func note(_ job: JobRecord, isOver: Bool) {
    guard let device = job.device, let claim = claim(of: device) else { return }
    do throws(LeaseError) {
      if isOver {
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
