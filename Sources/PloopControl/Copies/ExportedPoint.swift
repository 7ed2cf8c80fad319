internal import Logging
internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// A copy of a disk's bytes in a raw file or an export, made as a backup there is, and forgotten as one when it is
/// whole.
struct ExportedPoint {
  private let target: any SinglePointTarget
  private let job: String
  private let destination: String
  /// Of a file, whose folder has to have room.
  private let path: String?
  private let service: Service

  init(
    _ target: any SinglePointTarget, job: String, destination: String, at path: String?,
    _ service: Service
  ) {
    self.target = target
    self.job = job
    self.destination = destination
    self.path = path
    self.service = service
  }

  private var isOwn: Bool { (try? service.existing(job))?.ownsWhatItMakes == true }

  /// Does all of it, or goes on where an earlier attempt was.
  func make(
    of origin: CopyOrigin, _ control: JobControl
  ) throws(JobStop) -> (clusters: UInt64, geometry: Geometry) {
    do throws(JobStop) {
      let begun = try failing { () throws(ServiceError) in try earlier() }
      if let whole = begun, let result = whole.result, let geometry = whole.geometry {
        control.log("an earlier attempt has made the copy whole")
        try end(control)
        return (result.storedClusters, geometry)
      }
      var manifest = begun
      if origin.isInstant, begun != nil {
        control.log(CopyOrigin.newInstant, level: "warning")
        remove()
        manifest = nil
      }
      let made = try service.copying(origin, as: .v2, control) {
        (source, obstacle) throws(JobStop) in
        let place = ExportPlace(
          target,
          manifest
            ?? PointManifest(
              job, device: "export", mode: .full, geometry: source.geometry,
              pointInTime: wallClockSeconds()), destination, path, isOurs: origin.elsewhere == nil,
          service)
        let copying = BackupCopying(
          WholeSource(source: source), to: place, control, on: service.engine,
          phases: (RestoreJob.phases[0], RestoreJob.phases[1]), obstacle: obstacle)
        try copying.copy()
        _ = try copying.end { () throws(JobStop) in try control.commit() }
        return (clusters: UInt64(source.stored.setCount), geometry: source.geometry)
      }
      try end(control)
      return made
    } catch {
      if !isKept(after: error) { remove() }
      throw error
    }
  }

  /// What an earlier attempt has left.
  private func earlier() throws(ServiceError) -> PointManifest? {
    guard try service.existing(job).hasBeenTried else { return nil }
    return try backingUp { () throws(BackupError) in
      try target.points().first { $0.id == job }?.manifest
    }
  }

  /// It is whole, which the job's record says from now on; a backup it is no more.
  private func end(_ control: JobControl) throws(JobStop) {
    control.own(true)
  }

  private func isKept(after stop: JobStop) -> Bool {
    switch stop {
    case .interrupted: true
    case .cancelled: false
    case .failed(let error):
      error.isInterruption || (try? service.existing(job))?.mayTryAgain(after: error) == true
    }
  }

  /// Removes what was begun.
  func remove() {
    guard !isOwn else { return }
    do throws(BackupError) {
      guard try target.points().contains(where: { $0.id == job }) else { return }
      try target.remove(job)
    } catch {
      service.log.warning(
        "what an export has begun is left",
        metadata: ["job": "\(job)", "to": "\(destination)", "reason": "\(error.detail)"])
    }
  }
}

/// Everything of a disk, what it does not have as zeroes: where it is copied to anything may be.
private struct WholeSource: BackupSource {
  let source: RestoreSource
  var geometry: Geometry { source.geometry }
  var wanted: Bitmap? { nil }

  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    try source.content(from: cluster, limit: limit)
  }

  func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    try source.read(into: region, from: cluster)
  }

  func release(_ clusters: Range<UInt64>) { source.release(clusters) }
}

/// Where it is copied to.
private final class ExportPlace: BackupPlace {
  let service: Service
  let target: String
  private let single: any SinglePointTarget
  private let manifest: PointManifest
  private let path: String?
  /// Whether what is read is this service's own, so that nobody waits for it.
  private let isOurs: Bool
  private var hasBegun = false

  init(
    _ single: any SinglePointTarget, _ manifest: PointManifest, _ destination: String,
    _ path: String?, isOurs: Bool, _ service: Service
  ) {
    self.single = single
    self.manifest = manifest
    target = destination
    self.path = path
    self.isOurs = isOurs
    self.service = service
  }

  func open() throws(ServiceError) -> any BackupSink {
    let sink = try backingUp { () throws(BackupError) in
      try single.write(manifest, isContinued: hasBegun)
    }
    hasBegun = true
    return sink
  }

  func isWhole() throws(ServiceError) -> Bool {
    try backingUp { () throws(BackupError) in try single.manifest(manifest.id).result != nil }
  }

  func requireRoom(_ bytes: UInt64) throws(ServiceError) {
    guard let path else { return }
    let location = try service.roots.locate(path, pointer: ExportDestination.pointer)
    try Service.requireSpace(bytes, of: service.roots.space(around: location)?.freeBytes, for: path)
  }

  func failure(_ error: BackupError) -> ServiceError {
    switch error.kind {
    case .source where !isOurs: ServiceError(.targetUnreachable, error.detail)
    // A file that cannot be written is waited for by nobody.
    case .target where path != nil: ServiceError(.ioError, error.detail, errno: "EIO")
    default: ServiceError(error)
    }
  }
}
