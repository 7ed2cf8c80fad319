internal import FoundationEssentials
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// Three deltas, oldest first, and whether the oldest is raw.
struct Chain: Sendable, CustomTestStringConvertible {
  let version: ImageVersion
  let rawBase: Bool
  let clusterShift: Int
  /// Of the disk; the base is smaller.
  let sizeBytes: UInt64
  var names: [String] { ["base", "middle", "top"] }
  var testDescription: String {
    "v\(version.rawValue), \(1 << (clusterShift - 10)) KiB, \(rawBase ? "raw" : "ploop") base"
  }

  static let all = [
    Chain(version: .v1, rawBase: false, clusterShift: 15, sizeBytes: 4 << 20),
    Chain(version: .v2, rawBase: false, clusterShift: 16, sizeBytes: 4 << 20),
    Chain(version: .v1, rawBase: true, clusterShift: 16, sizeBytes: 4 << 20),
    Chain(version: .v2, rawBase: true, clusterShift: 12, sizeBytes: 5 << 20),
    Chain(version: .v2, rawBase: true, clusterShift: 20, sizeBytes: 12 << 20),
  ]

  /// A base of three quarters of the disk (not empty if raw), and two empty deltas.
  func make(_ bench: Bench) throws {
    let baseBytes = sizeBytes / 4 * 3
    if rawBase {
      try bench.makeRaw("base", sizeBytes: Int(baseBytes), seed: 3)
    } else {
      try bench.makeImage("base", geometry(baseBytes))
    }
    for name in names.dropFirst() { try bench.makeImage(name, geometry(sizeBytes)) }
  }

  private func geometry(_ sizeBytes: UInt64) -> Geometry {
    Geometry(version: version, clusterShift: clusterShift, sizeBytes: sizeBytes)
  }

  func stack(_ bench: Bench, levels: Int = 3) -> String {
    QEMU.stack(names.prefix(levels).map(bench.path), rawBase: rawBase)
  }
}

@Suite("A chain of three deltas")
struct ChainTests {
  @Test(
    "that we write reads in QEMU as the model says, from the owners that we name",
    arguments: Chain.all, [11, 12] as [UInt64])
  func written(chain: Chain, seed: UInt64) throws {
    let bench = try Bench()
    try chain.make(bench)
    for levels in (chain.rawBase ? 2 : 1)...3 {
      let names = Array(chain.names.prefix(levels))
      try Tool.shell(
        "qemu-img convert -O raw '\(chain.stack(bench, levels: levels))' \(bench.path("before"))")
      let model = try DiskModel(bench, raw: "before", seed: seed, longest: 200_000)
      let lower = try checksums(bench, names.dropLast())
      let device = try bench.attach(names, rawBase: chain.rawBase)
      try model.exercise(device, steps: 50)
      try device.close()
      #expect(try checksums(bench, names.dropLast()) == lower)
      try model.save(bench, "model")
      try Tool.shell(
        """
        cd '\(bench.folder.path)' && qemu-img convert -O raw '\(chain.stack(bench, levels: levels))' \
        after && cmp model after && rm before model after
        """)
    }
    for name in chain.names where !(chain.rawBase && name == "base") {
      try QEMU.expectSound(bench.path(name))
      if chain.clusterShift >= 15 { try OpenVZ.expectSound(bench.path(name)) }
    }
    let device = try bench.attach(chain.names, rawBase: chain.rawBase, readonly: true)
    #expect(try ours(device) == theirs(chain.stack(bench)), "seed \(seed)")
    try device.close()
  }

  @Test("that QEMU writes reads as QEMU reads it", arguments: Chain.all)
  func writtenByQEMU(chain: Chain) throws {
    let bench = try Bench()
    try chain.make(bench)
    for levels in (chain.rawBase ? 2 : 1)...3 {
      // Into, across and around clusters that the levels below hold or do not hold.
      let writes = [100, 700_000, 1_500_000, 2_900_000].map {
        "-c 'write -P \(levels * 16) \($0 / 512 * 512 + levels * 100_352) 120K'"
      }
      try Tool.shell(
        "qemu-io \(writes.joined(separator: " ")) '\(chain.stack(bench, levels: levels))'")
    }
    let device = try bench.attach(chain.names, rawBase: chain.rawBase)
    try device.copy(to: bench, "ours.raw")
    let owners = try ours(device)
    try device.close()
    #expect(try owners == theirs(chain.stack(bench)))
    try Tool.shell(
      "qemu-img convert -O raw '\(chain.stack(bench))' '\(bench.path("theirs.raw"))'")
    try expectSameBytes(bench.path("ours.raw"), bench.path("theirs.raw"))
  }

  @Test("holds what `ploop merge` makes of it", arguments: Chain.all.filter { !$0.rawBase })
  func merged(chain: Chain) throws {
    let bench = try Bench()
    try chain.make(bench)
    for levels in 2...3 {
      let device = try bench.attach(Array(chain.names.prefix(levels)))
      for cluster in stride(from: UInt64(levels), to: device.geometry.clusterCount, by: levels) {
        try device.put(
          [UInt8](repeating: UInt8(16 * levels), count: 5000),
          at: cluster * device.geometry.clusterBytes)
      }
      try device.close()
    }
    let device = try bench.attach(chain.names, readonly: true)
    try device.copy(to: bench, "ours.raw")
    try device.close()
    // OpenVZ's tool wants no holes, and keeps what it merges.
    for name in chain.names { try OpenVZ.expectSound(bench.path(name)) }
    try OpenVZ.merge(chain.names.reversed().map(bench.path))
    try QEMU.convertToRaw(bench.path("base"), bench.path("theirs.raw"))
    try expectSameBytes(bench.path("ours.raw"), bench.path("theirs.raw"))
  }

  // MARK: Owners

  /// Bytes of the disk with one owner; level nil where no delta maps anything.
  private struct Owner: Equatable {
    var start: UInt64
    var length: UInt64
    var level: Int?
  }

  private func ours(_ device: Device) throws -> [Owner] {
    let size = device.geometry.sizeBytes
    let runs = try device.runs(offset: 0, length: size, limit: .max)
    return joined(runs.map { Owner(start: $0.start, length: $0.length, level: $0.level) })
  }

  /// What `qemu-img map` says; its depth counts from the top.
  private func theirs(_ stack: String) throws -> [Owner] {
    struct Extent: Decodable {
      var start: UInt64
      var length: UInt64
      var depth: Int
      var present: Bool
    }
    let output = try Tool.shell("qemu-img map --output=json '\(stack)'").output
    let extents = try JSONDecoder().decode([Extent].self, from: Data(output.utf8))
    return joined(
      extents.map {
        Owner(start: $0.start, length: $0.length, level: $0.present ? 2 - $0.depth : nil)
      })
  }

  private func joined(_ owners: [Owner]) -> [Owner] {
    owners.reduce(into: []) { result, owner in
      if let last = result.last, last.level == owner.level {
        result[result.count - 1].length += owner.length
      } else {
        result.append(owner)
      }
    }
  }

  private func checksums(_ bench: Bench, _ names: some Sequence<String>) throws -> String {
    try names.map { try Tool.shell("sha256sum '\(bench.path($0))'").output }.joined()
  }
}
