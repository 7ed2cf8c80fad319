internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Moves a disk elsewhere while guests use it (docs/crash-safety.md, "A disk is handed over"): copies it in rounds,
/// stops its writers for the rest, and leaves it suspended here, or detached, for good.
struct MigrateJob: JobWork {
  static let type = "migrate"
  static let phases = ["copying", "handing-over"]
  static let isResumable = false
  static let waitsForResume = true
  static let endsWithoutDisk = true
  static let canLackRoom = false
  static let changeable: Set = ["max_downtime_ms"]

  /// What becomes of the disk here.
  enum Source: String, Sendable {
    case suspended, detached
  }

  static let downtimeLimits: ClosedRange<UInt64> = 1...600_000
  static let downtimeDefault: UInt64 = 100

  let device: String
  let destination: MigrationDestination
  let source: Source
  let downtimeMilliseconds: UInt64

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {
    self.device = device
    var parameters = JobParameters(parameters)
    guard let to = try parameters.object("to") else { throw parameters.wrong("to", "is missing") }
    destination = try MigrationDestination(to)
    let word = try parameters.text("source") ?? Source.suspended.rawValue
    guard let source = Source(rawValue: word) else {
      throw parameters.wrong("source", "suspended or detached is expected")
    }
    self.source = source
    downtimeMilliseconds =
      try parameters.number("max_downtime_ms") ?? MigrateJob.downtimeDefault
    guard MigrateJob.downtimeLimits.contains(downtimeMilliseconds) else {
      throw parameters.wrong("max_downtime_ms", "1 to 600000 is expected")
    }
    try parameters.finish()
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try plan(service)
    return [
      "to": try destination.pinned(service).value, "source": .text(source.rawValue),
      "max_downtime_ms": .number(downtimeMilliseconds),
    ]
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    try service.requireUnused(try destination.pinned(service))
    let (disk, _) = try service.writable(try service.controller(device))
    return JobPlan(
      clusters: disk.mappedClusters,
      bytes: disk.mappedClusters * disk.geometry.clusterBytes, requiredBytes: 0)
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let job = try failing { () throws(ServiceError) in try service.existing(control.id) }
    let handOver = HandOver(device: device, job: control.id, service)
    let place = try failing { () throws(ServiceError) in
      try destination.place(of: device, for: control.id, service)
    }
    var result: [String: JobValue] = [:]
    var downtime: Downtime?
    if handOver.isMade {
      control.log("an earlier attempt has handed the disk over")
      control.commitForGood()
      result["completed_earlier"] = .flag(true)
    } else {
      // What was committed was not handed over: it begins anew.
      if job.isCommitted { control.reopen() }
      if job.hasTold == true { control.tell(false) }
      if control.hasProgressedBefore {
        control.log("everything is copied again: what was written since is lost", level: "warning")
      }
      try failing { () throws(ServiceError) in
        try service.requireUnused(destination, before: control.id)
      }
      let migration = Migration(self, to: place, handOver, control, service)
      do throws(JobStop) { (result, downtime) = try migration.run() } catch {
        if !MigrateJob.isKept(after: error, job) { place.discard() }
        throw error
      }
      result["restarted"] = .flag(control.hasProgressedBefore || migration.hasRestarted)
    }
    control.enter(phase: MigrateJob.phases[1])
    try finish(handOver, place, control)
    if let downtime {
      result["taken_over_ms"] = .number(
        (monotonicNanoseconds() - downtime.begunAt + 999_999) / 1_000_000)
    }
    result["to"] = .text(place.words)
    result["source"] = .text(source.rawValue)
    return result
  }

  /// Why another service opens no door to a disk that is its own by then.
  private static let doorFaults: Set = ["export-exists", "writer-exists", "value-impossible"]

  /// Behind the hand-over: whatever may pass is waited for, and nobody can cancel it.
  private func finish(
    _ handOver: HandOver, _ place: any MigrationPlace, _ control: JobControl
  ) throws(JobStop) {
    control.own(true)
    defer { handOver.settle() }
    // Whatever it says of the disk: there is no way back but that somebody takes it back by force. That a door is
    // not opened there costs nobody the disk.
    let refusal = { (error: ServiceError) -> JobBlocker? in
      if error.code == .deviceBusy {
        return JobBlocker(kind: .device, id: device, detail: error.detail)
      }
      return error.code == .peerRefused && error.cause.map(MigrateJob.doorFaults.contains) != true
        ? JobBlocker(kind: .target, id: place.words, detail: error.detail) : place.blocker(error)
    }
    try MigrateJob.insisting(control, refusal) { () throws(ServiceError) in
      try handOver.telling { () throws(ServiceError) in try place.takeOver() }
    }
    control.tell(true)
    guard source == .detached else { return }
    let blocker = { (error: ServiceError) -> JobBlocker? in
      error.code == .drainTimeout
        ? JobBlocker(kind: .device, id: device, detail: error.detail) : nil
    }
    try MigrateJob.insisting(control, blocker) { () throws(ServiceError) in try handOver.detach() }
  }

  private static func insisting(
    _ control: JobControl, _ blocker: (ServiceError) -> JobBlocker?,
    _ body: () throws(ServiceError) -> Void
  ) throws(JobStop) {
    while true {
      do throws(ServiceError) { return try body() } catch {
        guard let obstacle = blocker(error) else { throw .failed(error) }
        try control.wait(for: obstacle) { true }
      }
    }
  }

  private static func isKept(after stop: JobStop, _ job: JobRecord) -> Bool {
    switch stop {
    case .interrupted: true
    case .cancelled: false
    case .failed(let error): error.isInterruption || job.mayTryAgain(after: error)
    }
  }

  func discard(job: String, _ service: Service) {
    guard !HandOver(device: device, job: job, service).isMade else { return }
    (try? destination.place(of: device, for: job, service))?.discard()
  }
}
