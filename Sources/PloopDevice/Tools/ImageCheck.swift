package import PloopFormat
package import PloopIO

/// Looks at one image, all of it but its data, without changing a byte.
package struct ImageCheck: Sendable {
  package let header: Header
  package let geometry: Geometry
  package let fileBytes: UInt64
  package let diskBytes: UInt64
  /// Entries that must not be followed, in the order of the index; no more than ``faultsKept`` of them.
  package let faults: [IndexFault]
  /// How many there are altogether.
  package let faultCount: UInt64
  /// Whether all of them are slots behind the disk's end, which name nothing and can be zeroed.
  let hasWrongEntries: Bool
  /// Entries of an attached disk's index that the file has otherwise than they were written.
  package let differences: [Difference]
  package let mappedClusters: UInt64
  /// Mapped clusters whose neighbour before them is mapped too, but lies elsewhere in the file
  /// (what `qemu-img check` calls fragmented).
  package let scatteredClusters: UInt64
  /// Clusters inside the file that neither header, index, extension nor any entry uses. They are
  /// no fault: a discarded cluster waits there for its next use.
  package let unreferencedClusters: UInt64
  /// Bytes behind the last cluster that something uses.
  package let tailBytes: UInt64
  package let formatExtension: ExtensionState

  /// Whether a disk that is attached for writing has it as its top: it is marked, and space is reserved
  /// at its end.
  package let isLive: Bool

  /// An entry that the file has, and what it has to be.
  package struct Difference: Equatable, Sendable {
    package let cluster: UInt64
    package let entry: UInt32
    package let expected: UInt32
  }

  static let faultsKept = 10_000

  /// What the header's pointer to a format extension leads to.
  package enum ExtensionState: Sendable {
    case none
    /// The image was not closed, so nobody has kept the extension up to date.
    case stale
    case good(FormatExtension)
    case damaged(FormatExtension.Fault)
  }

  /// How bad it is, the better ones first.
  package enum Verdict: Int, Comparable, Sendable {
    case clean, repairable, corrupt

    package static func < (left: Verdict, right: Verdict) -> Bool {
      left.rawValue < right.rawValue
    }
  }

  /// Whether somebody who had it open has not closed it.
  package var isUnclean: Bool { !isLive && !header.isClean }

  package var verdict: Verdict {
    // Slots behind the disk's end name nothing and can be zeroed; every other entry is a guess.
    if hasWrongEntries || !differences.isEmpty { return .corrupt }
    if case .damaged = formatExtension { return .repairable }
    return isUnclean || faultCount > 0 || tailBytes > 0 ? .repairable : .clean
  }

  /// Mapped clusters of a hundred whose neighbour lies elsewhere, rounded.
  package var fragmentationPercent: UInt64 {
    mappedClusters == 0 ? 0 : (scatteredClusters * 100 + mappedClusters / 2) / mappedClusters
  }

  /// The top of a disk that is attached for writing, as ``LiveIndex`` has found it.
  init(
    live file: ImageFile, _ header: Header, _ geometry: Geometry, _ found: FoundFaults,
    _ order: ClusterOrder, _ differences: [Difference], unreferenced: UInt64
  ) throws(DeviceError) {
    self.header = header
    self.geometry = geometry
    (fileBytes, diskBytes) = try converting { () throws(IOError) in
      (try file.size(), try file.allocatedBytes())
    }
    faults = found.kept
    faultCount = found.count
    hasWrongEntries = found.hasWrongEntries
    self.differences = differences
    isLive = true
    mappedClusters = order.mapped
    scatteredClusters = order.scattered
    unreferencedClusters = unreferenced
    tailBytes = 0
    formatExtension = .none
  }

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
    var found = FoundFaults()
    var order = ClusterOrder()
    try scan.runs(of: file) {
      order.take($0)
    } fault: {
      found.take($0)
    }
    var used = scan.used
    formatExtension = try ExtensionReader(file: file, header: header, geometry: geometry)
      .read(claiming: &used)
    faults = found.kept
    faultCount = found.count
    hasWrongEntries = found.hasWrongEntries
    differences = []
    isLive = false
    fileBytes = bytes
    diskBytes = try converting { () throws(IOError) in try file.allocatedBytes() }
    mappedClusters = scan.mapped
    scatteredClusters = order.scattered
    let needed = UInt64((used.lastSet ?? -1) + 1)
    unreferencedClusters = needed - UInt64(used.setCount)
    tailBytes = bytes - min(bytes, needed << UInt64(geometry.clusterShift))
  }
}

/// Bad entries: all are counted, the first are kept.
struct FoundFaults {
  private(set) var kept: [IndexFault] = []
  private(set) var count: UInt64 = 0
  private(set) var hasWrongEntries = false

  mutating func take(_ fault: IndexFault) {
    count += 1
    if fault.kind != .beyondDisk { hasWrongEntries = true }
    if kept.count < ImageCheck.faultsKept { kept.append(fault) }
  }
}

/// How clusters lie in the file; they come in ascending order.
struct ClusterOrder {
  private var previous: (cluster: UInt64, physical: UInt64)?
  private(set) var mapped: UInt64 = 0
  private(set) var scattered: UInt64 = 0

  mutating func take(_ cluster: UInt64, _ physical: UInt64) {
    take(IndexRun(cluster: cluster, physical: physical, count: 1))
  }

  mutating func take(_ run: IndexRun) {
    mapped += run.count
    if let previous, previous.cluster + 1 == run.cluster, previous.physical + 1 != run.physical {
      scattered += 1
    }
    previous = (run.cluster + run.count - 1, run.physical + run.count - 1)
  }
}

extension IndexFault {
  /// Where in the file the entry lies.
  package var offset: UInt64 { IndexFault.offset(of: cluster) }

  static func offset(of cluster: UInt64) -> UInt64 { (Geometry.headerSlots + cluster) * 4 }
}
