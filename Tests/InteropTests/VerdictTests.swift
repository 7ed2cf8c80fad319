import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// What our check, QEMU's and OpenVZ's say of an image: the table of docs/image-command.md.
struct Verdict: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let ours: ImageCheck.Verdict
  /// Codes of our faults.
  var codes: [String] = []
  /// Statuses of `qemu-img check` and of `ploop check -f -c -r`.
  let qemu: Int32
  let openVZ: Int32
  var version = ImageVersion.v2
  let prepare: @Sendable (Bench) throws -> Void

  init(
    _ description: String, _ ours: ImageCheck.Verdict, _ codes: [String] = [], qemu: Int32,
    openVZ: Int32, version: ImageVersion = .v2,
    _ prepare: @escaping @Sendable (Bench) throws -> Void = { _ in }
  ) {
    testDescription = description
    self.ours = ours
    self.codes = codes
    self.qemu = qemu
    self.openVZ = openVZ
    self.version = version
    self.prepare = prepare
  }

  static func header(
    _ description: String, _ ours: ImageCheck.Verdict, _ codes: [String] = [], qemu: Int32,
    openVZ: Int32, version: ImageVersion = .v2, _ change: @escaping @Sendable (inout Header) -> Void
  ) -> Verdict {
    Verdict(description, ours, codes, qemu: qemu, openVZ: openVZ, version: version) {
      try $0.changeHeader("image", change)
    }
  }

  static func entry(
    _ description: String, _ code: String, qemu: Int32, version: ImageVersion = .v2,
    slot: UInt64 = 9, _ value: UInt32
  ) -> Verdict {
    Verdict(description, .corrupt, [code], qemu: qemu, openVZ: 11, version: version) {
      try $0.setEntry("image", slot: slot, to: value)
    }
  }

  static let all = sound + mendable + corrupt

  static let sound = [
    Verdict("an image of version 2", .clean, qemu: 0, openVZ: 0),
    Verdict("an image of version 1", .clean, qemu: 0, openVZ: 0, version: .v1),
    header("a flag that says the image is empty", .clean, qemu: 0, openVZ: 7) {
      $0.flags = Header.Flags.empty
    },
    header("flags without a meaning", .clean, qemu: 0, openVZ: 0) { $0.flags = 0xFFFF_FFF0 },
    header("a close mark of newer programs", .clean, qemu: 0, openVZ: 37) {
      $0.inUse = Header.InUse.closedWithExtension
    },
    header("a disk of a part of a cluster", .clean, qemu: 0, openVZ: 0) { $0.sizeSectors = 1153 },
    Verdict(
      "a bit in the unused half of the size", .clean, qemu: 0, openVZ: 0, version: .v1
    ) { try $0.overwrite("image", at: 40, with: [1]) },
    Verdict("a cluster in the middle that nothing references", .clean, qemu: 0, openVZ: 0) {
      try $0.setEntry("image", slot: 9, to: 0)
    },
    Verdict("an empty image with an index of two clusters", .clean, qemu: 3, openVZ: 0) {
      try $0.folder.unlink("image")
      try ImageCreator.create(
        in: $0.folder, name: "image",
        geometry: Geometry(version: .v2, clusterShift: 16, sizeBytes: 20_000 << 16))
    },
  ]

  static let mendable = [
    header("an image that was not closed", .repairable, ["image-unclean"], qemu: 2, openVZ: 37) {
      $0.inUse = Header.InUse.open
    },
    header("a mark that nobody writes", .repairable, ["image-unclean"], qemu: 0, openVZ: 37) {
      $0.inUse = 0x0BAD_F00D
    },
    Verdict(
      "a slot behind the disk's end that is set", .repairable, ["entry-beyond-disk"], qemu: 0,
      openVZ: 11
    ) { try $0.setEntry("image", slot: 4000, to: 3) },
    Verdict("a sector behind the last cluster", .repairable, ["tail"], qemu: 3, openVZ: 0) {
      try $0.append("image", bytes: 512)
    },
    Verdict("a cluster behind the last one", .repairable, ["tail"], qemu: 3, openVZ: 0) {
      try $0.append("image", bytes: 1 << 16)
    },
    Verdict(
      "an extension that is none", .repairable, ["extension-damaged", "tail"], qemu: 1, openVZ: 0
    ) {
      try $0.append("image", bytes: 1 << 16)
      try $0.changeHeader("image") { $0.extensionSector = 4 * 128 }
    },
  ]

  static let corrupt = [
    header("another type", .corrupt, ["image-type-unsupported"], qemu: 1, openVZ: 11) {
      $0.type = 1
    },
    Verdict(
      "another signature", .corrupt, ["image-signature-unknown"], qemu: 1, openVZ: 11
    ) { try $0.overwrite("image", at: 15, with: [0x2E]) },
    entry("an entry that another cluster has", "duplicate-entry", qemu: 0, 1),
    entry("an entry far behind the end of the file", "entry-outside-file", qemu: 2, 0x00FF_FFFF),
    entry("an entry at the end of the file", "entry-outside-file", qemu: 0, 4),
    entry("an entry inside the header", "entry-unaligned", qemu: 0, version: .v1, 1),
    entry("the reserved entry", "entry-reserved", qemu: 2, .max),
    Verdict(
      "a last cluster that is only half there", .corrupt, ["entry-outside-file", "tail"], qemu: 0,
      openVZ: 11
    ) { try $0.truncate("image", to: 3 << 16 + 32768) },
    Verdict(
      "a file that ends inside the index", .corrupt, ["image-truncated"], qemu: 2, openVZ: 6
    ) { try $0.truncate("image", to: 32768) },
    header(
      "a first block at 0", .corrupt, ["image-first-block-invalid"], qemu: 0, openVZ: 11,
      version: .v1
    ) { $0.firstBlockSector = 0 },
    header(
      "a first block at sector 8", .corrupt, ["image-first-block-invalid"], qemu: 0, openVZ: 11
    ) { $0.firstBlockSector = 8 },
    header(
      "a first block one cluster late", .corrupt, ["image-first-block-invalid"], qemu: 0, openVZ: 11
    ) { $0.firstBlockSector = 256 },
    header(
      "a disk that the index does not cover", .corrupt, ["image-index-too-short"], qemu: 0,
      openVZ: 0
    ) { $0.sizeSectors += 128 },
    header(
      "clusters of 63 sectors", .corrupt, ["image-cluster-size-invalid"], qemu: 3, openVZ: 11
    ) { $0.clusterSectors = 63 },
    header(
      "clusters of 127 sectors", .corrupt, ["image-cluster-size-invalid"], qemu: 3, openVZ: 11
    ) { $0.clusterSectors = 127 },
  ]

  /// The same without holes, which OpenVZ's tools dislike on some file systems.
  func make() throws -> Bench {
    let bench = try Bench()
    try bench.makeImage("image", Refusal.sample(version), entries: [0: 1, 5: 3, 9: 2])
    try Tool.shell(
      "cd '\(bench.folder.path)' && cp --sparse=never image full && mv full image && sync image")
    try prepare(bench)
    return bench
  }
}

extension Bench {
  /// Written bytes at the end of a file.
  fileprivate func append(_ name: String, bytes: Int) throws {
    try overwrite(name, at: try sizeBytes(name), with: [UInt8](repeating: 0x55, count: bytes))
  }
}

@Suite("The verdict of a check")
struct VerdictTests {
  @Test("is what is documented, beside what QEMU and OpenVZ say", arguments: Verdict.all)
  func verdict(row: Verdict) throws {
    let bench = try row.make()
    let before = try bench.fingerprint()
    let check = try ChainCheck([bench.source("image")])
    #expect(check.verdict == row.ours)
    #expect(check.levels.flatMap(\.faults).map(\.code) == row.codes)
    #expect(check.levels[0].faultCount == UInt64(row.codes.count))
    #expect(try bench.fingerprint() == before)

    let path = bench.path("image")
    let qemu = try Tool.shell("qemu-img check -f parallels '\(path)'", check: false)
    #expect(qemu.status == row.qemu, "\(qemu.output)")
    let openVZ = try Tool.shell(
      "\(OpenVZ.padding) ploop check -f -c -r '\(path)'", check: false)
    #expect(openVZ.status == row.openVZ, "\(openVZ.output)")
  }

  @Test("gives its locks back, whoever still has the files open, also where it is refused")
  func locks() throws {
    let bench = try Bench()
    for name in ["image", "top"] { try bench.makeImage(name, Refusal.sample(), entries: [0: 1]) }
    let sources = try ["image", "top"].map { try bench.source($0) }
    do {
      let run = try CheckRun(of: sources)
      #expect(throws: LockError.self) {
        try ImageLock.acquire(bench.source("image", writable: true).file, for: .write)
      }
      while try run.step() != nil {}
      #expect(try run.result().verdict == .clean)
    }
    let top = try bench.source("top", writable: true)
    try ImageLock.acquire(top.file, for: .write)
    #expect(throws: DeviceError.self) { try CheckRun(of: sources) }
    let other = try bench.source("image", writable: true)
    try ImageLock.acquire(other.file, for: .write)
    for source in [top, other] { ImageLock.release(source.file) }
    withExtendedLifetime(sources) {}
  }

  @Test("counts clusters whose neighbour lies elsewhere as qemu-img check does")
  func fragmentation() throws {
    let bench = try Bench()
    try bench.makeImage(
      "image", Refusal.sample(), entries: [0: 1, 1: 3, 2: 4, 3: 2, 6: 6, 7: 5, 9: 7])
    guard case .image(let check) = try ChainCheck([bench.source("image")]).levels[0] else {
      Issue.record("the image has a header")
      return
    }
    #expect(check.scatteredClusters == 3 && check.fragmentationPercent == 43)
    let judge = try Tool.shell(
      "qemu-img check -f parallels --output=json '\(bench.path("image"))'"
    ).output
    #expect(judge.contains("\"fragmented-clusters\": 3"), "\(judge)")
  }
}
