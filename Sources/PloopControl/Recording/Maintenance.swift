internal import Logging
internal import PloopDevice
internal import PloopIO

/// What somebody outside does with a disk over many requests. While it goes on the chain stays as it is:
/// whatever would change it is refused, and jobs wait. It ends with the process, if not before.
enum Maintenance: Sendable {
  case tracking(Tracker, device: String)

  var holder: ServiceError.Holder {
    switch self {
    case .tracking(_, let device): ServiceError.Holder(kind: "tracking", id: device)
    }
  }
}

extension ServiceError.Holder {
  /// As it is named to people.
  var words: String {
    switch kind {
    case "tracking": "its tracking"
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
  func hold<Made>(
    _ controller: DeviceController, by maintenance: Maintenance, _ made: Made,
    keeping keeper: AnswerKeeper<Made>?
  ) throws(ServiceError) {
    guard let record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    try commit(record, of: controller, as: .deviceChanged, show: { controller.hold(maintenance) }) {
      _, transaction throws(ServiceError) in
      try keeper?.keep(made, in: transaction)
    }
  }

  /// The device has nobody's maintenance any more; it has been ended.
  func release(_ controller: DeviceController) throws(ServiceError) {
    controller.hold(nil)
    jobs.lookAgain()
    guard let record = controller.now.record else { return }
    try commit(record, of: controller, as: .deviceChanged)
  }

  /// Ends what is done with a device, since the device goes.
  func endMaintenance(of controller: DeviceController) {
    guard let maintenance = controller.now.maintenance else { return }
    switch maintenance {
    case .tracking(let tracker, _):
      // Nothing is in its way, and if it cannot end in time it goes with the device.
      try? tracker.end(until: .after(seconds: configuration.quiesceSeconds))
      waiting.changed([.tracking(controller.id)])
    }
    controller.hold(nil)
    log.info(
      "maintenance ended with its device",
      metadata: ["device": "\(controller.id)", "kind": "\(maintenance.holder.kind)"])
  }
}
