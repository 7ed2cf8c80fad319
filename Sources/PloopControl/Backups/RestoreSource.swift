internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// A point that is read to be restored. Its failures are told from those of the disk that is written.
struct RestoreSource: BackupSource {
  let reader: any BackupSource
  let device: String

  var geometry: Geometry { reader.geometry }
  var wanted: Bitmap? { nil }

  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    try reader.content(from: cluster, limit: limit)
  }

  func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    do throws(BackupError) { try reader.read(into: region, from: cluster) } catch {
      guard case .target = error.kind else { throw error }
      throw BackupError(.source, error.detail)
    }
  }

  /// Clusters that will be read.
  func storedClusters() throws(BackupError) -> UInt64 {
    var count: UInt64 = 0
    var cluster: UInt64 = 0
    while cluster < geometry.clusterCount {
      let run = try content(from: cluster, limit: geometry.clusterCount - cluster)
      if !run.isAbsent { count += run.count }
      cluster += run.count
    }
    return count
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
    let (info, point) = try self.backup(backup, on: target, pointer: "/params/backup")
    guard info.isWhole else {
      throw ServiceError(
        .backupIncomplete, "\(backup) is not restored: \(info.problem ?? info.state.rawValue)",
        pointer: "/params/backup")
    }
    return try backingUp { () throws(BackupError) in
      RestoreSource(reader: try point.reader(backup), device: info.device)
    }
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
