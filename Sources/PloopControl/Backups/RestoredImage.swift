internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// The image that a job makes of a point of a backup: begun, gone on with, and removed where it came to
/// nothing (docs/crash-safety.md, "A copy is written").
///
/// As long as its journal lies beside it, it is half an image, and the job's own.
struct RestoredImage {
  private static let wantedBytes: UInt64 = 64 << 20

  let name: String
  let folder: ImageFolder
  let job: String
  let service: Service

  var journal: String { FileTarget.journal(of: name) }
  var isBegun: Bool { folder.contains(journal) }

  // MARK: Copying

  /// Copies all that is left of a point, and commits it.
  ///
  /// - Parameters:
  ///   - below: clusters of the deltas over which the image is to lie.
  ///   - isDone: whether an earlier attempt has copied everything.
  /// - Returns: clusters that were read, by all attempts.
  func copy(
    _ source: RestoreSource, over below: Bitmap? = nil, isDone: Bool, _ control: JobControl
  ) throws(JobStop) -> UInt64 {
    let clusters = try failing { () throws(ServiceError) in
      try backingUp { () throws(BackupError) in try source.storedClusters() }
    }
    control.enter(phase: RestoreJob.phases[0])
    control.total(clusters: clusters, bytes: clusters * source.geometry.clusterBytes)
    guard !isDone else { return clusters }
    var drive = CopyDrive(control, clusterShift: source.geometry.clusterShift)
    while true {
      do throws(CopyDrive.Stop) {
        try copyOnce(source, over: below, &drive, control)
        return clusters
      } catch {
        switch error {
        case .job(let stop): throw stop
        case .copy(let error) where error.kind == .outOfSpace: try waitForRoom(error, control)
        case .copy(let error): throw .failed(ServiceError(restoring: error))
        }
      }
    }
  }

  private func copyOnce(
    _ source: RestoreSource, over below: Bitmap?, _ drive: inout CopyDrive, _ control: JobControl
  ) throws(CopyDrive.Stop) {
    let copy: BackupCopy
    do throws(BackupError) {
      copy = BackupCopy(
        from: source, to: try sink(of: source.geometry, over: below), on: service.engine)
    } catch { throw .copy(error) }
    control.log("copies from cluster \(copy.cursor) of \(source.geometry.clusterCount)")
    try drive.run(copy)
    copy.abandon()
  }

  private func sink(
    of geometry: Geometry, over below: Bitmap?
  ) throws(BackupError) -> any BackupSink {
    try FileTarget.image(name, in: folder, of: geometry, over: below)
  }

  private func waitForRoom(_ error: BackupError, _ control: JobControl) throws(JobStop) {
    let blocker = JobBlocker(
      kind: .space, id: nil,
      detail: "\(error.detail); \(RestoredImage.wantedBytes) free bytes are wanted")
    try control.wait(for: blocker) {
      (try? folder.space().freeBytes).map { $0 >= RestoredImage.wantedBytes } ?? true
    }
  }

  /// Gives the image its index, and removes the journal; may be repeated.
  func close(_ geometry: Geometry) throws(ServiceError) {
    guard isBegun else { return }
    do throws(BackupError) {
      let sink = try sink(of: geometry, over: nil)
      do throws(BackupError) { try sink.finish() } catch {
        sink.letGo()
        throw error
      }
    } catch { throw ServiceError(restoring: error) }
  }

  // MARK: What is left

  /// Whether what was copied is of use to a later attempt.
  func isKept(after stop: JobStop) -> Bool {
    switch stop {
    case .interrupted: true
    case .cancelled: false
    case .failed(let error):
      error.isInterruption
        || isBegun && (try? service.existing(job))?.mayTryAgain(after: error) == true
    }
  }

  /// Removes it, unless somebody has it open; the journal last of what tells whose it is.
  ///
  /// - Parameter others: files that go before it.
  func remove(with others: [String] = []) {
    if folder.contains(name) {
      guard let file = try? folder.open(name, writable: true),
        (try? ImageLock.acquire(file, for: .write)) != nil
      else { return }
      ImageLock.release(file)
    }
    for file in others + [name] where folder.contains(file) { try? folder.unlink(file) }
    try? folder.sync()
    for file in ["\(journal).tmp", journal] where folder.contains(file) {
      try? folder.unlink(file)
    }
    try? folder.sync()
  }
}
