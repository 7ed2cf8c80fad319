package import PloopFormat
package import PloopIO

/// One streaming pass over a delta's own index: every entry that is set, checked.
///
/// Nothing in a file is trusted. An entry is followed only if it names a whole cluster inside the
/// file, behind the header, that no other entry of the delta names.
package struct IndexScan {
  private static let chunkBytes = 1 << 20

  package let geometry: Geometry
  /// Whole clusters in the file that an entry can name. A sparse file may be longer, at no cost to
  /// who made it, and must not cost the memory to count its clusters.
  package let fileClusters: UInt64
  /// Clusters of the file that header, index and entries use. It ends near the last of them, not at
  /// the end of the file: a file may be sparse and of any length.
  package private(set) var used: Bitmap
  /// Entries that are set and good.
  package private(set) var mapped: UInt64 = 0
  /// Index pages in which slots behind the disk's last cluster are set.
  package private(set) var tailPages: [Int] = []

  package init(_ geometry: Geometry, fileBytes: UInt64) {
    self.geometry = geometry
    fileClusters = min(
      fileBytes >> UInt64(geometry.clusterShift), geometry.physicalLimit + 1)
    used = Bitmap(count: Int(geometry.headerClusters))
    for cluster in 0..<geometry.headerClusters { used[Int(cluster)] = true }
  }

  /// Reads the index and hands out what it holds, in ascending order of clusters.
  ///
  /// - Parameters:
  ///   - entry: called with each good entry: logical cluster and physical cluster.
  ///   - fault: called with each bad one; throwing ends the scan.
  package mutating func run(
    _ file: ImageFile,
    entry: (_ cluster: UInt64, _ physical: UInt64) throws(DeviceError) -> Void,
    fault: (IndexFault) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    let slots = geometry.headerBytes / 4
    let buffer = AlignedBuffer(count: Int(min(UInt64(IndexScan.chunkBytes), geometry.headerBytes)))
    var start: UInt64 = 0
    while start < geometry.headerBytes {
      let count = Int(min(UInt64(buffer.count), geometry.headerBytes - start))
      let chunk = buffer.region.slice(0, count)
      let read = try converting { () throws(IOError) in try file.read(into: chunk, at: start) }
      guard read == count else {
        throw DeviceError(
          .format(FormatError(.truncated, "the index ends early"), level: 0),
          "\(file.path): the index ends at byte \(start + UInt64(read))")
      }
      if !chunk.isZero {
        let first = start / 4
        for index in 0..<(count / 4) {
          let value = chunk.littleEndian(at: index * 4, as: UInt32.self)
          let slot = first + UInt64(index)
          guard value != 0, slot >= Geometry.headerSlots, slot < slots else { continue }
          try take(value, cluster: slot - Geometry.headerSlots, entry: entry, fault: fault)
        }
      }
      start += UInt64(count)
    }
  }

  private mutating func take(
    _ value: UInt32, cluster: UInt64,
    entry: (UInt64, UInt64) throws(DeviceError) -> Void,
    fault: (IndexFault) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    guard cluster < geometry.clusterCount else {
      let page = Geometry.position(of: cluster).page
      if tailPages.last != page { tailPages.append(page) }
      return try fault(IndexFault(.beyondDisk, cluster: cluster, entry: value))
    }
    switch geometry.physical(of: value, cluster: cluster, fileClusters: fileClusters) {
    case .failure(let found): try fault(found)
    case .success(let physical):
      guard !used[Int(physical)] else {
        return try fault(IndexFault(.duplicate, cluster: cluster, entry: value))
      }
      if physical >= used.count {
        used.resize(to: Int(min(fileClusters, max(physical + 1, UInt64(used.count) * 2))))
      }
      used[Int(physical)] = true
      mapped += 1
      try entry(cluster, physical)
    }
  }
}
