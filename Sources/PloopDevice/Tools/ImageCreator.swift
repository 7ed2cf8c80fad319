package import PloopFormat
package import PloopIO

/// Makes a new, empty image that OpenVZ's and QEMU's tools accept as it is.
package enum ImageCreator {
  /// Writes header and index into a file that must not exist, durably.
  ///
  /// Only the first cluster is really written; further clusters of a long index are reserved, which
  /// reads as zero and is aligned as `ploop check` wants it. If anything fails the file is removed.
  ///
  /// - Parameters:
  ///   - name: a file of `folder`.
  ///   - geometry: of a new disk, its size is a whole number of clusters.
  ///   - inUse: whether it is marked as open from the beginning.
  package static func create(
    in folder: ImageFolder, name: String, geometry: Geometry, inUse: Bool = false
  ) throws(DeviceError) {
    var header = Header(new: geometry)
    if inUse { header.inUse = Header.InUse.open }
    try write(in: folder, name: name, header: header, geometry)
    do throws(IOError) { try folder.sync() } catch {
      try? folder.unlink(name)
      throw DeviceError(error)
    }
  }

  /// The same under a name that is not durable yet, for a file that is to be named later.
  static func write(
    in folder: ImageFolder, name: String, header: Header, _ geometry: Geometry
  ) throws(DeviceError) {
    let file = try converting { () throws(IOError) in try folder.create(name) }
    do throws(IOError) {
      if geometry.headerClusters > 1 { try reserve(file, geometry) }
      try writeFirstCluster(file, header, geometry)
      try file.sync()
    } catch {
      try? folder.unlink(name)
      throw DeviceError(error)
    }
  }

  private static func reserve(_ file: ImageFile, _ geometry: Geometry) throws(IOError) {
    do {
      try file.allocate(offset: 0, length: geometry.headerBytes)
    } catch  where error.isUnsupported {
      try file.truncate(to: geometry.headerBytes)
    }
  }

  private static func writeFirstCluster(
    _ file: ImageFile, _ header: Header, _ geometry: Geometry
  ) throws(IOError) {
    let buffer = AlignedBuffer(count: Int(min(geometry.clusterBytes, 1 << 20)))
    buffer.region.copy(from: AlignedBuffer(header.encoded).region)
    var done: UInt64 = 0
    while done < geometry.clusterBytes {
      try file.write(buffer.region, at: done)
      buffer.region.slice(0, Header.byteCount).zero()
      done += UInt64(buffer.count)
    }
  }
}
