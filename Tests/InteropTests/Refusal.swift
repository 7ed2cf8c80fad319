import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// A chain that no attach takes, and what it is refused for.
struct Refusal: Sendable, CustomTestStringConvertible {
  enum Reason: Sendable, Equatable {
    case format(FormatError.Code, level: Int, fault: IndexFault.Kind? = nil)
    case rawNotBase
    case sameFileTwice
  }

  let testDescription: String
  let reason: Reason
  var version = ImageVersion.v2
  var names = ["image"]
  var rawBase = false
  /// Whether `repairSafely` takes it.
  var isMendable = false
  /// Damages the sample image, or makes what the chain needs besides.
  var prepare: @Sendable (Bench) throws -> Void = { _ in }

  /// 640 KiB in clusters of 64 KiB, of which the first, sixth and tenth are mapped.
  static func sample(_ version: ImageVersion = .v2) -> Geometry {
    Geometry(version: version, clusterShift: 16, sizeBytes: 640 << 10)
  }

  func make() throws -> Bench {
    let bench = try Bench()
    try bench.makeImage("image", Refusal.sample(version), entries: [0: 1, 5: 3, 9: 2])
    try prepare(bench)
    return bench
  }

  static let all = headers + entries + marks + chains

  private static func header(
    _ description: String, _ code: FormatError.Code, version: ImageVersion = .v2,
    _ change: @escaping @Sendable (inout Header) -> Void
  ) -> Refusal {
    Refusal(testDescription: description, reason: .format(code, level: 0), version: version) {
      try $0.changeHeader("image", change)
    }
  }

  private static func file(
    _ description: String, _ code: FormatError.Code,
    _ damage: @escaping @Sendable (Bench) throws -> Void
  ) -> Refusal {
    Refusal(testDescription: description, reason: .format(code, level: 0), prepare: damage)
  }

  static let headers = [
    file("another signature", .signatureUnknown) {
      try $0.overwrite("image", at: 15, with: [0x2E])
    },
    header("type 1", .typeUnsupported) { $0.type = 1 },
    header("clusters of 63 sectors", .clusterSizeInvalid) { $0.clusterSectors = 63 },
    header("clusters of 127 sectors", .clusterSizeInvalid) { $0.clusterSectors = 127 },
    header("clusters of 2^32 - 1 sectors", .clusterSizeInvalid) { $0.clusterSectors = .max },
    header("no sectors", .sizeInvalid) { $0.sizeSectors = 0 },
    header("2^64 - 1 sectors", .sizeInvalid) { $0.sizeSectors = .max },
    header("a disk that the entries do not cover", .indexTooShort) { $0.sizeSectors += 1 },
    header("no entries", .indexTooShort) { $0.entryCount = 0 },
    header("2^32 - 1 entries", .indexTooLong) { $0.entryCount = .max },
    header("0x1FFFFFF0 entries", .firstBlockInvalid) { $0.entryCount = 0x1FFF_FFF0 },
    header("a first block at 0", .firstBlockInvalid, version: .v1) { $0.firstBlockSector = 0 },
    header("a first block at sector 8", .firstBlockInvalid) { $0.firstBlockSector = 8 },
    header("a first block one cluster late", .firstBlockInvalid) { $0.firstBlockSector = 256 },
    header("a conversion that did not end", .conversionInterrupted) {
      $0.flags = Header.Flags.converting
      $0.inUse = Header.InUse.open
    },
    file("an empty file", .truncated) { try $0.truncate("image", to: 0) },
    file("a file of 63 bytes", .truncated) { try $0.truncate("image", to: 63) },
    file("a file that ends inside the index", .truncated) {
      try $0.truncate("image", to: 65535)
    },
  ]

  private static func entry(
    _ description: String, _ fault: IndexFault.Kind, version: ImageVersion = .v2, slot: UInt64 = 5,
    _ value: UInt32
  ) -> Refusal {
    Refusal(
      testDescription: description, reason: .format(.corrupt, level: 0, fault: fault),
      version: version
    ) { try $0.setEntry("image", slot: slot, to: value) }
  }

  static let entries = [
    entry("an entry that another cluster has", .duplicate, 1),
    entry("an entry that another cluster has", .duplicate, version: .v1, 256),
    entry("an entry far behind the end of the file", .outsideFile, 0x00FF_FFFF),
    entry("the largest entry that names something", .outsideFile, 0xFFFF_FFFE),
    entry("an entry at the end of the file", .outsideFile, 4),
    entry("an entry at the end of the file", .outsideFile, version: .v1, 4 * 128),
    entry("the reserved entry", .reserved, .max),
    entry("the reserved entry", .reserved, version: .v1, .max),
    entry("an entry inside the header", .unaligned, version: .v1, 1),
    entry("an entry inside a cluster", .unaligned, version: .v1, slot: 9, 3 * 128 + 64),
    Refusal(
      testDescription: "an entry inside a long index",
      reason: .format(.corrupt, level: 0, fault: .insideHeader), names: ["long"]
    ) {
      let long = Geometry(version: .v2, clusterShift: 12, sizeBytes: 3000 << 12)
      try $0.makeImage("long", long, entries: [2999: 4, 7: 3])
      try $0.setEntry("long", slot: 7, to: 2)
    },
    Refusal(
      testDescription: "an entry inside a long index, version 1",
      reason: .format(.corrupt, level: 0, fault: .insideHeader), names: ["long"]
    ) {
      let long = Geometry(version: .v1, clusterShift: 12, sizeBytes: 3000 << 12)
      try $0.makeImage("long", long, entries: [2999: 4, 7: 3])
      try $0.setEntry("long", slot: 2999, to: 8)
    },
    Refusal(
      testDescription: "a last cluster that is only half there",
      reason: .format(.corrupt, level: 0, fault: .outsideFile)
    ) { try $0.truncate("image", to: 3 << 16 + 32768) },
    Refusal(
      testDescription: "a bad entry in the lowest of three deltas",
      reason: .format(.corrupt, level: 0, fault: .duplicate), names: ["image", "middle", "top"]
    ) {
      try $0.makeImage("middle", sample(), entries: [5: 1])
      try $0.makeImage("top", sample())
      // Shadowed by the delta above, and wrong all the same.
      try $0.setEntry("image", slot: 5, to: 1)
    },
  ]

  static let marks = [
    Refusal(
      testDescription: "an image that was not closed", reason: .format(.unclean, level: 0),
      isMendable: true
    ) { try $0.changeHeader("image") { $0.inUse = Header.InUse.open } },
    Refusal(
      testDescription: "a mark that nobody writes", reason: .format(.unclean, level: 0),
      version: .v1, isMendable: true
    ) { try $0.changeHeader("image") { $0.inUse = 0x0BAD_F00D } },
    Refusal(
      testDescription: "a lower delta that was not closed", reason: .format(.unclean, level: 0),
      names: ["image", "top"], isMendable: true
    ) {
      try $0.makeImage("top", sample())
      try $0.changeHeader("image") { $0.inUse = Header.InUse.open }
    },
    Refusal(
      testDescription: "the slot behind the last entry set",
      reason: .format(.indexTailSet, level: 0), isMendable: true
    ) { try $0.setEntry("image", slot: 10, to: 2) },
    Refusal(
      testDescription: "the last slot of the header's cluster set",
      reason: .format(.indexTailSet, level: 0), isMendable: true
    ) { try $0.setEntry("image", slot: 16367, to: .max) },
  ]

  private static func below(
    _ description: String, _ lower: Geometry
  ) -> Refusal {
    Refusal(
      testDescription: description, reason: .format(.geometryMismatch, level: 0),
      names: ["lower", "image"]
    ) { try $0.makeImage("lower", lower) }
  }

  private static func raw(
    _ description: String, _ code: FormatError.Code, sizeBytes: UInt64
  ) -> Refusal {
    Refusal(
      testDescription: description, reason: .format(code, level: 0), names: ["base", "image"],
      rawBase: true
    ) {
      try $0.folder.replace("base", with: [1])
      try $0.truncate("base", to: sizeBytes)
    }
  }

  static let chains = [
    below("a lower delta of version 1", sample(.v1)),
    below(
      "a lower delta with smaller clusters",
      Geometry(version: .v2, clusterShift: 15, sizeBytes: 640 << 10)),
    below(
      "a lower delta of a larger disk",
      Geometry(version: .v2, clusterShift: 16, sizeBytes: 704 << 10)),
    below(
      "a lower delta with more entries",
      Geometry(version: .v2, clusterShift: 16, sizeBytes: 640 << 10, entryCount: 11)),
    Refusal(
      testDescription: "a middle delta smaller than the base",
      reason: .format(.geometryMismatch, level: 0), names: ["base", "middle", "image"]
    ) {
      try $0.makeImage("base", sample())
      try $0.makeImage(
        "middle", Geometry(version: .v2, clusterShift: 16, sizeBytes: 320 << 10))
    },
    raw("a raw base that ends inside a cluster", .rawSizeMisaligned, sizeBytes: 3 << 16 + 512),
    raw("a raw base larger than the disk", .geometryMismatch, sizeBytes: 11 << 16),
    Refusal(
      testDescription: "a raw top", reason: .rawNotBase, names: ["image"], rawBase: true),
    Refusal(
      testDescription: "a file twice in the chain", reason: .sameFileTwice,
      names: ["image", "image"]),
    Refusal(
      testDescription: "a file twice by two names", reason: .sameFileTwice,
      names: ["link", "image"]
    ) { _ = try Tool.shell("ln '\($0.path("image"))' '\($0.path("link"))'") },
  ]
}
