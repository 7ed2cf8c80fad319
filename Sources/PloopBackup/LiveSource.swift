internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// A live disk, of which each block is read as it is at that moment: what is written meanwhile is copied again in
/// the next round (``LiveCopy``).
///
/// Its clusters are the blocks by which changes are tracked, whatever clusters the disk has.
struct LiveSource: BackupSource {
  private let device: Device
  let geometry: Geometry
  let wanted: Bitmap?

  init(_ device: Device, blocks geometry: Geometry, wanted: Bitmap?) {
    self.device = device
    self.geometry = geometry
    self.wanted = wanted
  }

  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    let shift = UInt64(geometry.clusterShift)
    let start = cluster << shift
    let runs: [Device.Run]
    do throws(DeviceError) {
      runs = try device.runs(offset: start, length: limit << shift, limit: 1)
    } catch { throw BackupError(source: error) }
    guard let run = runs.first else { return (limit, true) }
    let isLast = start + run.length >= geometry.sizeBytes
    let whole = isLast ? geometry.clusterCount - cluster : run.length >> shift
    if run.level == nil, whole > 0 { return (min(limit, whole), true) }
    // A block of which a part is data is data.
    return (min(limit, (run.length - 1) >> shift + 1), false)
  }

  func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    try read(device, into: region, at: cluster << UInt64(geometry.clusterShift))
  }
}
