internal import PloopFormat
internal import PloopIO

/// What the index of a larger disk does to an image's file, once nothing that an entry names lies where
/// it will be.
///
/// The order (docs/crash-safety.md, "A larger disk"): zeroes, durably; one sector of header.
struct IndexGrowth: Sendable {
  let file: ImageFile
  let old: Geometry
  let new: Geometry

  /// The clusters of the file that the index takes besides.
  var range: Range<UInt64> {
    old.headerClusters..<max(old.headerClusters, new.headerClusters)
  }

  /// Zeroes all entries behind the last old one. They are really written: a hole could be filled with
  /// something by who copies the file. It is the caller who makes that durable.
  func zero() throws(DeviceError) {
    try converting { () throws(IOError) in
      if try file.size() < new.headerBytes { try file.truncate(to: new.headerBytes) }
      try file.writeZeroes(
        from: (Geometry.headerSlots + old.clusterCount) * 4, to: new.headerBytes)
    }
  }

  /// The moment from which on the disk is larger: size, length of the index and first cluster of data
  /// lie in one sector. It is durable when this returns.
  func commit() throws(DeviceError) {
    var header = try Device.header(of: file)
    header.resize(to: new)
    try Device.write(header, to: file)
  }
}
