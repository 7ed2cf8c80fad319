internal import Logging
internal import PloopDevice
internal import PloopIO
internal import PloopNBD

extension Service {
  /// Changes settings of a device, all or none of them.
  package func change(
    _ id: String, _ change: DeviceChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> DeviceInfo {
    try requireServing()
    let controller = try controller(id)
    defer { jobs.admit(device: id) }
    if change.suspended == true {
      // A job's step would wait at the closed gate, and nothing could end it: it waits for its turn, or
      // between two steps, until the disk is resumed. Not on the controller's thread, which its end needs.
      let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
      await clerk.wait { self.jobs.rest(device: id, until: deadline) }
    }
    if change.isForced {
      // Of a disk that was handed over the other side is told no more.
      let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
      tellings.want(id)
      await clerk.wait { self.tellings.awaitEnd(id, until: deadline) }
    }
    defer { if change.isForced { tellings.leave(id) } }
    try await controller.run { () throws(ServiceError) in
      try self.apply(change, to: controller, ifRevision: ifRevision)
    }
    return info(of: controller)
  }

  private func apply(
    _ change: DeviceChange, to controller: DeviceController, ifRevision: UInt64?
  ) throws(ServiceError) {
    let (device, id) = (try controller.device(), controller.id)
    guard let before = controller.now.record else { return }
    try Service.require(ifRevision, is: before.revision)
    if change.isForced { try tellings.requireNone(of: id) }
    if change.noresume == false, !change.isForced, let job = before.handedOverBy {
      // It would be used here again, while the other side is told that it has it, or was told.
      throw ServiceError(
        .resumeProhibited, "the job \(job) has handed \(id) over",
        remedy:
          "where it is to be here again, say {\"suspended\":false,\"force\":true}, and look at the other side first",
        errno: "EAGAIN", holder: ServiceError.Holder(kind: "job", id: job))
    }
    let now = wallClockSeconds()
    var after = before
    after.autostart = change.autostart ?? before.autostart
    if let rates = change.throttle { after.throttle = rates.applied(to: before.throttle) }
    if change.isTakenOver { after.incoming = nil }
    for (name, value) in change.labels ?? [:] { after.labels[name] = value }
    try Names.require(labels: after.labels)
    // Who sets `noresume` and `suspended` at once means them in this order.
    after.prohibit(change, now: now)
    try after.suspend(change, now: now)
    // What is so already is no change: a repeated PATCH is answered as the first.
    guard after != before else { return }
    try write(after, of: controller, device, as: .deviceChanged)
  }

  /// Makes the disk what a changed record says of it, and writes that down.
  private func write(
    _ after: DeviceRecord, of controller: DeviceController, _ device: Device, as event: EventType
  ) throws(ServiceError) {
    let wasSuspended = device.isSuspended
    if after.suspended != wasSuspended { try set(device, suspended: after.suspended) }
    do throws(ServiceError) {
      try commit(after, of: controller, as: event)
      controller.throttle.change(after.throttle)
    } catch {
      if after.suspended != wasSuspended { try set(device, suspended: wasSuspended) }
      throw error
    }
  }

  private func set(_ device: Device, suspended: Bool) throws(ServiceError) {
    guard suspended else { return device.resume() }
    try converting { () throws(DeviceError) in
      try device.suspend(until: .after(seconds: configuration.quiesceSeconds))
    }
  }

  // MARK: Suspended for long

  /// Tells of a disk that has been suspended for long, or resumes it at the end of its time.
  func attend(_ call: SuspensionTimer.Call) {
    guard let controller = state.withLock({ $0.devices[call.device] }) else { return }
    // As any change of a device: when those before it have ended, and not on the timer's thread.
    Task { [weak self] in
      guard let self else { return }
      do throws(ServiceError) {
        try await controller.run { () throws(ServiceError) in try self.attend(call, controller) }
        if call.action == .resume { jobs.lookAgain() }
      } catch {
        log.error(
          "what is due of a suspended disk cannot be done",
          metadata: ["device": "\(call.device)", "reason": "\(error.detail)"])
        suspensions.postpone(call)
      }
    }
  }

  private func attend(
    _ call: SuspensionTimer.Call, _ controller: DeviceController
  ) throws(ServiceError) {
    // Somebody may have resumed it, or given it more time.
    guard case .attached(let device) = controller.now.phase, var record = controller.now.record,
      record.suspension?.isStill(call.suspension) == true
    else { return }
    switch call.action {
    case .tell:
      record.suspension?.isTold = true
      log.warning(
        "a disk has been suspended for long",
        metadata: ["device": "\(record.id)", "holder": "\(call.suspension.holder)"])
      try commit(record, of: controller, as: .deviceSuspended)
    case .resume:
      guard record.prohibition == nil else { return suspensions.postpone(call) }
      record.suspended = false
      record.suspension = nil
      log.warning(
        "a disk's suspension has come to its end",
        metadata: ["device": "\(record.id)", "holder": "\(call.suspension.holder)"])
      try write(record, of: controller, device, as: .deviceChanged)
    }
  }
}

extension DeviceRecord {
  fileprivate mutating func prohibit(_ change: DeviceChange, now: Double) {
    if change.noresume == false || change.isForced { prohibition = nil }
    if change.noresume == true, prohibition == nil {
      prohibition = Prohibition(holder: change.caller, since: now)
    }
  }

  /// - Throws: `resume-prohibited`; `value-impossible` for members that do not go together.
  fileprivate mutating func suspend(_ change: DeviceChange, now: Double) throws(ServiceError) {
    let wanted = change.suspended ?? suspended
    guard !change.isForced || change.suspended == false,
      !(change.isForced && change.noresume == true)
    else {
      throw ServiceError(
        .valueImpossible, "only {\"suspended\":false} can be forced", pointer: "/force")
    }
    guard change.suspendSeconds == nil || wanted else {
      throw ServiceError(
        .valueImpossible, "a time limit is for a disk that is suspended",
        pointer: "/suspend_timeout_seconds")
    }
    guard wanted else {
      if suspended, let prohibition {
        throw ServiceError(
          .resumeProhibited, "\(prohibition.holder) wants nobody to resume \(id)",
          errno: "EAGAIN",
          holder: ServiceError.Holder(kind: "client", id: prohibition.holder))
      }
      suspended = false
      suspension = nil
      return
    }
    guard !suspended || change.suspendSeconds != nil else { return }
    // Of one that is suspended already it is only the time that changes.
    if !suspended || suspension == nil {
      suspension = Suspension(holder: change.caller, since: now)
    }
    suspended = true
    suspension?.until = now + Double(change.suspendSeconds ?? Suspension.defaultSeconds)
  }
}
