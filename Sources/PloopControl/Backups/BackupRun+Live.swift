internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// A backup of the disk as it is at one instant, while guests go on.

extension BackupRun {
  /// - Parameter history: nil where the target keeps no points.
  func copyLive(
    _ history: BackupHistory?, _ facts: BackupFacts
  ) throws(JobStop) -> [String: JobValue] {
    let disk = try failing { () throws(ServiceError) in try controller.device() }
    guard !disk.isReadOnly else { return try copyUnwritten(disk, history, facts) }
    var choice = try choose(history, disk)
    while true {
      do throws(JobStop) {
        return try copy(choice, history, facts)
      } catch {
        // What it was to build on has turned out to be of no use.
        guard case .failed(let refusal) = error, choice.parent != nil, job.mode == .auto,
          BackupRun.basisFaults.contains(refusal.code)
        else { throw error }
        choice = BackupChoice(chain: id, reason: refusal.detail)
        control.log("all is copied: \(refusal.detail)", level: "warning")
      }
    }
  }

  private static let basisFaults: Set<ServiceError.Code> = [
    .backupCorrupt, .backupMismatch, .backupNotFound, .incrementNotPossible, .tooManyDeltas,
  ]

  private func copy(
    _ choice: BackupChoice, _ history: BackupHistory?, _ earlier: BackupFacts
  ) throws(JobStop) -> [String: JobValue] {
    let frozen = try freeze(choice, history)
    let source = FrozenSource(frozen.backup)
    var choice = choice
    let made: PointManifest
    let totals: StepJournal.Totals
    do throws(JobStop) {
      if choice.parent != nil, let reason = frozen.backup.fullReason {
        guard job.mode == .auto else { throw .failed(BackupChoice.refusal(reason)) }
        choice = BackupChoice(chain: id, reason: reason)
      }
      made = manifest(choice, source, at: frozen)
      let place = try place(choice, made, source, keepsPoints: history != nil)
      control.log(BackupRun.words(choice))
      let copying = BackupCopying(source, to: place, control, on: service.engine) {
        BackupRun.end(of: frozen.backup)
      }
      totals = try copying.run { () throws(JobStop) in try awaitResume(frozen.device) }
    } catch {
      service.thaw(frozen, controller, isKept: false)
      if case .interrupted = error { throw error }
      service.removeBegunBackup(id, of: job.device, on: job.target)
      throw error
    }
    service.thaw(frozen, controller, isKept: true)
    let seen = frozen.backup.facts
    var facts = earlier
    (facts.mode, facts.reason) = (choice.mode, choice.reason)
    (facts.guestWaitNanoseconds, facts.spilledBytes) = (
      seen.longestWaitNanoseconds, seen.spilledBytes
    )
    try advance(frozen.checkpoints)
    return try result(
      of: made, in: history == nil ? nil : choice.chain, source, totals, facts)
  }

  private func place(
    _ choice: BackupChoice, _ manifest: PointManifest, _ source: any BackupSource,
    keepsPoints: Bool
  ) throws(JobStop) -> any BackupPlace {
    guard !keepsPoints else {
      return PointPlace(
        service, job.target, choice.chain, manifest, wanted: source.wanted)
    }
    guard try export() == nil else { return ExportPlace(service, job.target, manifest) }
    return FilePlace(service, job.target, of: source.geometry)
  }

  /// Nil where the target is something else.
  private func export() throws(JobStop) -> NBDTarget? {
    let target = try failing { () throws(ServiceError) in try service.open(target: job.target) }
    guard case .nbd(let export, _) = target else { return nil }
    return export
  }

  /// - Parameter chain: nil where the target has none.
  private func result(
    of made: PointManifest, in chain: String?, _ source: any BackupSource,
    _ totals: StepJournal.Totals, _ facts: BackupFacts
  ) throws(JobStop) -> [String: JobValue] {
    if let chain { return try result(of: made, in: chain, facts) }
    if let export = try export() { return try result(in: export, of: made, facts) }
    return result(of: source, totals, facts)
  }

  private static func words(_ choice: BackupChoice) -> String {
    guard let parent = choice.parent else {
      return choice.reason.map { "a full backup: \($0)" } ?? "a full backup"
    }
    return "an increment on \(parent), since the checkpoint \(choice.checkpoint?.name ?? "")"
  }

  // MARK: The instant

  private func freeze(
    _ choice: BackupChoice, _ history: BackupHistory?
  ) throws(JobStop) -> FrozenDisk {
    var checkpoints = job.checkpoints
    // One that nobody has named is for increments.
    if history == nil, checkpoints == BackupCheckpoints(keptFor: job.target) {
      checkpoints = BackupCheckpoints(base: nil, kept: nil)
    }
    do throws(JobStop) {
      return try freeze(choice, checkpoints)
    } catch {
      guard case .failed(let refusal) = error, refusal.code == .checkpointUnsupported,
        checkpoints == BackupCheckpoints(keptFor: job.target)
      else { throw error }
      control.log(
        "the next backup will be a full one again: \(refusal.detail)", level: "warning")
      return try freeze(choice, BackupCheckpoints(base: checkpoints.base, kept: nil))
    }
  }

  private func freeze(
    _ choice: BackupChoice, _ checkpoints: BackupCheckpoints
  ) throws(JobStop) -> FrozenDisk {
    let (job, id, controller, service) = (job, id, controller, service)
    return try control.untilThereIsRoom { () throws(ServiceError) in
      try controller.runAndWait { () throws(ServiceError) in
        try service.freeze(controller, for: job, id, since: choice.checkpoint, checkpoints)
      }
    }
  }

  private static func end(of backup: PushBackup) -> ServiceError? {
    guard case .failed(let reason)? = backup.facts.end else { return nil }
    return ServiceError(
      .pushBackupExpired, "the disk could not be held still any longer: \(reason)",
      cause: "what guests overwrite is saved until it is copied, and there was no room for more",
      remedy: "give the backup more room (spill), or take a faster target")
  }

  /// Nothing is read of a suspended disk.
  private func awaitResume(_ device: Device) throws(JobStop) {
    guard device.isSuspended else { return }
    let blocker = JobBlocker(
      kind: .device, id: job.device, detail: "\(job.device) is suspended")
    try control.wait(for: blocker) { !device.isSuspended }
  }

  /// The backup is durable; whatever becomes of its checkpoint, it is.
  private func advance(_ checkpoints: BackupCheckpoints) throws(JobStop) {
    guard checkpoints.kept != nil else { return }
    let (id, controller, service) = (id, controller, service)
    do throws(JobStop) {
      try control.untilThereIsRoom { () throws(ServiceError) in
        try controller.runAndWait { () throws(ServiceError) in
          try service.keepCheckpoint(of: checkpoints, id, controller)
        }
      }
    } catch {
      switch error {
      case .interrupted: throw error
      case .cancelled: control.log("the next backup finds its checkpoint", level: "warning")
      case .failed(let reason):
        control.log("the next backup finds its checkpoint: \(reason.detail)", level: "warning")
      }
    }
  }

  // MARK: A disk that is attached for reading

  private func copyUnwritten(
    _ disk: Device, _ history: BackupHistory?, _ earlier: BackupFacts
  ) throws(JobStop) -> [String: JobValue] {
    let reason = "the disk is attached for reading, and has no checkpoint"
    guard job.mode != .incremental else { throw .failed(BackupChoice.refusal(reason)) }
    let choice = BackupChoice(chain: id, reason: job.mode == .auto ? reason : nil)
    let source = DeviceSource(disk)
    let made = manifest(choice, source, at: nil)
    var facts = earlier
    facts.reason = choice.reason
    let totals = try copyStill(
      source, to: try place(choice, made, source, keepsPoints: history != nil),
      awaiting: { () throws(JobStop) in try awaitResume(disk) })
    return try result(
      of: made, in: history == nil ? nil : choice.chain, source, totals, facts)
  }
}
