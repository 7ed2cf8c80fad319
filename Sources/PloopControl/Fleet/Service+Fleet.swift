internal import Logging
internal import PloopDevice
internal import PloopIO
internal import PloopNBD

// Disks of which several nodes have one each time: what the service does when one comes, and when one goes
// (docs/fleet.md).

extension Service {
  // MARK: A device that comes into being, or changes

  /// Makes a new device this node's for as long as `body` takes, and for good if it succeeds.
  func claiming<Result>(
    _ id: String, _ body: () throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    guard let fleet else { return try body() }
    try fleet.claim(id)
    do throws(ServiceError) { return try body() } catch {
      do throws(ServiceError) { try fleet.release(id, leaving: nil) } catch {
        log.warning(
          "a device that was not attached is still this node's",
          metadata: ["device": "\(id)", "reason": "\(error.detail)"])
      }
      throw error
    }
  }

  /// Tells the fleet what a device is now, before it is so here.
  func publish(
    _ record: DeviceRecord, of controller: DeviceController, entering phase: DeviceController.Phase?
  ) throws(ServiceError) {
    guard let fleet else { return }
    switch phase ?? controller.now.phase {
    case .failed(let error): try fleet.publish(record, as: .failed, reason: error.detail)
    case .attaching, .attached, .detaching: try fleet.publish(record, as: .serving)
    }
  }

  // MARK: The beginning

  private static let joinedFile = "fleet.joined"

  /// Whether this node's devices are the fleet's, durably: what is written down here counts for nothing then.
  var hasJoined: Bool { store.folder.contains(Service.joinedFile) }

  /// A host that had disks for itself alone brings them in, as they are, once.
  ///
  /// - Parameter records: of devices that are to come back.
  /// - Returns: whether that was done before; nothing is left of what was written down here then.
  func joinFleet(_ records: [DeviceRecord]) throws(ServiceError) -> Bool {
    guard hasJoined else {
      if records.isEmpty { hasJoinedFleet() } else { fleet?.bring(records) }
      return false
    }
    try store.write { transaction throws(ServiceError) in
      for record in try transaction.records().records { try transaction.remove(record.id) }
      for intent in try transaction.attachIntents() { try transaction.endIntent(of: intent.id) }
    }
    return true
  }

  func hasJoinedFleet() {
    do throws(IOError) { try store.folder.replace(Service.joinedFile, with: []) } catch {
      log.error("the state cannot be written", metadata: ["reason": "\(error)"])
    }
  }

  /// The fleet knows the device now.
  func forgetRecord(_ id: String) {
    guard state.withLock({ $0.devices[id] }) == nil else { return }
    do throws(ServiceError) { try store.remove(id) } catch {
      log.error("the state cannot be written", metadata: ["reason": "\(error.detail)"])
    }
  }

  // MARK: A device that comes

  /// Serves a device that is this node's by now, whoever had it before.
  ///
  /// - Returns: false when it is to be tried again.
  func take(
    _ id: String, _ entry: FleetEntry, _ ownership: Ownership, _ queue: [JobRecord]
  ) -> Bool {
    let controller = state.update { state -> DeviceController? in
      guard state.devices[id] == nil else { return nil }
      return add(id, record: entry.record, to: &state)
    }
    guard let controller, let fleet else { return false }
    // Whoever hears that it is served may want it moved on at once: not before all of this is done.
    _ = controller.takeTurn(until: .never)
    defer { controller.giveTurnBack() }
    let start = monotonicNanoseconds()
    do throws(ServiceError) {
      var record = entry.record
      // The same owner come back: that his process is gone its state folder says.
      let isOwn = entry.node == fleet.node.name && entry.epoch == ownership.epoch
      if entry.state != .closed, !isOwn, try mayBeInUse(record) {
        record = try copied(record, as: ownership)
      }
      // Before the image is touched: whoever takes it over from here on finds that it may be open.
      var told = record
      told.isAttached = true
      try fleet.publish(told, as: .taking)
      controller.keep(record)
      guard bringBack(controller, record) else { return false }
    } catch {
      guard error.code != .fleetUnreachable else {
        forget(id)
        return false
      }
      fail(controller, error)
      log.error(
        "a device of another node cannot be served",
        metadata: ["device": "\(id)", "reason": "\(error.detail)"])
    }
    jobs.dismiss(device: id)
    jobs.adopt(queue)
    jobs.admit(device: id)
    log.notice(
      "taken",
      metadata: [
        "device": "\(id)", "from": "\(entry.node)", "epoch": "\(ownership.epoch)",
        "milliseconds": "\((monotonicNanoseconds() - start) / 1_000_000)",
      ])
    return true
  }

  // MARK: A device that goes

  /// Gives up a device that may be another node's, and writes nothing any more.
  ///
  /// - Returns: false when something is still at work; to be tried again.
  func abandon(_ id: String) -> Bool {
    guard let controller = state.withLock({ $0.devices[id] }) else { return true }
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    jobs.interrupt(device: id, until: deadline)
    guard controller.takeTurn(until: deadline) else { return false }
    defer { controller.giveTurnBack() }
    let exports = controller.now.record?.exports ?? []
    let doors = table.entries(of: id).map(\.record.name)
    table.set(doors, open: false)
    endMaintenance(of: controller, until: deadline)
    if let device = controller.attachedDevice {
      controller.enter(.detaching(device))
      do throws(DeviceError) { try device.abandon(until: deadline) } catch {
        controller.enter(.attached(device))
        log.error(
          "a disk that may be another node's is not closed",
          metadata: ["device": "\(id)", "reason": "\(error.detail)"])
        return false
      }
    }
    try? dropClients(of: doors, until: deadline)
    forgetClosed(id)
    jobs.admit(device: id)
    tellChanged(id, exports)
    log.warning("a device was given up", metadata: ["device": "\(id)"])
    return true
  }

  /// The lease is over: nobody is let in, those inside get no answer, and jobs rest. What was acknowledged is durable.
  func closeFence() {
    for controller in state.withLock({ Array($0.devices.values) }) where controller.hasDisk {
      let doors = table.entries(of: controller.id).map(\.record.name)
      table.set(doors, open: false)
      doors.forEach { server.endClients(of: Array($0.utf8)) }
      jobs.interrupt(device: controller.id, until: .after(seconds: 0))
      tellChanged(controller.id, controller.now.record?.exports ?? [])
    }
  }

  /// The lease was renewed after all, so nobody else has had the disks.
  func openFence() {
    for controller in state.withLock({ Array($0.devices.values) })
    where controller.attachedDevice != nil && isOurs(controller.id)() {
      table.set(table.entries(of: controller.id).map(\.record.name), open: true)
      jobs.admit(device: controller.id)
      tellChanged(controller.id, controller.now.record?.exports ?? [])
    }
  }

  // MARK: Looking

  package func elsewhere(device: String) -> ServiceError? {
    guard let fleet, state.withLock({ $0.devices[device] }) == nil else { return nil }
    return fleet.view.node(having: device).flatMap {
      $0.name == fleet.node.name ? nil : Fleet.elsewhere(device, $0)
    }
  }

  package func elsewhere(export: String) -> ServiceError? {
    guard let fleet, table.entry(export) == nil else { return nil }
    let view = fleet.view
    guard let device = view.devices.first(where: { $0.value.exports.contains(export) })?.key,
      let node = view.node(having: device), node.name != fleet.node.name
    else { return nil }
    return Fleet.elsewhere(device, node)
  }

  package func nodes() async -> [NodeInfo] {
    guard let fleet else { return [] }
    let view = fleet.view
    let loads = view.loads
    var nodes = view.nodes
    // As what it is, whether or not it has a lease just now.
    nodes[fleet.node.name] = nodes[fleet.node.name] ?? fleet.node
    return nodes.values.sorted { $0.name < $1.name }.map { node in
      let isSelf = node.name == fleet.node.name
      return NodeInfo(
        node: node, devices: loads[node.name, default: 0], isSelf: isSelf,
        isHeld: isSelf ? fleet.isHeld : true, trouble: isSelf ? fleet.trouble : nil)
    }
  }

  // MARK: Moving

  /// Has another node serve a device: its clients are disconnected, the image is closed, and the other node opens it.
  ///
  /// The order (docs/fleet.md, "Moving"): jobs rest and clients leave; the image is closed; the owner is another one,
  /// durably; what is known here is forgotten; the other node says what has become of it.
  package func move(
    _ id: String, to name: String, ifRevision: UInt64?
  ) async throws(ServiceError) -> DeviceMoved {
    try requireServing()
    guard let fleet else {
      throw ServiceError(
        .fleetNotConfigured, "this service is a host of its own",
        remedy: "begin it with --etcd, or move the disk by a job of type migrate")
    }
    let controller = try controller(id)
    guard let record = controller.now.record else {
      throw ServiceError(.deviceNotFound, "there is no device \(id)", errno: "ENOENT")
    }
    try Service.require(ifRevision, is: record.revision)
    let target = try destination(name, of: record, in: fleet)
    let start = monotonicNanoseconds()
    defer { jobs.admit(device: id) }
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    await clerk.wait { self.jobs.interrupt(device: id, until: deadline) }
    let epoch = try await controller.run { () throws(ServiceError) in
      try self.handOver(controller, to: target, by: fleet, until: deadline, ifRevision)
    }
    let seconds = configuration.quiesceSeconds
    let answer: FleetDevice? = await withCheckedContinuation { continuation in
      engine.submit { [engine] in
        engine.aside {
          continuation.resume(
            returning: fleet.awaitAnswer(of: id, epoch, until: .after(seconds: seconds)))
        }
      }
    }
    log.notice(
      "moved",
      metadata: ["device": "\(id)", "to": "\(name)", "epoch": "\(epoch)"])
    return DeviceMoved(
      device: id, node: target,
      state: answer.map { $0.state == .failed ? .failed : .online }, reason: answer?.reason,
      milliseconds: (monotonicNanoseconds() - start) / 1_000_000)
  }

  private func destination(
    _ name: String, of record: DeviceRecord, in fleet: Fleet
  ) throws(ServiceError) -> FleetNode {
    let view = fleet.view
    guard let target = view.nodes[name] else { throw Fleet.noNode(name) }
    var fault: String?
    if name == fleet.node.name {
      fault = "it has the device already"
    } else if !Placement.suits(target, Placement.wanted(by: record.labels)) {
      fault = "its labels are not those that the device's labels want"
    } else if view.loads[name, default: 0] >= target.capacity {
      fault = "it has \(target.capacity) devices, and takes no more"
    }
    guard let fault else { return target }
    throw ServiceError(
      .nodeUnsuitable, "the node \(name) cannot take the device \(record.id): \(fault)",
      pointer: "/to")
  }

  private func handOver(
    _ controller: DeviceController, to target: FleetNode, by fleet: Fleet, until deadline: Deadline,
    _ ifRevision: UInt64?
  ) throws(ServiceError) -> UInt64 {
    endMaintenance(of: controller, until: deadline)
    try requireNotHandedOver(controller)
    try requireFree(controller)
    guard var record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    try Service.require(ifRevision, is: record.revision)
    let exports = record.exports
    if case .attached(let device) = controller.now.phase {
      try close(device, controller, .hard)
      record.isAttached = device.failure != nil
    }
    // Whoever has it then: here it is forgotten, and comes back if it is still this node's.
    defer {
      forgetClosed(controller.id)
      tellChanged(controller.id, exports)
    }
    do throws(ServiceError) {
      return try fleet.hand(record, as: record.isAttached ? .serving : .closed, to: target)
    } catch {
      fleet.drop(record.id)
      throw error
    }
  }

  private func forgetClosed(_ id: String) {
    do throws(ServiceError) {
      try store.write { transaction throws(ServiceError) in
        let revision = try transaction.nextRevision()
        try transaction.remove(id)
        try transaction.note(.deviceDeleted, id, device: id, at: revision)
      } show: {
        forget(id)
      }
    } catch {
      // The record goes with the next start, when the fleet is asked.
      log.error("the state cannot be written", metadata: ["reason": "\(error.detail)"])
      forget(id)
    }
    closeSnapshots(of: id)
    jobs.dismiss(device: id)
  }
}

/// A node, as it is shown.
package struct NodeInfo: Sendable {
  package var node: FleetNode
  package var devices: Int
  package var isSelf: Bool
  /// Whether its devices are served, as far as this node knows.
  package var isHeld: Bool
  /// Why it has no lease; known of this node alone.
  package var trouble: String?
}

package struct DeviceMoved: Sendable {
  package var device: String
  package var node: FleetNode
  /// Nil while the node has not said what has become of it.
  package var state: DeviceState?
  package var reason: String?
  package var milliseconds: UInt64
}
