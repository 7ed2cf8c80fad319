package import PloopFormat
package import PloopIO

/// Looks at an image without changing a byte of it.
package struct ImageCheck: Sendable {
  package let header: Header
  package let geometry: Geometry
  package let fileBytes: UInt64
  package let diskBytes: UInt64
  /// Entries that must not be followed, in the order of the index.
  package let faults: [IndexFault]
  package let mappedClusters: UInt64
  /// Clusters inside the file that neither header, index nor any entry uses.
  package let unreferencedClusters: UInt64
  /// Bytes behind the last cluster that something uses.
  package let tailBytes: UInt64

  package var isUnclean: Bool { !header.isClean }
  /// Whether anything is wrong that safe repair does not mend.
  package var isCorrupt: Bool { faults.contains { $0.kind != .beyondDisk } }
  package var needsRepair: Bool { isUnclean || !faults.isEmpty || tailBytes > 0 }

  /// - Throws: `.format` when there is no header that describes the file, `.io` when it cannot be
  ///   read.
  package init(_ file: ImageFile) throws(DeviceError) {
    let bytes = try converting { () throws(IOError) in try file.size() }
    let buffer = AlignedBuffer(count: Header.byteCount)
    let count = try converting { () throws(IOError) in try file.read(into: buffer.region, at: 0) }
    do throws(FormatError) {
      header = try Header(parsing: buffer.region.slice(0, count).bytes)
      geometry = try header.geometry(fileBytes: bytes)
    } catch {
      throw DeviceError(error, level: 0, path: file.path)
    }
    var scan = IndexScan(geometry, fileBytes: bytes)
    var found: [IndexFault] = []
    try scan.run(file) { _, _ in
    } fault: {
      found.append($0)
    }
    faults = found
    fileBytes = bytes
    diskBytes = try converting { () throws(IOError) in try file.allocatedBytes() }
    mappedClusters = scan.mapped
    let needed = UInt64((scan.used.lastSet ?? -1) + 1)
    unreferencedClusters = needed - UInt64(scan.used.setCount)
    tailBytes = bytes - min(bytes, needed << UInt64(geometry.clusterShift))
  }
}
