import CrashKit
import Glibc
import PloopBackup
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("A backup in an export of an NBD server")
struct NBDTargetTests {
  /// Servers of all kinds: what they can, and in which blocks.
  private static let servers: [(name: String, start: @Sendable (String) throws -> ForeignServer)] =
    [
      ("qemu-nbd", { try .qemu($0) }),
      ("nbdkit with a file", { try .nbdkit(["file", $0]) }),
      ("nbdkit with memory", { _ in try .nbdkit(["memory", "3M"]) }),
      (
        "nbdkit that can only write",
        { try .nbdkit(["--filter=nozero", "--filter=noextents", "file", $0]) }
      ),
      (
        "nbdkit with large blocks and small requests",
        {
          try .nbdkit([
            "--filter=blocksize-policy", "file", $0, "blocksize-minimum=4096",
            "blocksize-preferred=4096", "blocksize-maximum=64k", "blocksize-error-policy=error",
          ])
        }
      ),
    ]

  private func bench() throws -> BackupBench {
    // The last sector is not the last of a block.
    let bench = try BackupBench(clusterShift: 16, sizeBytes: 40 << 16 - 512)
    bench.write(0..<40)
    return bench
  }

  private func target(_ bench: BackupBench, _ uri: String) throws -> NBDTarget {
    var options = NBDOptions()
    options.connectSeconds = 300
    options.requestSeconds = 300
    return NBDTarget(uri, options, records: try bench.folder.makeFolder(beneath: "records"))
  }

  private func manifest(_ bench: BackupBench, _ id: String) -> PointManifest {
    PointManifest(
      id, device: "disk", mode: .full, geometry: bench.disk.geometry, pointInTime: 1)
  }

  private func backup(
    _ bench: BackupBench, to target: NBDTarget, _ id: String
  ) throws -> PointManifest.Result {
    try bench.copy(ModelSource(bench.disk), to: try target.write(manifest(bench, id)))
    return try #require(try target.manifest(id).result)
  }

  private func wrong(_ bench: BackupBench, _ check: PointCheck) throws -> [UInt64] {
    while try check.step(limitBytes: 1 << 20, on: bench.engine) {}
    #expect(check.checkedBytes == check.totalBytes)
    return check.wrongClusters
  }

  /// A file of the size that a server is to have.
  private func file(_ bench: BackupBench, sizeBytes: UInt64 = 3 << 20) throws -> ImageFile {
    let file = try bench.folder.create("disk.raw")
    try file.truncate(to: sizeBytes)
    return file
  }

  @Test("is what the disk was, byte for byte, whatever the export held", arguments: 0..<5)
  func bytes(server number: Int) throws {
    let bench = try bench()
    _ = try file(bench)
    let server = try Self.servers[number].start(bench.path("disk.raw"))
    let target = try target(bench, server.uri)
    #expect(try target.points().isEmpty)
    #expect(try target.probe().sizeBytes == 3 << 20)
    #expect(try backup(bench, to: target, "b0").storedClusters == 40)
    // Another disk's state, with holes and zeroes where the export has bytes now.
    for cluster in stride(from: 2, to: 40, by: 3) { bench.disk.clusters[cluster] = nil }
    for cluster in stride(from: 0, to: 40, by: 7) { bench.disk.clusters[cluster] = 0 }
    for cluster in 20..<30 { bench.disk.clusters[cluster] = nil }
    bench.write([3, 10])
    let result = try backup(bench, to: target, "b1")
    let stored = bench.disk.clusters.filter { $0 ?? 0 != 0 }.count
    #expect(result.storedClusters == UInt64(stored))
    #expect(result.bytesRead == UInt64(bench.disk.clusters.filter { $0 != nil }.count) << 16)
    #expect(try target.points().map(\.id) == ["b1"])
    #expect(try target.points().map(\.state) == [.whole])
    // As another client reads it.
    try bench.saveRaw(bench.disk, "expected")
    try Tool.shell(
      """
      qemu-img convert -f raw -O raw '\(server.uri)' '\(bench.path("seen"))'
      cmp -n \(bench.disk.geometry.sizeBytes) '\(bench.path("seen"))' '\(bench.path("expected"))'
      """)
    #expect(try wrong(bench, target.check("b1")).isEmpty)
    try bench.folder.unlink("seen")
    let reader = try target.reader("b1")
    #expect(kind { _ = try target.write(manifest(bench, "b2")) } == .locked)
    #expect(kind { try target.remove("b1") } == .locked)
    try bench.copy(
      reader, to: try StoredBackup.raw("seen", in: bench.folder, of: reader.geometry))
    try expectSameBytes(bench.path("seen"), bench.path("expected"))
  }

  @Test("has holes where the disk has none of its own")
  func holes() throws {
    let bench = try bench()
    let file = try file(bench)
    let server = try ForeignServer.nbdkit(["file", bench.path("disk.raw")])
    let target = try target(bench, server.uri)
    _ = try backup(bench, to: target, "b0")
    try file.sync()
    #expect(try file.allocatedBytes() >= 39 << 16)
    for cluster in 4..<40 { bench.disk.clusters[cluster] = nil }
    _ = try backup(bench, to: target, "b1")
    #expect(try file.allocatedBytes() <= 6 << 16)
  }

  @Test("is gone on with at the last commit when its server has died", arguments: [false, true])
  func died(forgets: Bool) throws {
    let bench = try bench()
    _ = try file(bench)
    func start() throws -> ForeignServer {
      forgets ? try .nbdkit(["memory", "3M"]) : try .qemu(bench.path("disk.raw"))
    }
    let manifest = manifest(bench, "b0")
    do {
      let server = try start()
      let target = try target(bench, server.uri)
      let sink = try target.write(manifest)
      #expect(kind { _ = try target.write(manifest) } == .locked)
      let copy = BackupCopy(from: ModelSource(bench.disk), to: sink, on: bench.engine)
      _ = try copy.step(limitBytes: 16 << 16)
      try copy.commit()
      _ = try copy.step(limitBytes: 8 << 16)
      server.kill()
      do {
        try copy.commit()
        Issue.record("nobody was told")
      } catch let error {
        guard case .target = error.kind else { throw error }
        #expect(error.detail.contains(server.uri), "\(error)")
        #expect(kind { _ = try copy.step(limitBytes: 1) } == error.kind)
      }
      copy.abandon()
      guard case .target? = kind({ _ = try target.write(manifest) }) else {
        Issue.record("a server that is gone is not told")
        return
      }
      #expect(try target.points().map(\.state) == [.partial])
      // A record that was cut short does not count, nor does what is behind the next one.
      let sums = try bench.folder.open("records/b0.sums", writable: true)
      try sums.write(AlignedBuffer(count: 1 << 14).region, at: sums.size())
    }
    let server = try start()
    let target = try target(bench, server.uri)
    let sink = try target.write(manifest)
    #expect(sink.cursor == (forgets ? 0 : 16))
    let source = ModelSource(bench.disk)
    try bench.copy(source, to: sink)
    #expect(
      Set(source.readClusters) == Set(sink.totals.zeroBytes == 0 && !forgets ? 16..<40 : 0..<40))
    #expect(try target.manifest("b0").result?.bytesRead == 40 << 16)
    #expect(try wrong(bench, target.check("b0")).isEmpty)
    // The threads that have read it let go of its lock in their own time.
    let deadline = Deadline.after(seconds: 600)
    var refusal = kind { _ = try target.write(manifest) }
    while refusal == .locked, !deadline.hasPassed {
      refusal = kind { _ = try target.write(manifest) }
    }
    #expect(refusal == .exists)
  }

  @Test("is found out where the server has other bytes, and never handed out")
  func lies() throws {
    let bench = try bench()
    let file = try file(bench)
    for cluster in 10..<20 { bench.disk.clusters[cluster] = nil }
    let server = try ForeignServer.nbdkit(["file", bench.path("disk.raw")])
    let target = try target(bench, server.uri)
    _ = try backup(bench, to: target, "b0")
    // A bit, a byte where zeroes were, a hole where bytes were.
    try bench.flip("disk.raw", at: 5 << 16 + 77)
    try bench.flip("disk.raw", at: 12 << 16)
    try file.write(AlignedBuffer(count: 1 << 16).region, at: 30 << 16)
    try file.punchHole(offset: 32 << 16, length: 2 << 16)
    // What is behind the disk's end is nobody's.
    try bench.flip("disk.raw", at: 40 << 16 - 100)
    #expect(try wrong(bench, target.check("b0")) == [5, 12, 30, 32, 33])
    let reader = try target.reader("b0")
    let buffer = AlignedBuffer(count: 4 << 16)
    #expect(kind { try reader.read(into: buffer.region, from: 4) } == .corrupt(clusters: [5]))
    #expect(kind { try reader.read(into: buffer.region, from: 28) } == .corrupt(clusters: [30]))
    #expect(kind { try reader.read(into: buffer.region, from: 36) } == nil)
    try file.truncate(to: 2 << 20)
    let shorter = try ForeignServer.nbdkit(["file", bench.path("disk.raw")])
    let other = try self.target(bench, shorter.uri)
    guard case .corrupt? = kind({ _ = try other.reader("b0") }) else {
      Issue.record("an export that is too short is not told")
      return
    }
  }

  @Test("is not taken for one when its records are damaged, and can be removed")
  func records() throws {
    let bench = try bench()
    _ = try file(bench)
    let server = try ForeignServer.qemu(bench.path("disk.raw"))
    let target = try target(bench, server.uri)
    _ = try backup(bench, to: target, "b0")
    try bench.flip("records/b0.sums", at: 45)
    guard case .corrupt? = kind({ _ = try target.reader("b0") }) else {
      Issue.record("another journal is not told")
      return
    }
    try bench.folder.folder(beneath: "records").unlink("b0.sums")
    #expect(try target.points().map(\.state) == [.damaged("b0.sums is missing")])
    #expect(kind { _ = try target.check("b0") } != nil)
    try target.remove("b0")
    #expect(try target.points().isEmpty)
    #expect(kind { try target.remove("b0") } == .notFound)
    #expect(kind { _ = try target.check("b0") } == .notFound)
    #expect(try bench.folder.folder(beneath: "records").names() == ["lock"])
  }
}
