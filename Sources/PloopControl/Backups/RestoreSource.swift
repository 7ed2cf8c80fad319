internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// A point, or another disk that does not change, which is read to make a disk of it. Its failures are told
/// from those of the disk that is written, and where its target fails it is opened anew by whoever reads next.
final class RestoreSource: BackupSource {
  /// Of the disk that is made.
  let geometry: Geometry
  /// The clusters that it has.
  let stored: Bitmap
  private let digest: String?
  private let reader: Locked<(any BackupSource)?>
  private let own: Geometry
  private let open: @Sendable () throws(ServiceError) -> (digest: String?, any BackupSource)

  /// - Parameters:
  ///   - version: of the image that is made; nil for the source's own.
  ///   - isRounded: whether the disk has whole clusters, as new ones have, with zeroes behind the source's end.
  ///   - open: the source, each time, and what tells it from another one that is opened the same way.
  init(
    as version: ImageVersion? = nil, isRounded: Bool = false,
    _ open: @escaping @Sendable () throws(ServiceError) -> (digest: String?, any BackupSource)
  ) throws(ServiceError) {
    let (digest, reader) = try open()
    own = reader.geometry
    let geometry = Geometry(
      version: version ?? own.version, clusterShift: own.clusterShift,
      sizeBytes: isRounded ? own.clusterCount << UInt64(own.clusterShift) : own.sizeBytes)
    stored = try backingUp { () throws(BackupError) in
      var stored = Bitmap(count: Int(geometry.clusterCount))
      var cluster: UInt64 = 0
      while cluster < geometry.clusterCount {
        let run = try reader.content(from: cluster, limit: geometry.clusterCount - cluster)
        if !run.isAbsent {
          for place in cluster..<cluster + run.count { stored[Int(place)] = true }
        }
        cluster += run.count
      }
      return stored
    }
    self.geometry = geometry
    self.open = open
    self.digest = digest
    self.reader = Locked(reader)
  }

  var wanted: Bitmap? { stored }

  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    let place = Int(cluster)
    let isAbsent = !stored[place]
    let end = isAbsent ? stored.firstSet(from: place) : stored.firstClear(from: place)
    return (min(limit, UInt64((end ?? stored.count) - place)), isAbsent)
  }

  func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    do throws(BackupError) { try opened().read(into: region, from: cluster) } catch {
      guard case .target = error.kind else { throw error }
      reader.withLock { $0 = nil }
      throw BackupError(.source, error.detail)
    }
  }

  func release(_ clusters: Range<UInt64>) { reader.withLock { $0 }?.release(clusters) }

  private func opened() throws(BackupError) -> any BackupSource {
    try reader.withLock { reader throws(BackupError) in
      if let reader { return reader }
      do throws(ServiceError) {
        let (found, new) = try open()
        guard found == digest, new.geometry == own else {
          throw ServiceError(.backupMismatch, "it is another one by now")
        }
        reader = new
        return new
      } catch {
        // It was there: perhaps nothing is mounted now, or something else.
        throw BackupError(.source, error.detail)
      }
    }
  }
}

/// A point that is to lie over deltas: what they have is wanted as well, if only as zeroes.
struct CoveringSource: BackupSource {
  let point: RestoreSource
  let wanted: Bitmap?

  init(_ point: RestoreSource, over below: Bitmap) {
    self.point = point
    var wanted = point.stored
    for run in below.runs { for cluster in run { wanted[cluster] = true } }
    self.wanted = wanted
  }

  var geometry: Geometry { point.geometry }

  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    try point.content(from: cluster, limit: limit)
  }

  func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    try point.read(into: region, from: cluster)
  }
}

extension Service {
  /// Opens a point to be restored.
  ///
  /// - Throws: `backup-not-found`, `backup-incomplete`, `backup-corrupt` where it is damaged as a whole;
  ///   as ``open(target:pointer:)``.
  func source(
    _ backup: String, on target: String, as version: ImageVersion? = nil,
    pointer: String = "/params/backup"
  ) throws(ServiceError) -> RestoreSource {
    try RestoreSource(as: version) { () throws(ServiceError) in
      let (info, point) = try self.backup(backup, on: target, pointer: pointer)
      guard info.isWhole else {
        throw ServiceError(
          .backupIncomplete, "\(backup) is not restored: \(info.problem ?? info.state.rawValue)",
          pointer: pointer)
      }
      return (
        info.journalDigest, try backingUp { () throws(BackupError) in try point.reader(backup) }
      )
    }
  }

  /// The same for a job that has been accepted: a target that cannot be reached now is waited for.
  func source(
    _ backup: String, on target: String, as version: ImageVersion? = nil,
    awaiting control: JobControl
  ) throws(JobStop) -> RestoreSource {
    try control.retrying(
      waitingFor: { error in
        error.code == .targetUnreachable
          ? JobBlocker(kind: .target, id: target, detail: error.detail) : nil
      }, { () throws(ServiceError) in try source(backup, on: target, as: version) })
  }
}

extension ServiceError {
  /// What went wrong while a point was restored: reading it, or writing the disk.
  init(restoring error: BackupError) {
    switch error.kind {
    case .source: self.init(.targetUnreachable, error.detail)
    case .target: self.init(.ioError, error.detail, errno: "EIO")
    default: self.init(error)
    }
  }
}
