internal import Logging
internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// A live disk as it is at one instant, for a job that copies it: a push backup whose copier is the job. It is
// the job that has the device, so nobody sees this one by the routes of push backups.

/// A live disk that is held still for a job.
struct FrozenDisk: Sendable {
  let device: Device
  let backup: PushBackup
  /// Of the checkpoint that began with it too; seconds since 1970.
  let pointInTime: Double
  let checkpoints: BackupCheckpoints
  /// As ``LiveDisk/newestSnapshot(_:)``.
  let newestSnapshot: GUID?
  /// For how long requests had to wait when it began.
  let pauseNanoseconds: UInt64
}

extension Service {
  /// How long a guest waits where nothing can be saved any more, before its write costs the backup.
  private static let deadlineSeconds: UInt64 = 5

  /// The instant: everything that is wanted is held from then on, and the next checkpoint begins.
  ///
  /// - Parameters:
  ///   - id: of the job that copies it.
  ///   - spill: where what guests overwrite is saved until it is copied.
  /// - Throws: as ``writable(_:)``; `increment-not-possible` when the checkpoint is another one by now;
  ///   `insufficient-space`, `drain-timeout`; with nothing begun.
  func freeze(
    _ controller: DeviceController, for id: String, saving spill: BackupSpill = BackupSpill(),
    since checkpoint: BaseCheckpoint? = nil,
    _ checkpoints: BackupCheckpoints = BackupCheckpoints(base: nil, kept: nil)
  ) throws(ServiceError) -> FrozenDisk {
    try requireFree(controller, but: id)
    let (device, record) = try writable(controller)
    var options = PushBackup.Options()
    options.onDeadline = .spill
    options.deadlineNanoseconds = Service.deadlineSeconds * 1_000_000_000
    options.scratch = try scratch(spill, of: controller, device.geometry)
    if let checkpoint { options.clusters = .since(try checkpoint.find(on: device)) }
    // Of an attempt at the same job that a crash has cut short.
    dropCheckpoint(checkpoints.working, begunBy: id, device, controller.id)
    let backup = PushBackup(id, of: device, options, engine: engine)
    let new = checkpoints.working.map { name in
      NewCheckpoint(
        name, granularityShift: device.geometry.clusterShift, createdAt: backup.startedAt,
        request: BackupHistory.request(of: id))
    }
    let pause = try converting { () throws(DeviceError) in
      try backup.start(
        until: .after(seconds: configuration.quiesceSeconds), beginning: new)
    }
    let frozen = FrozenDisk(
      device: device, backup: backup, pointInTime: backup.startedAt, checkpoints: checkpoints,
      newestSnapshot: LiveDisk.newestSnapshot(record), pauseNanoseconds: pause)
    self.frozen.withLock { $0[controller.id] = frozen }
    log.info(
      "frozen for a backup",
      metadata: ["device": "\(controller.id)", "job": "\(id)", "pause_ns": "\(pause)"])
    return frozen
  }

  /// The instant is over.
  ///
  /// - Parameter isKept: whether the checkpoint that began at it stays.
  func thaw(_ frozen: FrozenDisk, _ controller: DeviceController, isKept: Bool) {
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    do throws(DeviceError) { try frozen.backup.stop(until: deadline) } catch {
      // It holds nothing any more, and is asked in vain.
      log.warning(
        "a disk still asks a backup that is over",
        metadata: ["device": "\(controller.id)", "reason": "\(error.detail)"])
    }
    self.frozen.withLock { $0[controller.id] = nil }
    guard !isKept, let name = frozen.checkpoints.working else { return }
    dropCheckpoint(name, frozen.device, controller.id)
  }

  /// The checkpoint of a backup that is durable takes the place of the one before.
  ///
  /// - Parameter backup: its id, which is told.
  func keepCheckpoint(
    of checkpoints: BackupCheckpoints, _ backup: String, _ controller: DeviceController
  ) throws(ServiceError) {
    let (device, record) = try writable(controller)
    if let working = checkpoints.working, let kept = checkpoints.kept, working != kept {
      try converting { () throws(DeviceError) in
        try device.renameCheckpoint(
          working, to: kept, until: .after(seconds: configuration.quiesceSeconds))
      }
    }
    try commit(record, of: controller, as: .deviceChanged) {
      (record, transaction) throws(ServiceError) in
      guard let kept = checkpoints.kept else { return }
      try transaction.note(
        .checkpointCreated, kept, device: record.id, at: try transaction.nextRevision())
    }
    log.info(
      "a checkpoint advances",
      metadata: [
        "device": "\(controller.id)", "backup": "\(backup)",
        "checkpoint": "\(checkpoints.kept ?? "")",
      ])
  }

  private func dropCheckpoint(
    _ name: String?, begunBy job: String, _ device: Device, _ controller: String
  ) {
    let request = BackupHistory.request(of: job)
    guard let name,
      device.checkpoints.contains(where: { $0.name == name && $0.request == request })
    else { return }
    dropCheckpoint(name, device, controller)
  }

  /// Of the checkpoints that earlier backups have left, that which belongs to the newest point of a chain
  /// gets its name, and one that belongs to none goes; of those that somebody has named, only one that an
  /// attempt at the same job has begun.
  ///
  /// - Parameter history: nil where the target keeps no points.
  func settleCheckpoints(
    _ checkpoints: BackupCheckpoints, _ history: BackupHistory?, _ controller: DeviceController,
    for job: String
  ) throws(ServiceError) {
    let device = try controller.device()
    guard !device.isReadOnly, let working = checkpoints.working, let kept = checkpoints.kept,
      let left = device.checkpoints.first(where: { $0.name == working })
    else { return }
    if let chain = history?.chain(beginning: left, as: kept) {
      guard working != kept else { return }
      try keepCheckpoint(of: checkpoints, chain.points.last?.id ?? "", controller)
    } else if working != kept {
      dropCheckpoint(working, device, controller.id)
    } else {
      dropCheckpoint(working, begunBy: job, device, controller.id)
    }
  }

  /// A backup that was interrupted is not gone on with: what it had begun to record is of no use, unless
  /// its point is whole, which the next backup finds out.
  func forgetWorkingCheckpoint(
    of job: BackupJob, _ id: String, _ controller: DeviceController
  ) {
    do throws(ServiceError) {
      let history = try history(of: job.device, on: try find(job.destination))
      try controller.runAndWait { () throws(ServiceError) in
        try self.settleCheckpoints(job.checkpoints, history, controller, for: id)
      }
    } catch {
      log.warning(
        "what a backup has left is removed by the next one",
        metadata: ["device": "\(job.device)", "reason": "\(error.detail)"])
    }
  }

  // MARK: The scratch file

  func check(_ spill: BackupSpill, of controller: DeviceController) throws(ServiceError) {
    if let path = spill.path { _ = try roots.locate(path, pointer: "/params/spill/path") }
    let device = try controller.device()
    guard let limit = spill.limitBytes, limit < device.geometry.clusterBytes else { return }
    throw ServiceError(
      .valueImpossible,
      "a cluster has \(device.geometry.clusterBytes) bytes; there is no room for one",
      pointer: "/params/spill/max_bytes")
  }

  private func scratch(
    _ spill: BackupSpill, of controller: DeviceController, _ geometry: Geometry
  ) throws(ServiceError) -> Scratch {
    let pointer = "/params/spill/path"
    let location: Roots.Location
    if let path = spill.path {
      location = try roots.locate(path, pointer: pointer)
    } else {
      let top = try roots.locate(controller.now.record?.deltas.last?.path ?? "", pointer: pointer)
      // It loses its name at once.
      location = top.sibling("\(ULID.make()).spill")
    }
    let folder = try roots.makeFolder(of: location, pointer: pointer)
    let share = ((try? folder.space().freeBytes) ?? 0) / 4
    let limit = spill.limitBytes ?? min(geometry.sizeBytes, share)
    do throws(IOError) {
      return try Scratch(
        location.name, in: folder, clusterBytes: geometry.clusterBytes,
        limitBytes: max(limit, geometry.clusterBytes))
    } catch { throw ServiceError(opening: location.path, error, pointer: pointer) }
  }
}
