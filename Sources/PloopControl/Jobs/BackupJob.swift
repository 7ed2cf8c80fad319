internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Copies a disk as it is at one instant, or a snapshot of it, to a target: all of it, or what was written
/// since a checkpoint (docs/crash-safety.md, "A backup of a live disk").
struct BackupJob: JobWork {
  static let type = "backup"
  static let phases = ["freezing", "copying", "finalizing"]
  static let isResumable = true
  /// Its instant would be over.
  static let waitsForResume = true
  /// Its target's room is waited for.
  static let canLackRoom = false

  enum Mode: String, Sendable {
    case full, incremental
    /// An increment where one is possible.
    case auto
  }

  let device: String
  private(set) var destination: BackupDestination
  let mode: Mode
  /// Nil for the disk as it is.
  let snapshot: GUID?
  let checkpoints: BackupCheckpoints
  let spill: BackupSpill
  private var survey: Survey?

  /// What was seen of the target ahead.
  private struct Survey: Sendable {
    /// Nil where it keeps no points, or nobody needs to know.
    var history: BackupHistory?
    var freeBytes: UInt64?
  }

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {
    self.device = device
    var parameters = JobParameters(parameters)
    destination = try BackupDestination(&parameters)
    mode = try parameters.backupMode()
    snapshot = try parameters.guid("snapshot")
    let (base, new) = (
      try parameters.name("base_checkpoint"), try parameters.name("new_checkpoint")
    )
    checkpoints =
      base == nil && new == nil
      ? BackupCheckpoints(keptFor: destination) : BackupCheckpoints(base: base, kept: new)
    var spill = BackupSpill()
    let own = try parameters.object("spill")
    if var fields = own {
      spill.path = try fields.text("path")
      spill.limitBytes = try fields.number("max_bytes")
      try fields.finish()
    }
    self.spill = spill
    if snapshot != nil, base != nil || new != nil || own != nil {
      throw parameters.wrong("snapshot", "a snapshot needs no checkpoint and no spill")
    }
    try parameters.finish()
  }

  /// Where it goes on is the cursor of its point; the instant of a live disk is over.
  static func isResumable(with parameters: [String: JobValue]) -> Bool {
    parameters["snapshot"] != nil
  }

  // MARK: Before it begins

  var ownPlace: String? { destination.place?.name }

  func surveyed(
    _ service: Service, isPlanned: Bool
  ) throws(ServiceError) -> BackupJob {
    var job = self
    job.destination = try service.settled(destination, isMade: !isPlanned)
    guard isPlanned || mode == .incremental else { return job }
    let place = try service.find(job.destination, pointer: "/params/target")
    job.survey = Survey(
      history: mode == .full ? nil : try history(on: place, service),
      freeBytes: service.freeBytes(at: place.place))
    return job
  }

  /// What is not there yet has no backups.
  private func history(
    on place: Target, _ service: Service
  ) throws(ServiceError) -> BackupHistory? {
    do throws(ServiceError) { return try service.history(of: device, on: place) } catch {
      guard destination.place != nil, error.cause == "image-not-found" else { throw error }
      return nil
    }
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    var pinned = destination.values
    pinned["mode"] = .text(mode.rawValue)
    _ = try service.find(destination, pointer: "/params/target")
    let controller = try service.controller(device)
    if let snapshot {
      pinned["snapshot"] = .text(snapshot.description)
      try service.requireSnapshot(snapshot, of: controller)
    } else {
      try requireCheckpoints(try controller.device(), service)
      if checkpoints != BackupCheckpoints(keptFor: destination) {
        pinned["base_checkpoint"] = checkpoints.base.map(JobValue.text)
        pinned["new_checkpoint"] = checkpoints.kept.map(JobValue.text)
      }
      var members: [String: JobValue] = [:]
      members["path"] = spill.path.map(JobValue.text)
      members["max_bytes"] = spill.limitBytes.map(JobValue.number)
      if !members.isEmpty { pinned["spill"] = .object(members) }
      try service.check(spill, of: controller)
    }
    // What can be said at once is not left to the job.
    if mode == .incremental {
      try choosing(service) { _, _ throws(ServiceError) in }
    }
    return pinned
  }

  private func requireCheckpoints(
    _ disk: Device, _ service: Service
  ) throws(ServiceError) {
    // What is made of a long name may be none.
    for name in [checkpoints.base, checkpoints.kept, checkpoints.working].compactMap({ $0 })
    where !Names.isValid(name) {
      let isTargets = checkpoints == BackupCheckpoints(keptFor: destination)
      throw ServiceError(
        .valueImpossible,
        "a checkpoint \(name.prefix(80)) would be needed: \(Names.lengthLimit) characters are the most",
        remedy: "name base_checkpoint and new_checkpoint, two that differ",
        pointer: isTargets ? "/params/target" : "/params/new_checkpoint")
    }
    guard checkpoints.base != checkpoints.kept, let kept = checkpoints.kept,
      disk.checkpoints.contains(where: { $0.name == kept })
    else { return }
    throw ServiceError(
      .checkpointExists, "the disk has a checkpoint \(kept) already", errno: "EEXIST",
      pointer: "/params/new_checkpoint")
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    try choosing(service) { (choice, disk) throws(ServiceError) in
      let clusters = try choice.clusters(of: disk)
      let bytes = min(disk.geometry.sizeBytes, clusters * disk.geometry.clusterBytes)
      var plan = JobPlan(clusters: clusters, bytes: bytes, requiredBytes: bytes)
      plan.mode = choice.mode.rawValue
      plan.reason = choice.reason
      plan.freeBytes = survey?.freeBytes
      return plan
    }
  }

  /// What a backup would build on now.
  ///
  /// - Parameter body: is handed what is copied too, which is open as long as it runs.
  private func choosing<Result>(
    _ service: Service, _ body: (BackupChoice, Device) throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    let controller = try service.controller(device)
    guard let snapshot else {
      let disk = try LiveDisk(controller)
      return try body(try choose(survey?.history, .live(disk), named: "new"), disk.device)
    }
    return try service.withSnapshot(
      snapshot, for: ULID.make(), of: controller, failing: { $0 }
    ) { (opened) throws(ServiceError) in
      let subject = BackupSubject.snapshot(opened, of: try? LiveDisk(controller))
      return try body(try choose(survey?.history, subject, named: "new"), opened.device)
    }
  }

  /// - Parameters:
  ///   - history: nil where the target keeps no points.
  ///   - id: of the new point.
  /// - Throws: `increment-not-possible`.
  func choose(
    _ history: BackupHistory?, _ subject: BackupSubject, named id: String
  ) throws(ServiceError) -> BackupChoice {
    guard mode != .full else { return BackupChoice(chain: id) }
    let reason: String
    do throws(BackupHistory.Obstacle) {
      guard let history else {
        throw BackupHistory.Obstacle(
          destination.place?.place.kind == .directory
            ? BackupHistory.nothing(of: device) : BackupChoice.fileReason)
      }
      return try history.increment(of: subject, checkpoints)
    } catch { reason = error.words }
    guard mode == .auto else { throw BackupChoice.refusal(reason) }
    return BackupChoice(chain: id, reason: reason)
  }

  // MARK: The work

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let controller = try failing { () throws(ServiceError) in try service.controller(device) }
    return try BackupRun(
      job: self, control: control, controller: controller, service: service
    ).run()
  }

  func discard(job: String, _ service: Service) {
    service.removeBegunBackup(job, of: device, on: destination)
    guard snapshot == nil, let controller = try? service.controller(device) else { return }
    service.forgetWorkingCheckpoint(of: self, job, controller)
  }
}

/// Where old clusters are saved while a live disk is copied.
struct BackupSpill: Equatable, Sendable {
  /// `root:relative`; a file beside the disk when nil.
  var path: String?
  /// Bytes at most; a part of what is free when nil.
  var limitBytes: UInt64?
}

/// The checkpoints of a disk that a backup has to do with.
struct BackupCheckpoints: Equatable, Sendable {
  /// What was written since it is what an increment copies.
  var base: String?
  /// What is written from the instant on is in it once the backup is durable.
  var kept: String?

  init(base: String?, kept: String?) {
    self.base = base
    self.kept = kept
  }

  private static let prefix = "backup-"
  /// No target's own checkpoint begins with it.
  private static let workingPrefix = "new-"

  /// Those that nobody has named: one for each target, which advances with each backup, and none for a place of a
  /// job's own.
  init(keptFor destination: BackupDestination) {
    let name = destination.place == nil ? BackupCheckpoints.prefix + destination.name : nil
    self.init(base: name, kept: name)
  }

  /// The target whose last backup began with a checkpoint of a name.
  static func target(of name: String) -> String? {
    guard name.hasPrefix(prefix) else { return nil }
    return String(name.dropFirst(prefix.count))
  }

  /// What the new one is called until the backup is durable.
  var working: String? { kept == base ? kept.map { BackupCheckpoints.workingPrefix + $0 } : kept }

  /// The names under which the one may be found that began with the last backup.
  var names: [String] { [working, base].compactMap { $0 } }
}

extension JobParameters {
  fileprivate mutating func backupMode() throws(ServiceError) -> BackupJob.Mode {
    guard let text = try text("mode") else { return .auto }
    guard let mode = BackupJob.Mode(rawValue: text) else {
      throw wrong("mode", "full, incremental or auto is expected")
    }
    return mode
  }
}
