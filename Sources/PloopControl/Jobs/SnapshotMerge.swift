internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// A snapshot that is merged with what builds on it: the work of two types of jobs.
///
/// Copying goes on beside guests; the beginning and the end are operations of the device's controller,
/// as a snapshot is.
struct SnapshotMerge {
  /// Clusters of one step: done before somebody is heard. Twice as many may be copied again after a
  /// crash.
  private static let stepClusters = 32

  let device: String
  let guid: GUID
  let direction: MergeDirection
  /// Whether it goes though it is protected, as what a linked clone shares is.
  var isOfClone = false

  /// A merge that has begun.
  private struct Begun: Sendable {
    let chain: ChangeableChain
    let merge: DeltaMerge
    /// A disk that is opened for this alone, where the snapshot is on another branch.
    let branch: Device?
    let sourceBytes: UInt64
  }

  /// Removes a snapshot: merged into its only child, or dropped when nothing builds on it.
  ///
  /// - Parameter direction: nil for the one with less to copy.
  static func remove(
    _ guid: GUID, of device: String, _ direction: MergeDirection?, _ control: JobControl,
    _ service: Service
  ) throws(JobStop) -> [String: JobValue] {
    let controller = try failing { () throws(ServiceError) in try service.controller(device) }
    try control.checkpoint()
    let id = control.id
    let freed = try control.untilThereIsRoom { () throws(ServiceError) in
      try controller.runAndWait { () throws(ServiceError) in
        try service.removeIfLeaf(guid, controller, job: id)
      }
    }
    if let freed = try failing({ () throws(ServiceError) in try freed?.get() }) {
      return ["clusters_copied": .number(0), "bytes_freed": .number(freed)]
    }
    let chosen = try failing { () throws(ServiceError) in
      if let direction { return direction }
      return try service.cheaperDirection(of: guid, controller)
    }
    return try SnapshotMerge(device: device, guid: guid, direction: chosen).run(control, service)
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let controller = try failing { () throws(ServiceError) in try service.controller(device) }
    let id = control.id
    let begun = try control.untilThereIsRoom { () throws(ServiceError) in
      try controller.runAndWait { () throws(ServiceError) in
        try begin(controller, service, job: id)
      }
    }
    guard let begun else {
      control.log("the snapshot is gone: an earlier attempt has merged it")
      return ["completed_earlier": .flag(true)]
    }
    var total = DeltaMerge.Progress()
    let end: Result<UInt64, ServiceError>
    do throws(JobStop) {
      control.enter(phase: "copying")
      // Others may have been merged by the same job before.
      let done = control.now.progress
      control.total(
        clusters: done.doneClusters + begun.merge.totalClusters,
        bytes: done.doneBytes + begun.merge.totalBytes)
      control.log("\(begun.merge.totalClusters) clusters to move, \(direction.rawValue)")
      try copy(begun.merge, &total, control, service)
      try control.commit()
      control.enter(phase: "committing")
      end = try control.untilThereIsRoom { () throws(ServiceError) in
        try controller.runAndWait { () throws(ServiceError) in
          try finish(begun, controller, service)
        }
      }
    } catch {
      control.log("given up after \(total.clusters) clusters")
      try? controller.runAndWait { () throws(ServiceError) in
        try abandon(begun, service)
      }
      throw error
    }
    let pause = try failing { () throws(ServiceError) in try end.get() }
    control.log("requests waited for \(pause / 1_000) us")
    return [
      "clusters_copied": .number(total.copied), "clusters_dropped": .number(total.dropped),
      "clusters_overtaken": .number(total.overtaken), "bytes_read": .number(total.readBytes),
      "bytes_freed": .number(begun.sourceBytes), "pause_ns": .number(pause),
      "direction": .text(direction.rawValue),
    ]
  }

  /// Copies step by step; while one is copied, the one before is made durable. So a crash costs two
  /// steps at most.
  private func copy(
    _ merge: DeltaMerge, _ total: inout DeltaMerge.Progress, _ control: JobControl,
    _ service: Service
  ) throws(JobStop) {
    let clusterBytes = merge.totalClusters == 0 ? 0 : merge.totalBytes / merge.totalClusters
    let flush = StepFlush(merge, service.engine)
    // Nobody else may touch the merge before its last flush has ended.
    defer { _ = try? flush.wait() }
    while true {
      try control.checkpoint()
      do throws(DeviceError) {
        guard let step = try merge.step(limit: SnapshotMerge.stepClusters, on: service.engine)
        else {
          try flush.wait()
          try merge.flush()
          return persist(total.clusters, control)
        }
        total += step
        control.advance(clusters: step.clusters, bytes: step.clusters * clusterBytes)
        if let durable = try flush.wait() { persist(durable, control) }
        flush.begin(through: total.clusters)
      } catch {
        switch error.kind {
        case .outOfSpace: try waitForSpace(merge, control)
        case .detached: throw .interrupted
        default: throw .failed(ServiceError(error))
        }
      }
    }
  }

  private func persist(_ clusters: UInt64, _ control: JobControl) {
    control.persist()
    control.log("\(clusters) clusters are moved, durably", level: "debug")
  }

  /// Guests need space as well: the merge goes on when there is as much as a whole step may take.
  private func waitForSpace(
    _ merge: DeltaMerge, _ control: JobControl
  ) throws(JobStop) {
    // What was freed and not reused yet may be enough.
    do throws(DeviceError) { try merge.flush() } catch {
      guard case .outOfSpace = error.kind else { throw .failed(ServiceError(error)) }
    }
    let wanted = merge.stepBytes(limit: SnapshotMerge.stepClusters)
    let blocker = JobBlocker(
      kind: .space, id: nil,
      detail: "\(merge.receiverPath): its file system is full; \(wanted) free bytes are wanted")
    try control.wait(for: blocker) { merge.space.map { $0.freeBytes >= wanted } ?? true }
  }

  // MARK: Beginning and end

  /// - Returns: nil when the snapshot is gone, which only a job that ran before can meet.
  private func begin(
    _ controller: DeviceController, _ service: Service, job: String
  ) throws(ServiceError) -> Begun? {
    let (device, chain) = try service.changeable(controller, ifRevision: nil, by: job)
    let descriptor = try service.read(chain.location, in: chain.file.folder)
    if descriptor.shot(guid) == nil, try service.existing(job).hasBeenTried { return nil }
    let child = try service.child(of: guid, descriptor)
    try service.requireDisposable(guid, chain, ofClone: isOfClone)
    let goes = direction == .forward ? guid : child.guid
    let removes = !service.keepsFile(goes, chain)
    let bytes = removes ? service.diskBytes(of: goes, descriptor, chain) : 0
    let inChain = controller.now.record?.deltas.contains { $0.guid == guid.description } ?? false
    // What was chosen when the job was made may have changed since; what is not possible is refused.
    if direction == .backward { _ = try service.mergePlan(controller, guid, direction) }
    let branch = inChain ? nil : try service.openBranch(child.guid, descriptor, chain)
    do throws(ServiceError) {
      let merge = try converting { () throws(DeviceError) in
        try service.change(chain, controller.id, nil).beginMerge(
          branch ?? device, of: guid, direction,
          chainTo: inChain ? descriptor.topGUID : child.guid, removingFile: removes,
          until: .after(seconds: service.configuration.quiesceSeconds))
      }
      return Begun(chain: chain, merge: merge, branch: branch, sourceBytes: bytes)
    } catch {
      service.closeBranch(branch, of: chain)
      throw error
    }
  }

  private func abandon(_ begun: Begun, _ service: Service) throws(ServiceError) {
    defer { service.closeBranch(begun.branch, of: begun.chain) }
    let deadline = Deadline.after(seconds: service.configuration.quiesceSeconds)
    try converting { () throws(DeviceError) in
      try service.change(begun.chain, device, nil).abandon(begun.merge, until: deadline)
    }
  }

  /// - Returns: nanoseconds for which requests had to wait, or why what was made could not be written down.
  /// - Throws: when nothing was made.
  private func finish(
    _ begun: Begun, _ controller: DeviceController, _ service: Service
  ) throws(ServiceError) -> Result<UInt64, ServiceError> {
    let deadline = Deadline.after(seconds: service.configuration.quiesceSeconds)
    // Somebody may want to keep it since the merge began.
    try service.requireDisposable(guid, begun.chain, ofClone: isOfClone)
    let made: ChainChange.Made
    do throws(DeviceError) {
      made = try service.change(begun.chain, device, nil).finish(
        begun.merge, of: guid, until: deadline)
    } catch {
      service.writeFailure(of: controller)
      throw ServiceError(error)
    }
    service.closeBranch(begun.branch, of: begun.chain)
    let guid = guid
    do throws(ServiceError) {
      try service.ending(made, begun.chain, controller) {
        (record, transaction) throws(ServiceError) in
        try transaction.note(
          .snapshotDeleted, guid.description, device: record.id,
          at: try transaction.nextRevision())
      }
      return .success(made.pauseNanoseconds)
    } catch { return .failure(error) }
  }
}
