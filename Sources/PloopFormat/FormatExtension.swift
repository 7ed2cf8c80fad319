/// The format extension: one cluster that the header points to, with dirty bitmaps in it.
///
/// Behind a magic and a checksum lie features: a head of 24 bytes each, then its data, filled up to
/// 8 bytes; a feature with magic 0 ends them. The only feature that anybody writes is a dirty
/// bitmap, whose bits lie in further clusters of the file that no index entry names.
package struct FormatExtension: Equatable, Sendable {
  package static let magic: UInt64 = 0xAB23_4CEF_23DC_EA87
  package static let dirtyBitmapMagic: UInt64 = 0x2038_5FAE_252C_B34A

  /// Which parts of the disk were written since a checkpoint.
  package struct DirtyBitmap: Equatable, Sendable {
    /// The checkpoint's name, as a UUID.
    package let id: String
    package let granularityBytes: UInt64
    /// What each cluster's worth of bits is.
    package let parts: [Part]

    package init(id: String, granularityBytes: UInt64, parts: [Part]) {
      self.id = id
      self.granularityBytes = granularityBytes
      self.parts = parts
    }

    /// Where in the file its bits lie, in sectors; parts that are all clean or all dirty have none.
    package var sectors: [UInt64] {
      parts.compactMap { if case .stored(let sector) = $0 { sector } else { nil } }
    }
  }

  /// As many bits of a bitmap as a cluster holds.
  package enum Part: Equatable, Sendable {
    case clean, dirty
    /// The bits lie in the cluster at this sector of the file; bit i is bit i % 8 of byte i / 8.
    case stored(sector: UInt64)

    fileprivate init(entry: UInt64) {
      switch entry {
      case 0: self = .clean
      case 1: self = .dirty
      default: self = .stored(sector: entry)
      }
    }

    var entry: UInt64 {
      switch self {
      case .clean: 0
      case .dirty: 1
      case .stored(let sector): sector
      }
    }
  }

  /// Why the extension cannot be used, in words.
  package struct Fault: Error, Equatable, Sendable {
    package let detail: String

    package init(detail: String) { self.detail = detail }
  }

  package let bitmaps: [DirtyBitmap]

  package init(_ bitmaps: [DirtyBitmap]) { self.bitmaps = bitmaps }

  static let headBytes = 24
  static let checkedFrom = 24

  /// - Parameters:
  ///   - cluster: the whole cluster that the header points to.
  ///   - geometry: of the image that it lies in.
  package init(parsing cluster: [UInt8], of geometry: Geometry) throws(Fault) {
    precondition(UInt64(cluster.count) == geometry.clusterBytes)
    let bytes = Bytes(cluster[...])
    guard try bytes.number(at: 0, UInt64.self) == FormatExtension.magic else {
      throw Fault(detail: "its magic is wrong")
    }
    let sum = try bytes.part(8, MD5.byteCount)
    guard Array(sum.slice) == MD5.digest(cluster[FormatExtension.checkedFrom...]) else {
      throw Fault(detail: "its checksum is wrong")
    }
    var bitmaps: [DirtyBitmap] = []
    var offset = FormatExtension.checkedFrom
    while true {
      let magic = try bytes.number(at: offset, UInt64.self)
      if magic == 0 { break }
      let flags = try bytes.number(at: offset + 8, UInt64.self)
      guard magic == FormatExtension.dirtyBitmapMagic, flags == 0 else {
        throw Fault(detail: "it has a feature that nobody knows")
      }
      let size = Int(try bytes.number(at: offset + 16, UInt32.self))
      let data = try bytes.part(offset + FormatExtension.headBytes, size)
      bitmaps.append(try FormatExtension.bitmap(data, of: geometry))
      offset += FormatExtension.headBytes + (size + 7) / 8 * 8
    }
    self.bitmaps = bitmaps
  }

  private static func bitmap(
    _ data: Bytes, of geometry: Geometry
  ) throws(Fault) -> DirtyBitmap {
    let diskSectors = geometry.sizeBytes / Geometry.sectorBytes
    guard try data.number(at: 0, UInt64.self) == diskSectors else {
      throw Fault(detail: "a dirty bitmap is for a disk of another size")
    }
    let id = uuid(Array(try data.part(8, 16).slice))
    let granularity = UInt64(try data.number(at: 24, UInt32.self))
    guard granularity.nonzeroBitCount == 1 else {
      throw Fault(detail: "dirty bitmap \(id) has a granularity of \(granularity) sectors")
    }
    let count = UInt64(try data.number(at: 28, UInt32.self))
    let bits = (diskSectors - 1) / granularity + 1
    guard count == (bits - 1) / (geometry.clusterBytes * 8) + 1 else {
      throw Fault(detail: "dirty bitmap \(id) has \(count) parts, which do not cover the disk")
    }
    var parts: [Part] = []
    for part in 0..<Int(count) {
      parts.append(Part(entry: try data.number(at: 32 + part * 8, UInt64.self)))
    }
    return DirtyBitmap(
      id: id, granularityBytes: granularity * Geometry.sectorBytes, parts: parts)
  }

  private static func uuid(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef")
    var text = ""
    for (index, byte) in bytes.enumerated() {
      if [4, 6, 8, 10].contains(index) { text.append("-") }
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    return text
  }

  /// Bytes of the extension, every access checked against their end.
  private struct Bytes {
    let slice: ArraySlice<UInt8>

    init(_ slice: ArraySlice<UInt8>) { self.slice = slice }

    func part(_ offset: Int, _ count: Int) throws(Fault) -> Bytes {
      guard count <= slice.count, offset <= slice.count - count else {
        throw Fault(detail: "a feature ends beyond the cluster")
      }
      return Bytes(slice[(slice.startIndex + offset)..<(slice.startIndex + offset + count)])
    }

    func number<Number: FixedWidthInteger>(
      at offset: Int, _: Number.Type
    ) throws(Fault) -> Number {
      let size = MemoryLayout<Number>.size
      let bytes = try part(offset, size).slice
      return (0..<size).reduce(0) {
        $0 | Number(bytes[bytes.startIndex + $1]) << Number(8 * $1)
      }
    }
  }
}
