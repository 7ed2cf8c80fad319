internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// A point that is read to be restored. Its failures are told from those of the disk that is written, and
/// where its target fails it is opened anew by whoever reads next.
final class RestoreSource: BackupSource {
  let geometry: Geometry
  /// The clusters that it has.
  let stored: Bitmap
  private let digest: String?
  private let reader: Locked<(any BackupSource)?>
  private let open: @Sendable () throws(ServiceError) -> (BackupInfo, any BackupSource)

  /// - Parameter open: the point, each time.
  init(
    _ open: @escaping @Sendable () throws(ServiceError) -> (BackupInfo, any BackupSource)
  ) throws(ServiceError) {
    let (info, reader) = try open()
    let geometry = reader.geometry
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
    digest = info.journalDigest
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

  private func opened() throws(BackupError) -> any BackupSource {
    try reader.withLock { reader throws(BackupError) in
      if let reader { return reader }
      do throws(ServiceError) {
        let (info, new) = try open()
        guard info.journalDigest == digest, new.geometry == geometry else {
          throw ServiceError(.backupMismatch, "\(info.id) is another backup by now")
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
    _ backup: String, on target: String
  ) throws(ServiceError) -> RestoreSource {
    try RestoreSource { () throws(ServiceError) in
      let (info, point) = try self.backup(backup, on: target, pointer: "/params/backup")
      guard info.isWhole else {
        throw ServiceError(
          .backupIncomplete, "\(backup) is not restored: \(info.problem ?? info.state.rawValue)",
          pointer: "/params/backup")
      }
      return (info, try backingUp { () throws(BackupError) in try point.reader(backup) })
    }
  }

  /// The same for a job that has been accepted: a target that cannot be reached now is waited for.
  func source(
    _ backup: String, on target: String, awaiting control: JobControl
  ) throws(JobStop) -> RestoreSource {
    try control.retrying(
      waitingFor: { error in
        error.code == .targetUnreachable
          ? JobBlocker(kind: .target, id: target, detail: error.detail) : nil
      }, { () throws(ServiceError) in try source(backup, on: target) })
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
