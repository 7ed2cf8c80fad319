internal import PloopFormat
internal import PloopIO

/// Follows the header's pointer to a format extension, and what lies there to its clusters.
struct ExtensionReader {
  let file: ImageFile
  let header: Header
  let geometry: Geometry

  /// - Parameter used: clusters of the file that something else uses; those of a good extension
  ///   are added.
  func read(claiming used: inout Bitmap) throws(DeviceError) -> ImageCheck.ExtensionState {
    guard header.extensionSector != 0 else { return .none }
    guard header.isClean else { return .stale }
    var claimed = used
    let place: UInt64
    let bytes = try converting { () throws(IOError) in try file.size() }
    let clusters = min(bytes >> UInt64(geometry.clusterShift), geometry.physicalLimit + 1)
    do throws(FormatExtension.Fault) {
      place = try claim(header.extensionSector, of: clusters, in: &claimed)
    } catch {
      return .damaged(error)
    }
    let buffer = AlignedBuffer(count: Int(geometry.clusterBytes))
    try converting { () throws(IOError) in
      try file.readOrZero(into: buffer.region, at: place << UInt64(geometry.clusterShift))
    }
    do throws(FormatExtension.Fault) {
      let found = try FormatExtension(parsing: buffer.region.bytes, of: geometry)
      for sector in found.bitmaps.flatMap(\.sectors) {
        _ = try claim(sector, of: clusters, in: &claimed)
      }
      used = claimed
      return .good(found)
    } catch {
      return .damaged(error)
    }
  }

  /// The cluster at a sector of the file, if it is a whole one that nothing else uses.
  private func claim(
    _ sector: UInt64, of clusters: UInt64, in used: inout Bitmap
  ) throws(FormatExtension.Fault) -> UInt64 {
    let cluster = sector / geometry.clusterSectors
    guard sector % geometry.clusterSectors == 0, cluster < clusters else {
      throw FormatExtension.Fault(detail: "sector \(sector) is no cluster of the file")
    }
    guard !used[Int(cluster)] else {
      throw FormatExtension.Fault(detail: "cluster \(cluster) of the file is used twice")
    }
    // It ends near the last cluster that an entry names, and an extension lies behind all of them.
    if cluster >= used.count { used.resize(to: Int(cluster) + 1) }
    used[Int(cluster)] = true
    return cluster
  }
}
