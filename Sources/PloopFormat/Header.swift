/// The first 64 bytes of an image (`struct ploop_pvd_header` of OpenVZ's libploop), little-endian.
///
/// The four rules that the format's authors gave it: numbers are little-endian; data begins at a
/// cluster boundary and is addressed by clusters; a file whose length is not a whole number of
/// clusters was interrupted while it grew, and the rest is garbage; an entry is written only after
/// the data that it names is stable, so that a crash can lose a cluster but never a content.
package struct Header: Equatable, Sendable {
  package static let byteCount = 64
  package static let signatureV1 = Array("WithoutFreeSpace".utf8)
  package static let signatureV2 = Array("WithouFreSpacExt".utf8)

  /// Byte offsets of the fields.
  private enum Field {
    static let signature = 0
    static let type = 16
    static let heads = 20
    static let cylinders = 24
    static let clusterSectors = 28
    static let entryCount = 32
    static let sizeSectors = 36
    static let inUse = 44
    static let firstBlock = 48
    static let flags = 52
    static let extensionSector = 56
  }

  /// Where the in-use mark lies.
  package static let inUseOffset = Field.inUse

  /// The in-use mark.
  package enum InUse {
    package static let closed: UInt32 = 0
    /// Open for writing, or not closed by whoever had it so.
    package static let open: UInt32 = 0x746F_6E59
    /// Closed, and the format extension is valid.
    package static let closedWithExtension: UInt32 = 0x312E_3276
  }

  package enum Flags {
    /// Nothing is allocated (CIF_Empty).
    package static let empty: UInt32 = 1
    /// A conversion between versions is under way (CIF_FmtVersionConvert).
    package static let converting: UInt32 = 2
  }

  package static let typeCompressed: UInt32 = 2

  package var version: ImageVersion
  package var type: UInt32 = Header.typeCompressed
  package var heads: UInt32
  package var cylinders: UInt32
  package var clusterSectors: UInt32
  package var entryCount: UInt32
  package var sizeSectors: UInt64
  package var inUse: UInt32 = InUse.closed
  package var firstBlockSector: UInt32
  package var flags: UInt32 = Flags.empty
  package var extensionSector: UInt64 = 0

  /// The header of a new, empty image.
  package init(new geometry: Geometry) {
    version = geometry.version
    let sectors = geometry.sizeBytes / Geometry.sectorBytes
    // What QEMU writes: 16 heads of 32 sectors. Nobody reads it any more.
    heads = 16
    cylinders = UInt32(clamping: sectors / 16 / 32)
    clusterSectors = UInt32(geometry.clusterSectors)
    entryCount = UInt32(clamping: geometry.entryCount)
    sizeSectors = sectors
    firstBlockSector = UInt32(clamping: geometry.headerBytes / Geometry.sectorBytes)
  }

  /// The image is one of a disk of another size; mark, flags and extension stay.
  package mutating func resize(to geometry: Geometry) {
    let new = Header(new: geometry)
    (cylinders, heads) = (new.cylinders, new.heads)
    (entryCount, sizeSectors) = (new.entryCount, new.sizeSectors)
    firstBlockSector = new.firstBlockSector
  }

  /// Reads the fields; only the signature decides whether these are a header at all.
  ///
  /// - Parameter bytes: the first bytes of the file, at least 64.
  package init(parsing bytes: [UInt8]) throws(FormatError) {
    guard bytes.count >= Header.byteCount else {
      throw FormatError(.truncated, "the file has \(bytes.count) bytes; a header has 64")
    }
    func number<Number: FixedWidthInteger>(_ offset: Int, _: Number.Type) -> Number {
      (0..<MemoryLayout<Number>.size).reduce(0) {
        $0 | Number(bytes[offset + $1]) << Number(8 * $1)
      }
    }
    switch Array(bytes[0..<16]) {
    case Header.signatureV1: version = .v1
    case Header.signatureV2: version = .v2
    default:
      throw FormatError(.signatureUnknown, "the file does not begin with a ploop signature")
    }
    type = number(Field.type, UInt32.self)
    heads = number(Field.heads, UInt32.self)
    cylinders = number(Field.cylinders, UInt32.self)
    clusterSectors = number(Field.clusterSectors, UInt32.self)
    entryCount = number(Field.entryCount, UInt32.self)
    let size = number(Field.sizeSectors, UInt64.self)
    // Version 1 has 32 bits of size; what follows them is unused and may hold anything.
    sizeSectors = version == .v1 ? size & 0xFFFF_FFFF : size
    inUse = number(Field.inUse, UInt32.self)
    firstBlockSector = number(Field.firstBlock, UInt32.self)
    flags = number(Field.flags, UInt32.self)
    extensionSector = number(Field.extensionSector, UInt64.self)
  }

  /// The 64 bytes of the file.
  package var encoded: [UInt8] {
    var bytes = version == .v1 ? Header.signatureV1 : Header.signatureV2
    func append<Number: FixedWidthInteger>(_ number: Number) {
      for index in 0..<MemoryLayout<Number>.size {
        bytes.append(UInt8(truncatingIfNeeded: number >> Number(8 * index)))
      }
    }
    append(type)
    append(heads)
    append(cylinders)
    append(clusterSectors)
    append(entryCount)
    append(sizeSectors)
    append(inUse)
    append(firstBlockSector)
    append(flags)
    append(extensionSector)
    return bytes
  }

  /// Marks the image as open. That a conversion is under way means nothing in a closed image, where it was left
  /// behind; together with the mark it would say that the conversion did not end.
  package mutating func markOpen() {
    inUse = InUse.open
    flags &= ~Flags.converting
  }

  /// Whether the image was closed. A mark that nobody writes counts as open.
  package var isClean: Bool { inUse == InUse.closed || inUse == InUse.closedWithExtension }

  /// Checks every field against the others and against the file, in the order of the file.
  ///
  /// The in-use mark is not looked at: whether an unclean image may be used is for the caller.
  package func geometry(fileBytes: UInt64) throws(FormatError) -> Geometry {
    guard type == Header.typeCompressed else {
      throw FormatError(.typeUnsupported, "type \(type); only type 2 exists")
    }
    let clusterBytes = UInt64(clusterSectors) * Geometry.sectorBytes
    let shift = clusterBytes.trailingZeroBitCount
    guard clusterBytes.nonzeroBitCount == 1, Geometry.clusterShifts.contains(shift) else {
      throw FormatError(
        .clusterSizeInvalid,
        "clusters of \(clusterSectors) sectors; powers of two from 4 KiB to 64 MiB are supported")
    }
    guard sizeSectors > 0, sizeSectors < UInt64(Int64.max) / Geometry.sectorBytes else {
      throw FormatError(.sizeInvalid, "a disk of \(sizeSectors) sectors")
    }
    let sizeBytes = sizeSectors * Geometry.sectorBytes
    guard sizeBytes <= Geometry.sizeLimit(version: version, clusterShift: shift) else {
      throw FormatError(
        .sizeInvalid, "a disk of \(sizeSectors) sectors is too large for its cluster size")
    }
    let clusters = (sizeBytes >> UInt64(shift)) + (sizeBytes & (clusterBytes - 1) == 0 ? 0 : 1)
    guard UInt64(entryCount) >= clusters else {
      throw FormatError(
        .indexTooShort, "\(entryCount) index entries for a disk of \(clusters) clusters")
    }
    guard entryCount <= UInt32.max - 2 else {
      throw FormatError(.indexTooLong, "\(entryCount) index entries")
    }
    let geometry = Geometry(
      version: version, clusterShift: shift, sizeBytes: sizeBytes, entryCount: UInt64(entryCount))
    guard UInt64(firstBlockSector) * Geometry.sectorBytes == geometry.headerBytes else {
      throw FormatError(
        .firstBlockInvalid,
        "data begins at sector \(firstBlockSector), but the index ends at sector \(geometry.headerBytes / Geometry.sectorBytes)"
      )
    }
    guard fileBytes >= geometry.headerBytes else {
      throw FormatError(
        .truncated,
        "the file has \(fileBytes) bytes; header and index take \(geometry.headerBytes)")
    }
    guard flags & Flags.converting == 0 || isClean else {
      throw FormatError(
        .conversionInterrupted, "a conversion between versions 1 and 2 did not end")
    }
    return geometry
  }
}
