internal import Logging
internal import PloopDevice
internal import PloopIO

/// The moment at which a disk stops being ours (docs/crash-safety.md, "A disk is handed over"): its record says that it
/// is suspended, and that nobody resumes it, for the job that moves it. Until that is durable it is ours, whatever
/// the other side has; from then on it is not, whatever becomes of us.
struct HandOver {
  private let device: String
  private let job: String
  private let service: Service
  private var holder: String { HandOver.holder(job) }

  /// What nobody else may call himself (``Service/reservedHolder``).
  static func holder(_ job: String) -> String { "\(Service.reservedHolder)\(job)" }

  init(device: String, job: String, _ service: Service) {
    self.device = device
    self.job = job
    self.service = service
  }

  /// Whether it was made, by whatever attempt.
  var isMade: Bool {
    // Where the device is gone the job alone knows.
    service.isHandedOver(device, by: job)
      || (try? service.existing(job))?.ownsWhatItMakes == true
  }

  /// Makes it. Nobody is changing the disk, and what it holds here is not durable yet (``settle()``).
  ///
  /// - Parameters:
  ///   - deadline: until which requests in flight are waited for, as whoever wants to change the disk is.
  ///   - isWanted: asked once it is this one's turn, and nothing is in the way.
  /// - Returns: false where it is not wanted any more.
  /// - Throws: with the disk as it was; `drain-timeout`.
  func make(
    _ controller: DeviceController, until deadline: Deadline,
    _ isWanted: @escaping @Sendable () -> Bool
  ) throws(ServiceError) -> Bool {
    let (job, holder, service) = (job, holder, service)
    return try controller.runAndWait { () throws(ServiceError) in
      try service.requireFree(controller, but: job)
      let (disk, before) = try service.writable(controller)
      var record = before
      guard !disk.isSuspended else {
        throw ServiceError(.deviceBusy, "\(record.id) is suspended", errno: "EBUSY")
      }
      guard isWanted() else { return false }
      try converting { () throws(DeviceError) in try disk.quiesce(until: deadline) }
      let now = wallClockSeconds()
      record.suspended = true
      record.suspension = Suspension(holder: holder, since: now)
      record.prohibition = Prohibition(holder: holder, since: now)
      do throws(ServiceError) {
        try service.commit(record, of: controller, as: .deviceChanged)
      } catch {
        disk.resume()
        throw error
      }
      return true
    }
  }

  /// What the disk holds here is durable, too: so it is a disk like any other that is suspended.
  func settle() {
    guard let disk = try? service.controller(device).device() else { return }
    do throws(DeviceError) { try disk.settle() } catch {
      service.log.warning(
        "a disk that was handed over is not flushed here",
        metadata: ["device": "\(device)", "reason": "\(error.detail)"])
    }
  }

  /// Tells the other side that the disk is its own, unless it knows, as long as nobody has resumed the disk here:
  /// whoever does that by force takes it back, and both sides must not have it.
  ///
  /// - Throws: `precondition-failed` where it was taken back; `device-busy` where somebody is about to.
  func telling(_ body: () throws(ServiceError) -> Void) throws(ServiceError) {
    let (job, device, service) = (job, device, service)
    guard try service.existing(job).hasTold != true else { return }
    let takenBack = ServiceError(
      .preconditionFailed, "\(device) was resumed by force since it was handed over",
      remedy: "it is used here: remove what was copied, and move it anew")
    // Nobody detaches it while it is the job's: whoever did has taken it back before.
    guard let controller = service.state.withLock({ $0.devices[device] }) else { throw takenBack }
    try controller.runAndWait { () throws(ServiceError) in
      guard controller.now.record?.handedOverBy == job else { throw takenBack }
      guard service.tellings.begin(device) else {
        throw ServiceError(
          .deviceBusy, "somebody is about to resume \(device) by force", errno: "EBUSY")
      }
    }
    // Outside of the device's turn, whose thread other devices need: the other side may be silent for long.
    defer { service.tellings.end(device) }
    try body()
  }

  /// Nobody finds the disk here any more; its files stay.
  func detach() throws(ServiceError) {
    let (job, device, service) = (job, device, service)
    guard let controller = service.state.withLock({ $0.devices[device] }) else { return }
    try controller.runAndWait { () throws(ServiceError) in
      try service.requireFree(controller, but: job)
      try service.detach(controller, mode: .hard, ifRevision: nil)
    }
    service.log.info("detached after its hand-over", metadata: ["device": "\(device)"])
  }
}

extension Service {
  /// How the holders of disks begin that are jobs.
  package static let reservedHolder = "job:"

  /// Whether a device's disk is not ours any more, since a job has handed it over.
  func isHandedOver(_ device: String, by job: String) -> Bool {
    record(of: device)?.handedOverBy == job
  }

  /// There for a disk that was handed over, and for as long as it is here.
  func handOverCondition(_ record: DeviceRecord?) -> DeviceInfo.Condition? {
    guard let record, let job = record.handedOverBy else { return nil }
    let isOpen = jobs.isOpen(job)
    let obstacle = isOpen ? jobs.obstacles(of: job).first?.detail : nil
    let words =
      isOpen
      ? "the job \(job) has not told the other side yet\(obstacle.map { ": \($0)" } ?? "")"
      : "by the job \(job), which is over: how it ended says whether the other side was told"
    return DeviceInfo.Condition(
      type: "HandedOver", isTrue: true, reason: isOpen ? "NotTold" : "JobOver", message: words,
      since: record.suspension?.since ?? record.updatedAt)
  }

  /// Whoever lets go of a disk that was handed over, and of which the other side has not been told yet, takes away
  /// what says whose it is: attached again it would have two owners.
  ///
  /// - Throws: `device-busy` with the job.
  func requireNotHandedOver(_ controller: DeviceController) throws(ServiceError) {
    guard let job = controller.now.record?.handedOverBy, jobs.isOpen(job) else { return }
    throw ServiceError(
      .deviceBusy,
      "the job \(job) has handed \(controller.id) over, and has not told the other side yet",
      remedy: "wait for the job, or take the disk back by resuming it by force", errno: "EBUSY",
      holder: ServiceError.Holder(kind: "job", id: job))
  }
}

extension DeviceRecord {
  /// The job that has handed the disk over: it is not ours any more.
  var handedOverBy: String? {
    guard suspended, let holder = prohibition?.holder, holder.hasPrefix(Service.reservedHolder)
    else { return nil }
    return String(holder.dropFirst(Service.reservedHolder.count))
  }
}
