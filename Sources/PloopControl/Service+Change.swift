internal import PloopDevice
internal import PloopIO

extension Service {
  /// Changes settings of a device, all or none of them.
  package func change(
    _ id: String, _ change: DeviceChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> DeviceInfo {
    try requireServing()
    let controller = try controller(id)
    defer { jobs.admit(device: id) }
    if change.suspended == true {
      // A job's step would wait at the closed gate, and nothing could end it: it waits for its turn
      // instead, until the disk is resumed. Not on the controller's thread, which its end needs.
      let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
      await clerk.wait { self.jobs.interrupt(device: id, until: deadline) }
    }
    try await controller.run { () throws(ServiceError) in
      try self.apply(change, to: controller, ifRevision: ifRevision)
    }
    return info(of: controller)
  }

  private func apply(
    _ change: DeviceChange, to controller: DeviceController, ifRevision: UInt64?
  ) throws(ServiceError) {
    let device = try controller.device()
    guard let before = controller.now.record else { return }
    try Service.require(ifRevision, is: before.revision)
    var after = before
    after.autostart = change.autostart ?? before.autostart
    for (name, value) in change.labels ?? [:] { after.labels[name] = value }
    try Names.require(labels: after.labels)
    after.suspended = change.suspended ?? before.suspended
    // What is so already is no change: a repeated PATCH is answered as the first.
    guard after != before else { return }
    if after.suspended != before.suspended { try set(device, suspended: after.suspended) }
    do throws(ServiceError) {
      try commit(after, of: controller, as: .deviceChanged)
    } catch {
      if after.suspended != before.suspended { try set(device, suspended: before.suspended) }
      throw error
    }
  }

  private func set(_ device: Device, suspended: Bool) throws(ServiceError) {
    guard suspended else { return device.resume() }
    try converting { () throws(DeviceError) in
      try device.suspend(until: .after(seconds: configuration.quiesceSeconds))
      // Whoever copies its files finds in them what the disk is.
      do throws(DeviceError) { try device.flushSuspended() } catch {
        // A disk that takes no more writes can be suspended all the same.
        guard device.failure == nil else { return }
        device.resume()
        throw error
      }
    }
  }
}
