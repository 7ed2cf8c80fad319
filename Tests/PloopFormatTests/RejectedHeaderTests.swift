import PloopFormat
import TestSupport
import Testing

/// A header that is refused: the bytes of a good one, changed.
struct RejectedHeader: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let code: FormatError.Code
  var version = ImageVersion.v2
  /// Of the file that begins with the header; the header and index of the good one by default.
  var fileBytes: UInt64 = 1 << 16
  let change: @Sendable (inout Header) -> Void

  init(
    _ description: String, _ code: FormatError.Code, version: ImageVersion = .v2,
    fileBytes: UInt64 = 1 << 16, change: @escaping @Sendable (inout Header) -> Void = { _ in }
  ) {
    testDescription = description
    self.code = code
    self.version = version
    self.fileBytes = fileBytes
    self.change = change
  }

  static let all = [
    RejectedHeader("type 1", .typeUnsupported) { $0.type = 1 },
    RejectedHeader("type 3", .typeUnsupported, version: .v1) { $0.type = 3 },
    RejectedHeader("clusters of no sectors", .clusterSizeInvalid) { $0.clusterSectors = 0 },
    RejectedHeader("clusters of 63 sectors", .clusterSizeInvalid) { $0.clusterSectors = 63 },
    RejectedHeader("clusters of 127 sectors", .clusterSizeInvalid) { $0.clusterSectors = 127 },
    RejectedHeader("clusters of 2 KiB", .clusterSizeInvalid) { $0.clusterSectors = 4 },
    RejectedHeader("clusters of 128 MiB", .clusterSizeInvalid) { $0.clusterSectors = 1 << 18 },
    RejectedHeader("clusters of 2^32 - 1 sectors", .clusterSizeInvalid) {
      $0.clusterSectors = .max
    },
    RejectedHeader("a disk of no sectors", .sizeInvalid) { $0.sizeSectors = 0 },
    RejectedHeader("a size whose bytes exceed 64 bits", .sizeInvalid) { $0.sizeSectors = .max },
    RejectedHeader("a size whose bytes exceed 63 bits", .sizeInvalid) { $0.sizeSectors = 1 << 54 },
    RejectedHeader("more clusters than an index can have", .sizeInvalid) {
      $0.sizeSectors = (1 << 32) * 128
      $0.entryCount = .max
    },
    RejectedHeader("a version 1 disk beyond the last whole cluster", .sizeInvalid, version: .v1) {
      $0.sizeSectors = 0xFFFF_FFFF
    },
    RejectedHeader("an index of no entries", .indexTooShort) { $0.entryCount = 0 },
    RejectedHeader("one entry too few", .indexTooShort) { $0.entryCount = 9 },
    RejectedHeader("one sector more than the entries cover", .indexTooShort) {
      $0.sizeSectors = 1281
    },
    RejectedHeader("2^32 - 1 entries", .indexTooLong) { $0.entryCount = .max },
    RejectedHeader("2^32 - 2 entries", .indexTooLong) { $0.entryCount = .max - 1 },
    RejectedHeader("a first block at 0", .firstBlockInvalid) { $0.firstBlockSector = 0 },
    RejectedHeader("a first block of 8 sectors", .firstBlockInvalid) { $0.firstBlockSector = 8 },
    RejectedHeader("a first block one sector late", .firstBlockInvalid) {
      $0.firstBlockSector += 1
    },
    RejectedHeader("a first block one cluster late", .firstBlockInvalid, fileBytes: 1 << 20) {
      $0.firstBlockSector += 128
    },
    RejectedHeader("a first block at 2^32 - 1", .firstBlockInvalid) { $0.firstBlockSector = .max },
    RejectedHeader("entries for another header cluster", .firstBlockInvalid, version: .v1) {
      $0.entryCount = 16369
    },
    RejectedHeader("a file that ends inside the index", .truncated, fileBytes: (1 << 16) - 1),
    RejectedHeader("a file of 64 bytes", .truncated, fileBytes: 64),
    RejectedHeader("2^32 - 3 entries in a small file", .truncated) {
      $0.entryCount = .max - 2
      $0.firstBlockSector = 0x0200_0080
    },
    RejectedHeader("a conversion that did not end", .conversionInterrupted) {
      $0.flags = Header.Flags.converting
      $0.inUse = Header.InUse.open
    },
  ]
}

@Suite("A header that is not what the format says")
struct RejectedHeaderTests {
  @Test("is refused by its code", arguments: RejectedHeader.all)
  func refused(rejected: RejectedHeader) throws {
    var header = Header(
      new: Geometry(version: rejected.version, clusterShift: 16, sizeBytes: 640 << 10))
    #expect(throws: Never.self) { try header.geometry(fileBytes: 1 << 16) }
    rejected.change(&header)
    let error = #expect(throws: FormatError.self) {
      try Header(parsing: header.encoded).geometry(fileBytes: rejected.fileBytes)
    }
    #expect(error?.code == rejected.code)
    #expect(error?.detail.isEmpty == false)
  }

  @Test("is no header without one of the two signatures, to the last byte")
  func signatures() throws {
    let good = Header(new: Geometry(version: .v2, clusterShift: 16, sizeBytes: 640 << 10)).encoded
    for position in 0..<16 {
      var bytes = good
      bytes[position] ^= 0x20
      let error = #expect(throws: FormatError.self) { try Header(parsing: bytes) }
      #expect(error?.code == .signatureUnknown)
    }
  }

  @Test("is truncated below 64 bytes, whatever they are", arguments: [0, 1, 16, 63])
  func tooShort(count: Int) throws {
    let good = Header(new: Geometry(version: .v2, clusterShift: 16, sizeBytes: 640 << 10)).encoded
    let error = #expect(throws: FormatError.self) { try Header(parsing: Array(good[..<count])) }
    #expect(error?.code == .truncated)
  }

  @Test("has its own code for every fault that a header alone can show")
  func everyCode() {
    // These need an index, a second image or the caller's wish: InteropTests produces them.
    let beyondHeader: Set<FormatError.Code> = [
      .unclean, .corrupt, .indexTailSet, .rawSizeMisaligned, .geometryMismatch,
    ]
    let produced = Set(RejectedHeader.all.map(\.code)).union([.signatureUnknown])
    #expect(produced == Set(FormatError.Code.allCases).subtracting(beyondHeader))
  }

  @Test("of random fields never traps, and is described only if it is whole", arguments: 1...4)
  func randomFields(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    var described = 0
    for _ in 0..<2000 {
      var bytes = seed % 2 == 0 ? Header.signatureV1 : Header.signatureV2
      // Numbers of every magnitude: a field is a random word with random leading zero bits.
      func append(_ bits: UInt64) {
        let word = random.next() >> UInt64.random(in: 64 - bits...63, using: &random)
        for index in 0..<(bits / 8) { bytes.append(UInt8(truncatingIfNeeded: word >> (8 * index))) }
      }
      for bits: UInt64 in [32, 32, 32, 32, 32, 64, 32, 32, 32, 64] { append(bits) }
      bytes.replaceSubrange(16..<20, with: [2, 0, 0, 0])
      bytes.replaceSubrange(28..<32, with: [0, 1, 0, 0])
      var header = try Header(parsing: bytes)
      #expect(header.encoded.count == Header.byteCount)
      header.firstBlockSector = UInt32(
        truncatingIfNeeded: (UInt64(header.entryCount) * 4 + 64 + 131_071) / 131_072 * 256)
      guard let geometry = try? header.geometry(fileBytes: .max) else { continue }
      #expect(geometry.entryCount >= geometry.clusterCount, "seed \(seed)")
      described += 1
    }
    #expect(described > 20 && described < 1980, "seed \(seed): \(described)")
  }
}
