internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// A disk that a job makes of a point of a backup (docs/crash-safety.md, "A restore").
///
/// The image is the job's own as long as its journal lies beside it, and from the job's commit on: that is
/// durable before the journal goes.
struct RestoredDisk {
  private static let wantedBytes: UInt64 = 64 << 20

  private let disk: RestoreJob.NewDisk
  private let job: String
  private let service: Service
  private let location: Roots.Location
  private let folder: ImageFolder

  /// Makes the disk's folder.
  init(
    _ disk: RestoreJob.NewDisk, job: String, _ service: Service
  ) throws(ServiceError) {
    self.disk = disk
    self.job = job
    self.service = service
    location = try service.restoredImage(of: disk)
    folder = try service.roots.makeFolder(of: location, pointer: "")
  }

  private var journal: String { FileTarget.journal(of: location.name) }

  private var isCommitted: Bool { (try? service.existing(job))?.isCommitted == true }

  /// Does all of it, or goes on where an earlier attempt was.
  func make(
    of backup: String, on target: String, _ control: JobControl
  ) throws(JobStop) -> [String: JobValue] {
    if isAttached {
      control.log("the device \(disk.id) is there: an earlier attempt has made it")
      return ["device": .text(disk.id), "completed_earlier": .flag(true)]
    }
    do throws(JobStop) {
      try failing { () throws(ServiceError) in try claim() }
      let source = try failing { () throws(ServiceError) in
        try service.source(backup, on: target)
      }
      let clusters = try copy(source, control)
      control.enter(phase: "committing")
      try control.untilThereIsRoom { () throws(ServiceError) in try finish(source.geometry) }
      try control.untilThereIsRoom { () throws(ServiceError) in try attach() }
      return [
        "device": .text(disk.id), "backup": .text(backup), "target": .text(target),
        "clusters_copied": .number(clusters),
        "bytes_read": .number(clusters * source.geometry.clusterBytes),
      ]
    } catch {
      leave(after: error)
      throw error
    }
  }

  /// An earlier attempt has come to the end, and could not say so.
  private var isAttached: Bool {
    service.record(of: disk.id)?.deltas.last?.path == location.path
  }

  /// The place is the disk's own from now on: nobody else makes or attaches anything there.
  private func claim() throws(ServiceError) {
    try service.state.withLock { state throws(ServiceError) in
      try state.files.claim([(location, nil)], for: .device(disk.id), readonly: false)
    }
    let record = try service.existing(job)
    guard !record.isCommitted, !(record.hasBeenTried && folder.contains(journal)) else { return }
    try service.requireNothing(at: location)
  }

  // MARK: Copying

  /// - Returns: clusters that were read, by all attempts.
  private func copy(
    _ source: RestoreSource, _ control: JobControl
  ) throws(JobStop) -> UInt64 {
    let clusters = try failing { () throws(ServiceError) in
      try backingUp { () throws(BackupError) in try source.storedClusters() }
    }
    control.enter(phase: "copying")
    control.total(clusters: clusters, bytes: clusters * source.geometry.clusterBytes)
    guard !isCommitted else { return clusters }
    var drive = CopyDrive(control, clusterShift: source.geometry.clusterShift)
    while true {
      do throws(CopyDrive.Stop) {
        try copyOnce(source, &drive, control)
        break
      } catch {
        switch error {
        case .job(let stop): throw stop
        case .copy(let error) where error.kind == .outOfSpace: try waitForRoom(error, control)
        case .copy(let error): throw .failed(ServiceError(restoring: error))
        }
      }
    }
    // From here on the image is known for the job's own by this alone.
    try control.commit()
    guard isCommitted else {
      throw .failed(ServiceError(.ioError, "the state cannot be written", errno: "EIO"))
    }
    return clusters
  }

  private func copyOnce(
    _ source: RestoreSource, _ drive: inout CopyDrive, _ control: JobControl
  ) throws(CopyDrive.Stop) {
    let copy: BackupCopy
    do throws(BackupError) {
      let sink = try FileTarget.image(location.name, in: folder, of: source.geometry)
      copy = BackupCopy(from: source, to: sink, on: service.engine)
    } catch { throw .copy(error) }
    control.log("copies from cluster \(copy.cursor) of \(source.geometry.clusterCount)")
    try drive.run(copy)
    copy.abandon()
  }

  private func waitForRoom(_ error: BackupError, _ control: JobControl) throws(JobStop) {
    let blocker = JobBlocker(
      kind: .space, id: nil,
      detail: "\(error.detail); \(RestoredDisk.wantedBytes) free bytes are wanted")
    try control.wait(for: blocker) {
      (try? folder.space().freeBytes).map { $0 >= RestoredDisk.wantedBytes } ?? true
    }
  }

  // MARK: The end

  /// Gives the image its index and its descriptor; may be repeated.
  private func finish(_ geometry: Geometry) throws(ServiceError) {
    if folder.contains(journal) {
      do throws(BackupError) {
        let sink = try FileTarget.image(location.name, in: folder, of: geometry)
        do throws(BackupError) { try sink.finish() } catch {
          sink.letGo()
          throw error
        }
      } catch { throw ServiceError(restoring: error) }
    }
    guard !folder.contains(Descriptor.fileName) else { return }
    try converting { () throws(DeviceError) in
      try DescriptorFile(in: folder).replace(with: Descriptor(new: geometry, file: location.name))
    }
  }

  private func attach() throws(ServiceError) {
    let path = location.sibling(Descriptor.fileName).path
    var request = AttachRequest(
      id: disk.id, source: .descriptor(AttachRequest.DescriptorReference(path: path)))
    request.exportName = disk.export
    request.caller = "job:\(job)"
    let controller = try service.reserve(disk.id, by: job)
    do throws(ServiceError) {
      _ = try controller.runAndWait { [service, request] () throws(ServiceError) in
        try service.open(request, controller, keeping: nil)
      }
    } catch {
      service.forget(disk.id)
      throw error
    }
  }

  // MARK: What is left

  private func leave(after stop: JobStop) {
    let record = try? service.existing(job)
    switch stop {
    case .interrupted: break
    case .failed(let error) where error.isInterruption: break
    case .failed(let error)
    where record?.mayTryAgain(after: error) == true && folder.contains(journal):
      break
    case .cancelled, .failed: remove()
    }
    guard !isAttached else { return }
    service.state.withLock { $0.files.releaseAll(of: disk.id) }
  }

  /// Removes what the job has made, if it is its own and nobody has it open; the journal last of what
  /// tells so.
  func remove() {
    guard folder.contains(journal) || isCommitted, !isAttached else { return }
    if folder.contains(location.name) {
      guard let file = try? folder.open(location.name, writable: true),
        (try? ImageLock.acquire(file, for: .write)) != nil
      else { return }
      ImageLock.release(file)
    }
    for name in [
      Descriptor.fileName, "\(Descriptor.fileName).tmp", "\(Descriptor.fileName).lck",
      location.name,
    ] where folder.contains(name) { try? folder.unlink(name) }
    try? folder.sync()
    for name in ["\(journal).tmp", journal] where folder.contains(name) {
      try? folder.unlink(name)
    }
    try? folder.sync()
  }
}
