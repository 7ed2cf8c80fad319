package import PloopFormat
package import PloopIO

/// Looks at one image, all of it but its data, without changing a byte.
package struct ImageCheck: Sendable {
  package let header: Header
  package let geometry: Geometry
  package let fileBytes: UInt64
  package let diskBytes: UInt64
  /// Entries that must not be followed, in the order of the index.
  package let faults: [IndexFault]
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

  package var isUnclean: Bool { !header.isClean }

  package var verdict: Verdict {
    // Slots behind the disk's end name nothing and can be zeroed; every other entry is a guess.
    if faults.contains(where: { $0.kind != .beyondDisk }) { return .corrupt }
    if case .damaged = formatExtension { return .repairable }
    return isUnclean || !faults.isEmpty || tailBytes > 0 ? .repairable : .clean
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
    var found: [IndexFault] = []
    var previous: (cluster: UInt64, physical: UInt64)?
    var scattered: UInt64 = 0
    try scan.run(file) { cluster, physical in
      if let previous, previous.cluster + 1 == cluster, previous.physical + 1 != physical {
        scattered += 1
      }
      previous = (cluster, physical)
    } fault: {
      found.append($0)
    }
    var used = scan.used
    formatExtension = try ExtensionReader(file: file, header: header, geometry: geometry)
      .read(claiming: &used)
    faults = found
    fileBytes = bytes
    diskBytes = try converting { () throws(IOError) in try file.allocatedBytes() }
    mappedClusters = scan.mapped
    scatteredClusters = scattered
    let needed = UInt64((used.lastSet ?? -1) + 1)
    unreferencedClusters = needed - UInt64(used.setCount)
    tailBytes = bytes - min(bytes, needed << UInt64(geometry.clusterShift))
  }
}

extension IndexFault {
  /// Where in the file the entry lies.
  package var offset: UInt64 { (Geometry.headerSlots + cluster) * 4 }
}
