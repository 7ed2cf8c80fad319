import CrashKit
import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Where a disk is copied to")
struct TargetTests {
  private static let kinds:
    [@Sendable (String, ImageFolder, Geometry, String) throws -> any BackupSink] = [
      { try StoredBackup.raw($0, in: $1, of: $2, id: $3) },
      { (name, folder, geometry, _) in try FileTarget.image(name, in: folder, of: geometry) },
    ]

  private func expectSame(_ bench: BackupBench, _ kind: Int, _ disk: ModelDisk) throws {
    try bench.saveRaw(disk, "expected")
    if kind == 1 {
      try OpenVZ.expectSound(bench.path("out"))
      try QEMU.expectSound(bench.path("out"))
      try QEMU.convertToRaw(bench.path("out"), bench.path("seen"))
      try bench.folder.rename("seen", to: "out")
    }
    try expectSameBytes(bench.path("out"), bench.path("expected"))
    try bench.folder.unlink("out")
    try bench.folder.unlink("expected")
  }

  @Test("one file, raw or an image, gets any point of a chain", arguments: [0, 1], [12, 16, 20])
  func restore(kind: Int, clusterShift: Int) throws {
    let size = UInt64(40) << UInt64(clusterShift)
    let bench = try BackupBench(clusterShift: clusterShift, sizeBytes: size)
    bench.write(stride(from: 1, to: 40, by: 2))
    try bench.point()
    bench.write([2, 3])
    bench.disk.clusters[5] = nil
    bench.disk.clusters[7] = 0
    try bench.point(changed: [2, 3, 5, 7])
    for (manifest, disk) in bench.saved {
      let reader = try PointReader(manifest.id, of: bench.chain)
      let sink = try Self.kinds[kind]("out", bench.folder, reader.geometry, manifest.id)
      try bench.copy(reader, to: sink)
      // OpenVZ's tools take no cluster under 32 KiB.
      if kind == 0 || clusterShift >= 15 {
        try expectSame(bench, kind, disk)
      } else {
        try bench.folder.unlink("out")
      }
    }
    #expect(try bench.folder.names().filter { $0.hasPrefix("out") }.isEmpty)
  }

  @Test(
    "a file that somebody puts there at the last moment is not replaced",
    arguments: [FilePointTarget.Format.raw, .image])
  func lastMoment(format: FilePointTarget.Format) throws {
    let bench = try BackupBench(clusterShift: 16, sizeBytes: 8 << 16)
    bench.write([1, 5])
    let place = bench.path("out")
    let plan = FaultPlan { _, operation, _ in
      guard case .rename(to: place) = operation else { return nil }
      return .stall { _ = try? Tool.shell("echo theirs > '\(place)'") }
    }
    let watched = try ImageFolder(path: bench.folder.path, probe: plan)
    let target = FilePointTarget("out", in: watched, as: format, records: bench.folder)
    let source = ModelSource(bench.disk)
    let sink = try target.write(bench.manifest(source, "b"))
    #expect(kind { try bench.copy(source, to: sink) } == .exists)
    #expect(plan.faultCount == 1)
    #expect(try Tool.shell("cat '\(place)'").output == "theirs\n")
    #expect(bench.folder.contains(FilePointTarget.part(of: "out", "b")))
  }

  @Test("one file is gone on with after a crash, and nobody else's is touched", arguments: [0, 1])
  func resumes(kind number: Int) throws {
    let bench = try BackupBench(clusterShift: 16, sizeBytes: 40 << 16)
    bench.write(stride(from: 1, to: 40, by: 2))
    let half = number == 0 ? FilePointTarget.part(of: "out", "b") : "out"
    func make(_ name: String, _ folder: ImageFolder, _ geometry: Geometry) throws -> any BackupSink
    {
      try Self.kinds[number](name, folder, geometry, "b")
    }
    _ = try bench.folder.create("mine")
    #expect(kind { _ = try make("mine", bench.folder, bench.disk.geometry) } == .exists)
    do {
      let sink = try make("out", bench.folder, bench.disk.geometry)
      let copy = BackupCopy(from: ModelSource(bench.disk), to: sink, on: bench.engine)
      _ = try copy.step(limitBytes: 10 << 16)
      try copy.commit()
      // These are lost.
      _ = try copy.step(limitBytes: 10 << 16)
      #expect(kind { _ = try make("out", bench.folder, bench.disk.geometry) } == .locked)
      #expect(kind { try sink.finish() } == .mismatch)
      copy.abandon()
    }
    // What lies behind the cursor may be anything, also where the disk is zero.
    let garbage = AlignedBuffer([UInt8](repeating: 0xAB, count: 1 << 16))
    try bench.folder.open(half, writable: true).write(garbage.region, at: 30 << 16)
    let source = ModelSource(bench.disk)
    let sink = try make("out", bench.folder, bench.disk.geometry)
    #expect(sink.cursor == 20)
    try bench.copy(source, to: sink)
    #expect(source.readClusters.allSatisfy { $0 >= 20 })
    #expect(!bench.folder.contains(FileTarget.journal(of: "out")))
    try expectSame(bench, number, bench.disk)
  }

  @Test("a folder has chains by device, and makes what is missing")
  func directory() throws {
    let bench = try BackupBench()
    let target = DirectoryTarget(in: bench.folder)
    #expect(try target.devices().isEmpty && target.chains(of: "vm1").isEmpty)
    #expect(kind { _ = try target.makeChain("../c", of: "vm1") } == .mismatch)
    #expect(kind { _ = try target.makeChain("c", of: "") } == .mismatch)
    for (device, chain) in [("vm1", "c2"), ("vm1", "c1"), ("vm2", "c3")] {
      _ = try target.makeChain(chain, of: device)
    }
    let source = ModelSource(bench.disk)
    let manifest = bench.manifest(source)
    try bench.copy(source, to: try target.makeChain("c1", of: "vm1").write(manifest))
    #expect(try target.devices() == ["vm1", "vm2"])
    #expect(try target.chains(of: "vm1") == ["c1", "c2"])
    #expect(try target.chain("c1", of: "vm1").points().map(\.id) == [manifest.id])
    #expect(kind { _ = try target.chain("c1", of: "vm2") } == .notFound)
  }
}

@Suite("A chain of backups, as other programs see it")
struct JudgeTests {
  @Test("is a ploop disk with a snapshot for each point", arguments: [15, 20])
  func judges(clusterShift: Int) throws {
    let bench = try BackupBench(
      clusterShift: clusterShift, sizeBytes: 50 << UInt64(clusterShift))
    bench.write([1, 2, 3, 10, 11, 40])
    try bench.point()
    bench.write([2, 12])
    bench.disk.clusters[3] = nil
    bench.disk.clusters[10] = 0
    try bench.point(changed: [2, 3, 10, 12])
    bench.write([3])
    bench.disk.clusters[40] = 0
    try bench.point(changed: [3, 40])
    for (level, point) in bench.saved.enumerated() {
      let images = bench.saved[...level].map { bench.path("\($0.manifest.id).hds") }
      try OpenVZ.expectSound(images[level])
      try QEMU.expectSound(images[level])
      try bench.saveRaw(point.disk, "expected")
      try Tool.shell(
        "qemu-img convert -O raw '\(QEMU.stack(images, rawBase: false))' '\(bench.path("seen"))'")
      try expectSameBytes(bench.path("seen"), bench.path("expected"), point.manifest.id)
      try bench.folder.unlink("expected")
      let check = try ChainCheck(
        bench.saved[...level].map { point in
          let name = "\(point.manifest.id).hds"
          return DeltaSource(
            file: try bench.folder.open(name, writable: false), folder: bench.folder, name: name)
        })
      #expect(check.verdict == .clean)
    }
    let listed = try OpenVZ.run(
      """
      cd '\(bench.folder.path)'
      ploop check DiskDescriptor.xml
      ploop snapshot-list -H -o uuid DiskDescriptor.xml
      """)
    for point in bench.saved.dropLast() {
      #expect(listed.contains(point.manifest.guid), "\(listed)")
    }
    // Nothing that they did has changed a byte.
    try bench.expectAllSound()
  }
}
