internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// The image that a job makes of a point of a backup: begun, gone on with, and removed where it came to
/// nothing (docs/crash-safety.md, "A copy is written").
///
/// As long as its journal lies beside it, it is half an image, and the job's own.
struct RestoredImage {
  let name: String
  let folder: ImageFolder
  let job: String
  let service: Service

  var journal: String { FileTarget.journal(of: name) }
  var isBegun: Bool { folder.contains(journal) }

  /// Makes it whole, or goes on where an earlier attempt was.
  ///
  /// - Parameters:
  ///   - source: what is copied.
  ///   - target: where it lies, and may not be reached for a while; nil for what is here.
  ///   - below: clusters of the deltas over which the image is to lie.
  ///   - isWhole: whether an earlier attempt has made it so.
  ///   - commit: called when everything is copied, while the journal is still there.
  func make(
    of source: any BackupSource, on target: String?, over below: Bitmap? = nil, isWhole: Bool,
    _ control: JobControl, obstacle: @escaping () -> ServiceError? = { nil },
    committing commit: () throws(JobStop) -> Void
  ) throws(JobStop) {
    guard !isWhole else {
      let all = source.extent(of: 0..<source.geometry.clusterCount)
      control.total(clusters: all.clusters, bytes: all.bytes)
      control.advance(clusters: all.clusters, bytes: all.bytes, charging: (0, 0))
      try commit()
      return control.enter(phase: RestoreJob.phases[1])
    }
    let place = RestorePlace(
      service: service, origin: target, image: self, geometry: source.geometry, below: below)
    let copying = BackupCopying(
      source, to: place, control, on: service.engine,
      phases: (RestoreJob.phases[0], RestoreJob.phases[1]), obstacle: obstacle)
    try copying.copy()
    _ = try copying.end(committing: commit)
  }

  /// What an image that is closed, or was begun, is an image of.
  func geometry() throws(ServiceError) -> Geometry {
    try converting { () throws(DeviceError) in try ImageHeader.geometry(of: name, in: folder) }
  }

  // MARK: What is left

  /// Whether what was copied is of use to a later attempt.
  ///
  /// - Parameter isOwn: whether it is known for the job's own without its journal, too.
  func isKept(after stop: JobStop, isOwn: Bool = false) -> Bool {
    switch stop {
    case .interrupted: true
    case .cancelled: false
    case .failed(let error):
      error.isInterruption
        || (isBegun || isOwn) && (try? service.existing(job))?.mayTryAgain(after: error) == true
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

/// The image of a disk that is restored, as a place to copy to. Whatever fails there is no matter of the
/// target.
private struct RestorePlace: BackupPlace {
  let service: Service
  /// A target by name, or an address; nil for what does not lie elsewhere.
  let origin: String?
  let image: RestoredImage
  let geometry: Geometry
  let below: Bitmap?

  var target: String { origin ?? "" }

  func open() throws(ServiceError) -> any BackupSink {
    do throws(BackupError) {
      return try FileTarget.image(
        image.name, in: image.folder, of: geometry, version: geometry.version, over: below)
    } catch { throw failure(error) }
  }

  /// The name was ours from the beginning, and the journal that said so goes last.
  func isWhole() -> Bool { true }

  func requireRoom(_ bytes: UInt64) throws(ServiceError) {
    try Service.requireSpace(
      bytes, of: try? image.folder.space().freeBytes, for: "\(image.folder.path)/\(image.name)")
  }

  func failure(_ error: BackupError) -> ServiceError {
    // Nobody waits for a disk of this service.
    origin == nil && error.kind == .source ? ServiceError(error) : ServiceError(restoring: error)
  }
}
