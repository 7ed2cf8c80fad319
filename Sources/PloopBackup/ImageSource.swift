internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// The file of a live disk's top as it is, header and index included, in its own clusters: what is written meanwhile is
/// copied again in the next round (``LiveCopy``).
struct ImageSource: BackupSource {
  private let tracker: Tracker
  let geometry: Geometry
  let wanted: Bitmap?
  /// Whether the copy is an image that nobody has open.
  private let isClosed: Bool

  /// - Parameter geometry: of the file, taken for a disk.
  init(_ tracker: Tracker, file geometry: Geometry, wanted: Bitmap, isClosed: Bool) {
    self.tracker = tracker
    self.geometry = geometry
    self.wanted = wanted
    self.isClosed = isClosed
  }

  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) { (limit, false) }

  func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    do throws(DeviceError) {
      try tracker.readImage(into: region, at: cluster << UInt64(geometry.clusterShift))
    } catch { throw BackupError(source: error) }
    guard cluster == 0, isClosed else { return }
    region.setLittleEndian(Header.InUse.closed, at: Header.inUseOffset)
  }
}
