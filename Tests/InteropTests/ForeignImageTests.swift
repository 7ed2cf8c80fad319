import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// An image that somebody else's tool makes, and the raw file with what it holds.
struct ForeignImage: Sendable, CustomTestStringConvertible {
  enum Maker: Sendable {
    case qemuCreate(options: String)
    /// From a raw file, of which the middle third is a hole.
    case qemuConvert(options: String, sizeBytes: Int)
    /// OpenVZ's `ploop init`, filled by QEMU.
    case ploop(version: Int, clusterSectors: Int, kind: String = "expanded")
  }

  let testDescription: String
  let maker: Maker
  /// `ploop` knows clusters from 32 KiB on, and disks that end with a cluster.
  var isKnownToPloop = true

  static let all = [
    ForeignImage(
      testDescription: "QEMU, empty",
      maker: .qemuCreate(options: "size=8M,cluster_size=64K")),
    ForeignImage(
      testDescription: "QEMU, empty, a partial last cluster",
      maker: .qemuCreate(options: "size=3000000,cluster_size=64K")),
    ForeignImage(
      testDescription: "QEMU, clusters of 4 KiB, five clusters of index",
      maker: .qemuConvert(options: "cluster_size=4K", sizeBytes: 18 << 20), isKnownToPloop: false),
    ForeignImage(
      testDescription: "QEMU, clusters of 64 KiB, a partial last cluster",
      maker: .qemuConvert(options: "cluster_size=64K", sizeBytes: 5_000_192)),
    ForeignImage(
      testDescription: "QEMU, clusters of 1 MiB",
      maker: .qemuConvert(options: "cluster_size=1M", sizeBytes: 24 << 20)),
    ForeignImage(
      testDescription: "ploop, version 1, clusters of 32 KiB",
      maker: .ploop(version: 1, clusterSectors: 64)),
    ForeignImage(
      testDescription: "ploop, version 1, clusters of 1 MiB",
      maker: .ploop(version: 1, clusterSectors: 2048)),
    ForeignImage(
      testDescription: "ploop, version 1, preallocated",
      maker: .ploop(version: 1, clusterSectors: 128, kind: "preallocated")),
    ForeignImage(
      testDescription: "ploop, version 2, clusters of 64 KiB",
      maker: .ploop(version: 2, clusterSectors: 128)),
    ForeignImage(
      testDescription: "ploop, version 2, clusters of 1 MiB",
      maker: .ploop(version: 2, clusterSectors: 2048)),
  ]

  func make(_ bench: Bench, _ name: String) throws {
    switch maker {
    case .qemuCreate(let options): try QEMU.create(bench.path(name), options)
    case .qemuConvert(let options, let sizeBytes):
      try bench.makeRaw("source.raw", sizeBytes: sizeBytes, seed: 1)
      try QEMU.convert(raw: bench.path("source.raw"), bench.path(name), options)
    case .ploop(let version, let clusterSectors, let kind):
      try OpenVZ.initialise(
        bench.path(name), version: version, clusterSectors: clusterSectors, size: "16M", kind: kind)
      try bench.makeRaw("source.raw", sizeBytes: 16 << 20, seed: 2)
      try Tool.shell(
        "cd '\(bench.folder.path)' && qemu-img convert -n -f raw -O parallels source.raw '\(name)'")
    }
  }
}

@Suite("An image of another tool")
struct ForeignImageTests {
  @Test(
    "reads as QEMU reads it; after random requests QEMU reads what the model says",
    arguments: ForeignImage.all, [1, 2] as [UInt64])
  func readAndWritten(foreign: ForeignImage, seed: UInt64) throws {
    let bench = try Bench()
    try foreign.make(bench, "image")
    try QEMU.convertToRaw(bench.path("image"), bench.path("before.raw"))
    let reader = try bench.attach(["image"], readonly: true)
    try reader.copy(to: bench, "read.raw")
    try reader.close()
    try expectSameBytes(bench.path("before.raw"), bench.path("read.raw"))

    let model = try DiskModel(bench, raw: "before.raw", seed: seed, longest: 300_000)
    for _ in 0..<2 {
      let device = try bench.attach(["image"])
      #expect(device.repairs.isEmpty)
      try model.exercise(device, steps: 60)
      try device.close()
    }
    try model.save(bench, "model.raw")
    try QEMU.expectSound(bench.path("image"))
    if foreign.isKnownToPloop { try OpenVZ.expectSound(bench.path("image")) }
    try QEMU.convertToRaw(bench.path("image"), bench.path("after.raw"))
    try expectSameBytes(bench.path("model.raw"), bench.path("after.raw"), "seed \(seed)")
  }
}
