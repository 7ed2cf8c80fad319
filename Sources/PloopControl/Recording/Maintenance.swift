internal import Logging
internal import PloopDevice
internal import PloopIO

/// What somebody outside does with a disk over many requests. While it goes on the chain stays as it is:
/// whatever would change it is refused, and jobs wait. It ends with the process, if not before.
enum Maintenance: Sendable {
  case tracking(Tracker, device: String)
  case pushBackup(PushBackupSession)

  var holder: ServiceError.Holder {
    switch self {
    case .tracking(_, let device): ServiceError.Holder(kind: "tracking", id: device)
    case .pushBackup(let session):
      ServiceError.Holder(kind: "push_backup", id: session.backup.uuid)
    }
  }
}

extension ServiceError.Holder {
  /// As it is named to people.
  var words: String {
    switch kind {
    case "tracking": "its tracking"
    case "push_backup": "the push backup \(id)"
    default: "the \(kind) \(id)"
    }
  }
}

extension Service {
  /// - Throws: `device-busy` with the job or maintenance that has the device.
  func requireFree(
    _ controller: DeviceController, but job: String? = nil
  ) throws(ServiceError) {
    try requireNoJob(on: controller.id, but: job)
    guard let holder = controller.now.maintenance?.holder else { return }
    // A job that was begun a moment before waits for its turn again, and is told what for there.
    throw ServiceError(
      .deviceBusy, "\(controller.id) is held by \(holder.words)",
      cause: "the chain stays as it is meanwhile", remedy: "end it first", errno: "EBUSY",
      holder: job == nil ? holder : nil)
  }

  /// Gives a device to a maintenance, with what is kept of the request, and tells so.
  ///
  /// - Parameter change: what is to be known of it after a crash.
  func hold<Made>(
    _ controller: DeviceController, by maintenance: Maintenance, _ made: Made,
    keeping keeper: AnswerKeeper<Made>?, _ change: (inout DeviceRecord) -> Void = { _ in }
  ) throws(ServiceError) {
    guard var record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    change(&record)
    try commit(record, of: controller, as: .deviceChanged, show: { controller.hold(maintenance) }) {
      _, transaction throws(ServiceError) in
      try keeper?.keep(made, in: transaction)
    }
  }

  /// The device has nobody's maintenance any more; it has been ended.
  ///
  /// - Parameters:
  ///   - event: what else is told, if anything, and of what.
  ///   - change: what is known of it.
  func release(
    _ controller: DeviceController, telling event: EventType? = nil, of subject: String = "",
    _ change: (inout DeviceRecord) -> Void = { _ in }
  ) throws(ServiceError) {
    controller.hold(nil)
    jobs.lookAgain()
    guard var record = controller.now.record else { return }
    change(&record)
    try commit(record, of: controller, as: .deviceChanged) {
      record, transaction throws(ServiceError) in
      guard let event else { return }
      try transaction.note(
        event, subject, device: record.id, at: try transaction.nextRevision())
    }
  }

  /// Ends what is done with a device, since the device goes.
  func endMaintenance(of controller: DeviceController, until deadline: Deadline) {
    guard let maintenance = controller.now.maintenance else { return }
    switch maintenance {
    case .tracking(let tracker, _):
      // Nothing is in its way, and if it cannot end in time it goes with the device.
      try? tracker.end(until: deadline)
      waiting.changed([.tracking(controller.id)])
    case .pushBackup(let session): abandon(session, controller, until: deadline)
    }
    controller.hold(nil)
    log.info(
      "maintenance ended with its device",
      metadata: ["device": "\(controller.id)", "kind": "\(maintenance.holder.kind)"])
  }
}
