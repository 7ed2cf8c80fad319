internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// A disk with nothing in it: what a disk begins with that lies over another.
struct NothingSource: BackupSource {
  let geometry: Geometry
  var wanted: Bitmap? { Bitmap(count: Int(geometry.clusterCount)) }

  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) { (limit, true) }

  func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) { region.zero() }
}
