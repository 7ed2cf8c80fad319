internal import Logging
internal import PloopDevice
internal import PloopIO
internal import PloopNBD

extension Service {
  /// Closes a disk and forgets it.
  ///
  /// The order: clients leave or are dropped, with their requests answered; the doors are closed;
  /// the disk is flushed and its image closed (`Device.detach`); the record is removed, durably; the
  /// caller is answered. A crash in between leaves the record, and the device comes back.
  package func detach(
    _ id: String, mode: DetachMode, ifRevision: UInt64?
  ) async throws(ServiceError) {
    try requireServing()
    let controller = try controller(id)
    try await controller.run { () throws(ServiceError) in
      try self.detach(controller, mode: mode, ifRevision: ifRevision)
    }
    log.info("detached", metadata: ["device": "\(id)", "mode": "\(mode.rawValue)"])
  }

  private func detach(
    _ controller: DeviceController, mode: DetachMode, ifRevision: UInt64?
  ) throws(ServiceError) {
    let facts = controller.now
    if let revision = facts.record?.revision { try Service.require(ifRevision, is: revision) }
    switch facts.phase {
    case .attaching, .detaching:
      throw ServiceError(
        .deviceBusy, "the device \(controller.id) is being attached or detached", errno: "EBUSY")
    case .failed: break
    case .attached(let device):
      try empty(device, controller, mode)
      try close(device, controller)
    }
    try store.remove(controller.id)
    forget(controller.id)
  }

  /// Gets every client out, or says who is in the way and leaves everything as it was.
  private func empty(
    _ device: Device, _ controller: DeviceController, _ mode: DetachMode
  ) throws(ServiceError) {
    let names = table.entries(of: controller.id).map(\.record.name)
    if mode == .safe {
      let patience = Deadline.after(milliseconds: configuration.leavingMilliseconds)
      for name in names {
        _ = server.waitForClientsLeaving(of: Array(name.utf8), until: patience)
      }
    }
    controller.enter(.detaching(device))
    names.forEach(table.close)
    let clients = names.flatMap { self.clients(of: $0) }
    guard mode == .safe, !clients.isEmpty else { return }
    serve(device, controller)
    throw ServiceError(
      .deviceInUse,
      "\(clients.count == 1 ? "a client is" : "\(clients.count) clients are") connected to the device \(controller.id)",
      errno: "EBUSY", facts: ["clients": .clients(clients)])
  }

  private func close(_ device: Device, _ controller: DeviceController) throws(ServiceError) {
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    let names = table.entries(of: controller.id).map { Array($0.record.name.utf8) }
    // Requests that wait at a suspended disk would never end: they are refused by its closing.
    if !device.isSuspended {
      for name in names where !server.disconnectClients(of: name, until: deadline) {
        serve(device, controller)
        throw ServiceError(
          .quiesceTimeout, "requests in flight on \(controller.id) did not end in time",
          errno: "EBUSY")
      }
    }
    do throws(DeviceError) {
      try device.detach(until: deadline)
    } catch {
      if case .timeout = error.kind {
        serve(device, controller)
      } else {
        // It is closed, but not cleanly: kept, so that nobody thinks that all is well.
        controller.enter(.failed(ServiceError(error)))
      }
      throw ServiceError(error)
    }
    for name in names { _ = server.disconnectClients(of: name, until: deadline) }
  }
}
