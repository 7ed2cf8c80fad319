/// Logical clusters that lie behind each other in the file as well: one step of an index.
package struct IndexRun: Equatable, Sendable {
  package var cluster: UInt64
  package var physical: UInt64
  package var count: UInt64

  package init(cluster: UInt64, physical: UInt64, count: UInt64) {
    self.cluster = cluster
    self.physical = physical
    self.count = count
  }
}

/// Takes a piece of an index apart, without a call for each entry: large disks have millions of them, and most
/// lie in order.
package struct IndexRuns {
  package enum Element: Equatable, Sendable {
    case run(IndexRun)
    /// An entry that must not be followed.
    case fault(IndexFault)
  }

  private let entries: UnsafeRawBufferPointer
  private let first: UInt64
  private let geometry: Geometry
  private let fileClusters: UInt64
  /// What an entry is larger than the one before it within a run.
  private let step: UInt32
  private var index = 0

  /// - Parameters:
  ///   - entries: little-endian numbers of 32 bits; they stay in memory as long as this is used.
  ///   - first: the logical cluster of the first of them. All are clusters of the disk.
  ///   - fileClusters: whole clusters in the file, at most one more than ``Geometry/physicalLimit``.
  package init(
    _ entries: UnsafeMutableRawBufferPointer, from first: UInt64, _ geometry: Geometry,
    fileClusters: UInt64
  ) {
    self.entries = UnsafeRawBufferPointer(entries)
    self.first = first
    self.geometry = geometry
    self.fileClusters = min(fileClusters, geometry.physicalLimit + 1)
    step = geometry.version == .v1 ? UInt32(truncatingIfNeeded: geometry.clusterSectors) : 1
  }

  private func entry(_ index: Int) -> UInt32 {
    UInt32(littleEndian: entries.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
  }

  /// The next run or bad entry, in ascending order of clusters; nil behind the last.
  package mutating func next() -> Element? {
    let count = entries.count / 4
    var value: UInt32 = 0
    while index < count {
      value = entry(index)
      if value != 0 { break }
      index += 1
    }
    guard index < count else { return nil }
    let cluster = first + UInt64(index)
    switch geometry.physical(of: value, cluster: cluster, fileClusters: fileClusters) {
    case .failure(let fault):
      index += 1
      return .fault(fault)
    case .success(let physical):
      // Within the file, so no entry of the run is one that the format reserves, or overflows.
      let end = index + Int(min(UInt64(count - index), fileClusters - physical))
      let start = index
      repeat {
        index += 1
        value &+= step
      } while index < end && entry(index) == value
      return .run(IndexRun(cluster: cluster, physical: physical, count: UInt64(index - start)))
    }
  }
}
