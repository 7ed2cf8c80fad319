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
    let disk = try failing { () throws(ServiceError) in try LiveDisk(controller) }
    guard !disk.device.isReadOnly else { return try copyUnwritten(disk.device, history, facts) }
    let choice = try choose(history, .live(disk))
    do throws(JobStop) { return try copy(choice, history, facts) } catch {
      return try copy(try allInstead(of: choice, after: error), history, facts)
    }
  }

  private func copy(
    _ choice: BackupChoice, _ history: BackupHistory?, _ earlier: BackupFacts
  ) throws(JobStop) -> [String: JobValue] {
    let frozen = try freeze(choice, history)
    let source = FrozenSource(frozen.backup)
    var choice = choice
    let made: PointManifest
    let place: any PointKeeper
    let found: PointManifest.Result?
    do throws(JobStop) {
      if choice.parent != nil, let reason = frozen.backup.fullReason {
        guard job.mode == .auto else { throw .failed(BackupChoice.refusal(reason)) }
        choice = BackupChoice(chain: id, reason: reason)
      }
      made = manifest(choice, source, at: frozen)
      place = self.place(choice, made, source, keepsPoints: history != nil)
      control.log(choice.words)
      let copying = BackupCopying(source, to: place, control, on: service.engine) {
        BackupRun.end(of: frozen.backup)
      }
      found = try copying.run { () throws(JobStop) in
        try control.awaitResume(of: frozen.device, named: job.device)
      }
    } catch {
      service.thaw(frozen, controller, isKept: false)
      if case .interrupted = error { throw error }
      service.removeBegunBackup(id, of: job.device, on: job.destination)
      throw error
    }
    service.thaw(frozen, controller, isKept: true)
    let seen = frozen.backup.facts
    var facts = earlier
    (facts.mode, facts.reason) = (choice.mode, choice.reason)
    facts.chain = history.map { _ in choice.chain }
    (facts.guestWaitNanoseconds, facts.spilledBytes) = (
      seen.longestWaitNanoseconds, seen.spilledBytes
    )
    try advance(frozen.checkpoints)
    return result(of: made, found, at: place, facts)
  }

  func place(
    _ choice: BackupChoice, _ manifest: PointManifest, _ source: any BackupSource,
    keepsPoints: Bool
  ) -> any PointKeeper {
    guard !keepsPoints else {
      return PointPlace(
        service, job.destination, choice.chain, manifest, wanted: source.wanted)
    }
    return SinglePlace(service, job.destination, manifest)
  }

  // MARK: The instant

  private func freeze(
    _ choice: BackupChoice, _ history: BackupHistory?
  ) throws(JobStop) -> FrozenDisk {
    var checkpoints = job.checkpoints
    // One that nobody has named is for increments.
    if history == nil, checkpoints == BackupCheckpoints(keptFor: job.destination) {
      checkpoints = BackupCheckpoints(base: nil, kept: nil)
    }
    do throws(JobStop) {
      return try freeze(choice, checkpoints)
    } catch {
      guard case .failed(let refusal) = error, refusal.code == .checkpointUnsupported,
        checkpoints == BackupCheckpoints(keptFor: job.destination)
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
        try service.freeze(
          controller, for: id, saving: job.spill, since: choice.checkpoint, checkpoints)
      }
    }
  }

  static func end(of backup: PushBackup) -> ServiceError? {
    guard case .failed(let reason)? = backup.facts.end else { return nil }
    return ServiceError(
      .pushBackupExpired, "the disk could not be held still any longer: \(reason)",
      cause: "what guests overwrite is saved until it is copied, and there was no room for more",
      remedy: "give the backup more room (spill), or take a faster target")
  }

  private func advance(_ checkpoints: BackupCheckpoints) throws(JobStop) {
    guard checkpoints.kept != nil else { return }
    let (id, controller, service) = (id, controller, service)
    try tolerating { () throws(JobStop) in
      try control.untilThereIsRoom { () throws(ServiceError) in
        try controller.runAndWait { () throws(ServiceError) in
          try service.keepCheckpoint(of: checkpoints, id, controller)
        }
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
    facts.chain = history.map { _ in choice.chain }
    let place = place(choice, made, source, keepsPoints: history != nil)
    let found = try copyStill(
      source, to: place,
      awaiting: { () throws(JobStop) in try control.awaitResume(of: disk, named: job.device) })
    return result(of: made, found, at: place, facts)
  }
}
