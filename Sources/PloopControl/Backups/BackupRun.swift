internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// One attempt at a backup, from what an earlier one has left to the durable point.
struct BackupRun {
  let job: BackupJob
  let control: JobControl
  let controller: DeviceController
  let service: Service

  var id: String { control.id }

  func run() throws(JobStop) -> [String: JobValue] {
    control.enter(phase: BackupJob.phases[0])
    do throws(JobStop) {
      try control.checkpoint()
      if let place = job.destination.place {
        try failing { () throws(ServiceError) in try service.requireUnused(place, but: id) }
      }
      let target = try waiting { () throws(ServiceError) in try service.open(job.destination) }
      switch target {
      case .directory: return try copyToChain()
      case .single(let single): return try copyWhole(to: single)
      }
    } catch {
      // What fails since the device, or the service, goes away goes on later.
      if case .failed = error, control.now.isInterrupted { throw .interrupted }
      throw error
    }
  }

  func waiting<Result>(
    _ body: () throws(ServiceError) -> Result
  ) throws(JobStop) -> Result {
    let target = job.destination.name
    return try control.retrying(
      waitingFor: { error in
        error.code == .targetUnreachable || error.code == .imageInUse
          ? JobBlocker(kind: .target, id: target, detail: error.detail) : nil
      }, body)
  }

  // MARK: A point of a chain

  /// The point that an earlier attempt at this job has begun.
  struct Earlier {
    let folder: BackupChain
    let chain: String
    let manifest: PointManifest
    let isWhole: Bool
  }

  private func copyToChain() throws(JobStop) -> [String: JobValue] {
    let history = try waiting { () throws(ServiceError) in try self.history() }
    let earlier = try waiting { () throws(ServiceError) in try point(in: history) }
    var facts = BackupFacts()
    if let earlier, earlier.isWhole {
      control.log("an earlier attempt has made the backup whole")
      if job.snapshot == nil {
        try tolerating { () throws(JobStop) in try settle(history) }
      }
      (facts.mode, facts.chain) = (earlier.manifest.mode, earlier.chain)
      facts.isCompletedEarlier = true
      return result(of: earlier.manifest, facts)
    }
    guard let snapshot = job.snapshot else {
      facts.isRestarted = earlier != nil || control.hasProgressedBefore
      if let earlier {
        tellOfNewInstant()
        try remove(earlier)
      }
      try settle(history)
      return try copyLive(history, facts)
    }
    return try service.withSnapshot(
      snapshot, for: id, of: controller, failing: { .failed($0) }
    ) { (snapshot) throws(JobStop) in try copy(snapshot, history, earlier, facts) }
  }

  private func history() throws(ServiceError) -> BackupHistory {
    let directory = try service.openDirectory(job.destination)
    return try backingUp { () throws(BackupError) in
      try BackupHistory(of: job.device, on: directory)
    }
  }

  private func point(in history: BackupHistory) throws(ServiceError) -> Earlier? {
    try backingUp { () throws(BackupError) in
      for name in try history.target.chains(of: job.device).reversed() {
        let folder = try history.target.chain(name, of: job.device)
        guard folder.has(id) else { continue }
        return Earlier(
          folder: folder, chain: name, manifest: try folder.manifest(id),
          isWhole: try folder.isWhole(id))
      }
      return nil
    }
  }

  func tellOfNewInstant() {
    control.log(
      "the backup is begun anew, at a new instant: what guests have overwritten since is lost",
      level: "warning")
  }

  func remove(_ earlier: Earlier) throws(JobStop) {
    try waiting { () throws(ServiceError) in
      try backingUp { () throws(BackupError) in try earlier.folder.remove(id) }
    }
  }

  /// The backup is durable; whatever becomes of its checkpoint, it is.
  func tolerating(_ body: () throws(JobStop) -> Void) throws(JobStop) {
    do throws(JobStop) { try body() } catch {
      switch error {
      case .interrupted: throw error
      case .cancelled: control.log("the next backup finds its checkpoint", level: "warning")
      case .failed(let reason):
        guard !reason.isInterruption else { throw error }
        control.log("the next backup finds its checkpoint: \(reason.detail)", level: "warning")
      }
    }
  }

  private func settle(_ history: BackupHistory) throws(JobStop) {
    let (service, controller, checkpoints, id) = (service, controller, job.checkpoints, id)
    try control.untilThereIsRoom { () throws(ServiceError) in
      try controller.runAndWait { () throws(ServiceError) in
        try service.settleCheckpoints(
          checkpoints, history, controller, for: id)
      }
    }
  }

  func choose(
    _ history: BackupHistory?, _ subject: BackupSubject
  ) throws(JobStop) -> BackupChoice {
    try failing { () throws(ServiceError) in try job.choose(history, subject, named: id) }
  }

  private static let basisFaults: Set<ServiceError.Code> = [
    .backupCorrupt, .backupMismatch, .backupNotFound, .incrementNotPossible, .tooManyDeltas,
  ]

  /// What is done where what it was to build on has turned out to be of no use.
  ///
  /// - Throws: the error, where it has another reason, or an increment was asked for.
  func allInstead(
    of choice: BackupChoice, after error: JobStop
  ) throws(JobStop) -> BackupChoice {
    guard case .failed(let refusal) = error, choice.parent != nil, job.mode == .auto,
      BackupRun.basisFaults.contains(refusal.code)
    else { throw error }
    control.log("all is copied: \(refusal.detail)", level: "warning")
    return BackupChoice(chain: id, reason: refusal.detail)
  }

  /// - Parameter frozen: nil for a snapshot.
  func manifest(
    _ choice: BackupChoice, _ source: any BackupSource, at frozen: FrozenDisk?
  ) -> PointManifest {
    var manifest = PointManifest(
      id, device: job.device, mode: choice.mode, parent: choice.parent, geometry: source.geometry,
      wanted: source.wanted, pointInTime: frozen?.pointInTime ?? wallClockSeconds())
    manifest.snapshot = job.snapshot?.description
    manifest.checkpoint = choice.checkpoint.map { _ in job.checkpoints.base ?? "" }
    manifest.nextCheckpoint = frozen?.checkpoints.kept
    manifest.below = frozen?.newestSnapshot?.description
    if manifest.wantsEverMore { manifest.wantedDigest = nil }
    return manifest
  }

  // MARK: What comes of it

  /// Copies a disk that nobody writes; who is cancelled leaves nothing.
  func copyStill(
    _ source: any BackupSource, to place: any BackupPlace,
    awaiting disk: () throws(JobStop) -> Void = {}
  ) throws(JobStop) -> PointManifest.Result? {
    let copying = BackupCopying(source, to: place, control, on: service.engine)
    do throws(JobStop) {
      return try copying.run(awaiting: disk)
    } catch {
      if isForgotten(after: error) {
        service.removeBegunBackup(id, of: job.device, on: job.destination)
      }
      throw error
    }
  }

  /// Whether nobody could go on with what was begun, or find it: in a place that the job alone names a failed one
  /// is no target's, of which somebody could remove it.
  private func isForgotten(after stop: JobStop) -> Bool {
    switch stop {
    case .cancelled: true
    case .interrupted: false
    case .failed(let error):
      job.destination.place != nil && !error.isInterruption && !control.now.isInterrupted
        && (try? service.existing(id))?.mayTryAgain(after: error) != true
    }
  }

  /// The backup is durable: what its target does now is no matter of the job.
  ///
  /// - Parameters:
  ///   - found: what its manifest says, where that is known.
  ///   - place: where it lies.
  func result(
    of manifest: PointManifest, _ found: PointManifest.Result?, at place: any PointKeeper,
    _ facts: BackupFacts
  ) -> [String: JobValue] {
    var whole = manifest
    whole.result = found
    do throws(ServiceError) {
      if found == nil { whole.result = try place.manifest().result }
    } catch {
      control.log(
        "the backup is whole, and its numbers cannot be read: \(error.detail)", level: "warning")
    }
    return result(of: whole, facts)
  }

  /// - Parameter whole: its manifest.
  func result(of whole: PointManifest, _ facts: BackupFacts) -> [String: JobValue] {
    tell(whole.result?.bytesRead ?? 0, whole.result?.bytesWritten ?? 0)
    var result = facts.values
    result["backup"] = .text(whole.id)
    result["to"] = written(facts).map(JobValue.text)
    result["bytes_read"] = (whole.result?.bytesRead).map(JobValue.number)
    result["bytes_written"] = (whole.result?.bytesWritten).map(JobValue.number)
    result["zero_bytes"] = (whole.result?.zeroBytes).map(JobValue.number)
    return result
  }

  /// Where it lies, if the job alone knows it: a file, an address, or the descriptor of a chain.
  private func written(_ facts: BackupFacts) -> String? {
    guard let place = job.destination.place else { return nil }
    guard let chain = facts.chain else { return place.name }
    return "\(place.name)/\(job.device)/\(chain)/\(Descriptor.fileName)"
  }

  private func tell(_ read: UInt64, _ written: UInt64) {
    do throws(ServiceError) {
      try service.tellBackup(
        id, of: job.device, on: job.destination, read: read, written: written)
    } catch {
      control.log("nobody could be told of the backup: \(error.detail)", level: "warning")
    }
  }
}

/// What is told of a backup beside its numbers.
struct BackupFacts {
  var mode = PointManifest.Mode.full
  /// Nil where there are none.
  var chain: String?
  /// Why all was copied, where less was asked for.
  var reason: String?
  var guestWaitNanoseconds: UInt64 = 0
  var spilledBytes: UInt64 = 0
  /// At a new instant, after an interruption.
  var isRestarted = false
  var isCompletedEarlier = false

  var values: [String: JobValue] {
    var values: [String: JobValue] = [
      "mode_used": .text(mode.rawValue),
      "guest_wait_ms_max": .number(guestWaitNanoseconds / 1_000_000),
      "spilled_bytes": .number(spilledBytes), "restarted": .flag(isRestarted),
    ]
    values["degraded_reason"] = reason.map(JobValue.text)
    if isCompletedEarlier { values["completed_earlier"] = .flag(true) }
    return values
  }
}
