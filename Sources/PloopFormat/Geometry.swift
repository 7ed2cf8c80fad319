/// The sizes of a disk and of an image of it, and where the index lies in the file.
///
/// The index is read and written in pages of 4 KiB that follow the file: page 0 holds the header
/// (64 bytes, the room of 16 entries) and 1,008 entries, every other page 1,024.
package struct Geometry: Equatable, Sendable {
  package static let sectorBytes: UInt64 = 512
  package static let pageBytes = 4096
  package static let pageShift = 10
  package static let entriesPerPage = 1 << pageShift
  /// Entries that would fit where the header is.
  package static let headerSlots: UInt64 = 16
  package static let clusterShifts = 12...26

  package let version: ImageVersion
  /// log2 of the cluster size in bytes.
  package let clusterShift: Int
  /// Bytes of the disk; a multiple of 512, not always of the cluster.
  package let sizeBytes: UInt64
  /// Entries that the index has room for (`m_Size`); at least ``clusterCount``.
  package let entryCount: UInt64

  package init(
    version: ImageVersion, clusterShift: Int, sizeBytes: UInt64, entryCount: UInt64? = nil
  ) {
    precondition(Geometry.clusterShifts.contains(clusterShift))
    self.version = version
    self.clusterShift = clusterShift
    self.sizeBytes = sizeBytes
    let clusters = Geometry.clusters(of: sizeBytes, shift: clusterShift)
    self.entryCount = entryCount ?? clusters
    precondition(self.entryCount >= clusters)
  }

  package var clusterBytes: UInt64 { 1 << UInt64(clusterShift) }
  package var clusterSectors: UInt64 { clusterBytes / Geometry.sectorBytes }

  /// Clusters of the disk, the last one perhaps partial.
  package var clusterCount: UInt64 { Geometry.clusters(of: sizeBytes, shift: clusterShift) }

  /// Clusters of the file that header and index take, whole ones.
  package var headerClusters: UInt64 {
    Geometry.clusters(of: (Geometry.headerSlots + entryCount) * 4, shift: clusterShift)
  }

  package var headerBytes: UInt64 { headerClusters << UInt64(clusterShift) }

  /// Pages of 4 KiB in which entries of this disk lie.
  package var pageCount: Int {
    Int(
      (Geometry.headerSlots + clusterCount + UInt64(Geometry.entriesPerPage) - 1)
        >> UInt64(Geometry.pageShift))
  }

  /// The page and the slot in it of a logical cluster's entry.
  package static func position(of cluster: UInt64) -> (page: Int, slot: Int) {
    let slot = cluster + Geometry.headerSlots
    return (Int(slot >> UInt64(pageShift)), Int(slot) & (entriesPerPage - 1))
  }

  /// The logical clusters whose entries lie in a page.
  package func clusters(inPage page: Int) -> Range<UInt64> {
    let first = UInt64(page) << UInt64(Geometry.pageShift)
    let low = first < Geometry.headerSlots ? 0 : first - Geometry.headerSlots
    let high = first + UInt64(Geometry.entriesPerPage) - Geometry.headerSlots
    return min(low, clusterCount)..<min(high, clusterCount)
  }

  /// The last physical cluster that an entry of this version can name.
  package var physicalLimit: UInt64 {
    switch version {
    case .v1: UInt64(UInt32.max - 1) / clusterSectors
    case .v2: UInt64(UInt32.max - 1)
    }
  }

  /// The entry that names a physical cluster.
  package func entry(of physical: UInt64) -> UInt32 {
    precondition(physical <= physicalLimit)
    return version == .v1
      ? UInt32(truncatingIfNeeded: physical * clusterSectors)
      : UInt32(truncatingIfNeeded: physical)
  }

  /// What an entry that is not 0 names, if it may be followed at all.
  ///
  /// - Parameter fileClusters: whole clusters in the file.
  package func physical(
    of entry: UInt32, cluster: UInt64, fileClusters: UInt64
  ) -> Result<UInt64, IndexFault> {
    guard entry != .max else {
      return .failure(IndexFault(.reserved, cluster: cluster, entry: entry))
    }
    var physical = UInt64(entry)
    if version == .v1 {
      guard physical % clusterSectors == 0 else {
        return .failure(IndexFault(.unaligned, cluster: cluster, entry: entry))
      }
      physical /= clusterSectors
    }
    guard physical >= headerClusters else {
      return .failure(IndexFault(.insideHeader, cluster: cluster, entry: entry))
    }
    guard physical < fileClusters else {
      return .failure(IndexFault(.outsideFile, cluster: cluster, entry: entry))
    }
    return .success(physical)
  }

  /// The largest disk that an image of this version and cluster size can describe, in bytes.
  package static func sizeLimit(version: ImageVersion, clusterShift: Int) -> UInt64 {
    switch version {
    case .v1: (UInt64(UInt32.max) * sectorBytes) & ~((1 << UInt64(clusterShift)) - 1)
    // The kernel's limit of 2^32 - 3 entries; offsets in the file must stay below 2^63.
    case .v2: min(UInt64(UInt32.max) - 2, 1 << 36) << UInt64(clusterShift)
    }
  }

  private static func clusters(of bytes: UInt64, shift: Int) -> UInt64 {
    (bytes >> UInt64(shift)) + (bytes & ((1 << UInt64(shift)) - 1) == 0 ? 0 : 1)
  }
}
