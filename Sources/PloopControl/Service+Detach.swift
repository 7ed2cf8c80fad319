internal import Logging
internal import PloopDevice
internal import PloopIO

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
      if let revision = controller.now.record?.revision {
        try Service.require(ifRevision, is: revision)
      }
      try self.requireNotHandedOver(controller)
      if mode == .safe { try self.requireFree(controller) }
    }
    defer { jobs.admit(device: id) }
    if mode == .hard {
      // Not on the controller's own thread: the job may need it to come to its end.
      let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
      await clerk.wait { self.jobs.interrupt(device: id, until: deadline) }
    }
    try await controller.run { () throws(ServiceError) in
      if mode == .hard {
        self.endMaintenance(
          of: controller, until: .after(seconds: self.configuration.quiesceSeconds))
      }
      try self.requireNotHandedOver(controller)
      try self.requireFree(controller)
      try self.detach(controller, mode: mode, ifRevision: ifRevision)
    }
    log.info("detached", metadata: ["device": "\(id)", "mode": "\(mode.rawValue)"])
  }

  func detach(
    _ controller: DeviceController, mode: DetachMode, ifRevision: UInt64?
  ) throws(ServiceError) {
    let facts = controller.now
    if let revision = facts.record?.revision { try Service.require(ifRevision, is: revision) }
    switch facts.phase {
    case .attaching, .detaching:
      throw ServiceError(
        .deviceBusy, "the device \(controller.id) is being attached or detached", errno: "EBUSY")
    case .failed: break
    case .attached(let device): try close(device, controller, mode)
    }
    do throws(ServiceError) {
      if let record = facts.record { try removeIncoming(record) }
    } catch {
      // It is closed, and the record is still there: a detach can be asked for again.
      fail(controller, error)
      throw error
    }
    do throws(ServiceError) {
      try fleet?.release(controller.id, leaving: nil)
      try store.write { transaction throws(ServiceError) in
        let revision = try transaction.nextRevision()
        try transaction.remove(controller.id)
        try transaction.note(
          .deviceDeleted, controller.id, device: controller.id, at: revision)
      } show: {
        forget(controller.id)
      }
    } catch {
      // The image is closed, and the record is still there: a detach can be asked for again.
      fail(controller, error)
      throw error
    }
    closeSnapshots(of: controller.id)
    tellChanged(controller.id, facts.record?.exports ?? [])
  }

  /// Removes the copy of a disk that never was taken over: nobody's but the sender's. The image goes last.
  private func removeIncoming(_ record: DeviceRecord) throws(ServiceError) {
    guard record.incoming != nil, let path = record.descriptor, record.deltas.count == 1,
      let image = try record.deltas.first.map({ (delta) throws(ServiceError) in
        try roots.locate(delta.path, pointer: "")
      })
    else { return }
    let descriptor = try roots.locate(path, pointer: "")
    let folder = try roots.folder(of: image, pointer: "")
    do throws(IOError) {
      for name in [
        descriptor.name, "\(descriptor.name).lck", "\(descriptor.name).notes",
        "\(image.name).checkpoints", image.name,
      ] where folder.contains(name) {
        try folder.unlink(name)
      }
      try folder.sync()
    } catch { throw ServiceError(error) }
    log.info("an incoming disk was removed", metadata: ["image": "\(image.path)"])
  }

  func close(
    _ device: Device, _ controller: DeviceController, _ mode: DetachMode
  ) throws(ServiceError) {
    let doors = table.entries(of: controller.id).map(\.record.name)
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    try closeDoors(doors, mode, refusal: .deviceInUse, of: "the device \(controller.id)")
    controller.enter(.detaching(device))
    // Requests that wait at a suspended disk, or for a check that is given up only when nobody is inside, would not end:
    // its closing refuses them.
    let refuses = device.isSuspended || !device.isChecked
    do throws(ServiceError) {
      if !refuses { try dropClients(of: doors, until: deadline) }
      try converting { () throws(DeviceError) in try device.detach(until: deadline) }
    } catch {
      if error.code == .drainTimeout {
        controller.enter(.attached(device))
        table.set(doors, open: true)
        tellChanged(controller.id, controller.now.record?.exports ?? [])
      } else {
        // It is closed, but not cleanly: kept, so that nobody thinks that all is well.
        fail(controller, error)
        if refuses { dropRefused(doors) }
        closeSnapshots(of: controller.id)
      }
      throw error
    }
    if refuses { dropRefused(doors) }
  }

  /// Clients of a disk that is closed: nothing of theirs is in flight any more that could not end.
  private func dropRefused(_ doors: [String]) {
    try? dropClients(of: doors, until: .after(seconds: configuration.quiesceSeconds))
  }
}
