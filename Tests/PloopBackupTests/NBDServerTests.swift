import CrashKit
import Glibc
import PloopBackup
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("An NBD server that is not as one would like it")
struct NBDServerTests {
  private func write(
    _ bench: BackupBench, _ uri: String, _ options: NBDOptions = NBDOptions()
  ) throws {
    let target = NBDTarget(
      uri, options, records: try bench.folder.makeFolder(beneath: "records"))
    let manifest = PointManifest(
      "b0", device: "disk", mode: .full, geometry: bench.disk.geometry, pointInTime: 1)
    try bench.copy(ModelSource(bench.disk), to: try target.write(manifest))
  }

  private func bench(clusterShift: Int = 16) throws -> BackupBench {
    let bench = try BackupBench(
      clusterShift: clusterShift, sizeBytes: 40 << UInt64(clusterShift))
    bench.write(stride(from: 0, to: 40, by: 2))
    return bench
  }

  @Test(
    "says what it could not do",
    arguments: [
      ("error-pwrite=ENOSPC", BackupError.Kind.outOfSpace),
      ("error-pwrite=EIO", .target(code: EIO)), ("error-zero=EIO", .target(code: EIO)),
      ("error-pwrite=ESHUTDOWN", .target(code: ESHUTDOWN)),
    ])
  func errors(option: String, expected: BackupError.Kind) throws {
    let bench = try bench()
    let rate = option.prefix { $0 != "=" } + "-rate=100%"
    let server = try ForeignServer.nbdkit(
      ["--filter=error", "memory", "4M", option, String(rate)])
    #expect(kind { try write(bench, server.uri) } == expected)
  }

  @Test("is refused where it cannot hold the disk, durably")
  func refusals() throws {
    let bench = try bench()
    for (words, reason) in [
      (["-r", "memory", "4M"], "read-only"), (["memory", "2M"], "2097152 bytes"),
      (["eval", "get_size=echo 4M", "pread=exit 1", "pwrite=cat >/dev/null"], "durable"),
      (
        [
          "--filter=blocksize-policy", "memory", "4M", "blocksize-minimum=64k",
          "blocksize-preferred=64k",
        ], "65536"
      ),
    ] {
      let server = try ForeignServer.nbdkit(words)
      let small = try BackupBench(sizeBytes: 640 << 12)
      do {
        try write(reason == "65536" ? small : bench, server.uri)
        Issue.record("\(words) is taken")
      } catch let error as BackupError {
        #expect(error.kind == .mismatch && error.detail.contains(reason), "\(error)")
      }
      // Nothing was begun.
      #expect(!bench.folder.contains("records/b0.json"))
    }
    let server = try ForeignServer.nbdkit(["memory", "4M"])
    let target = NBDTarget(server.uri, records: try bench.folder.makeFolder(beneath: "records"))
    let part = ModelSource(bench.disk, wanted: [1])
    let increment = PointManifest(
      "b1", device: "disk", mode: .incremental, parent: "b0", geometry: bench.disk.geometry,
      wanted: part.wanted, pointInTime: 1)
    #expect(kind { _ = try target.write(increment) } == .mismatch)
  }

  @Test("is only one that an address of the right kind leads to")
  func addresses() throws {
    let bench = try bench()
    let server = try ForeignServer.nbdkit(["memory", "4M"])
    let socket = server.uri.drop { $0 != "=" }.dropFirst()
    for uri in [
      "http://127.0.0.1/", "nbd+vsock://2", "nbd+ssh://host/", "nbd", "",
      "nbds+unix:///?socket=\(socket)&tls-psk-file=/etc/passwd",
    ] {
      #expect(kind { try write(bench, uri) } == .mismatch, "\(uri)")
    }
    var options = NBDOptions()
    options.requiresTLS = true
    #expect(kind { try write(bench, server.uri, options) } == .mismatch)
    for uri in ["nbd+unix:///?socket=/nowhere/socket", "nbd://127.0.0.1:1/"] {
      guard case .target? = kind({ try write(bench, uri) }) else {
        Issue.record("\(uri): \(String(describing: kind { try write(bench, uri) }))")
        continue
      }
    }
    let qemu = try BackupBench()
    try qemu.saveRaw(qemu.disk, "disk.raw")
    let named = try ForeignServer.qemu(qemu.path("disk.raw"), ["-f", "raw", "-x", "vol"])
    guard case .target? = kind({ try write(qemu, named.uri) }) else {
      Issue.record("an export that is not there is not told")
      return
    }
    try write(qemu, "nbd+unix:///vol?" + named.uri.drop { $0 != "?" }.dropFirst())
  }

  @Test("is given up when it is silent for too long", arguments: ["connecting", "a request"])
  func silence(what: String) throws {
    let bench = try bench()
    let server = try ForeignServer.nbdkit(["memory", "4M"])
    var options = NBDOptions()
    options.connectSeconds = what == "connecting" ? 1 : 300
    options.requestSeconds = 1
    let target = NBDTarget(
      server.uri, options, records: try bench.folder.makeFolder(beneath: "records"))
    if what == "connecting" {
      server.halt()
      #expect(kind { _ = try target.probe() } == .target(code: ETIMEDOUT))
      return
    }
    let manifest = PointManifest(
      "b0", device: "disk", mode: .full, geometry: bench.disk.geometry, pointInTime: 1)
    let copy = BackupCopy(
      from: ModelSource(bench.disk), to: try target.write(manifest), on: bench.engine)
    server.halt()
    #expect(kind { _ = try copy.step(limitBytes: 1 << 30) } == .target(code: ETIMEDOUT))
    copy.abandon()
  }

  @Test("has several requests at a time, each of no more than it takes")
  func flight() throws {
    // One thread stores clusters of 8 MiB.
    let bench = try BackupBench(clusterShift: 23, sizeBytes: 2 << 23)
    bench.write(0..<2)
    let server = try ForeignServer.nbdkit([
      "--filter=log", "--filter=delay", "memory", "16M", "wdelay=200ms",
      "logfile=\(bench.path("log"))",
    ])
    try write(bench, server.uri)
    let log = try Tool.shell("grep -E 'Write|Flush' '\(bench.path("log"))'").output
    var (flying, most) = (0, 0)
    for line in log.split(separator: "\n") {
      if line.contains(" ...Write") || line.contains(" ...Flush") {
        flying -= 1
      } else {
        flying += 1
        if line.contains("Write") { #expect(line.contains("count=0x100000 "), "\(line)") }
        if line.contains("Flush") { #expect(flying == 1, "a flush beside writes") }
      }
      most = max(most, flying)
    }
    #expect((4...16).contains(most), "\(most)")
  }
}

@Suite("An export of an NBD server as a disk to be copied")
struct NBDSourceTests {
  @Test("is copied byte for byte, and not read where it says that it is zero", arguments: 0..<3)
  func copies(server number: Int) throws {
    let bench = try BackupBench(clusterShift: 16, sizeBytes: 40 << 16 - 512)
    bench.write([1, 2, 20, 39])
    try bench.saveRaw(bench.disk, "disk.raw")
    try Tool.shell(
      """
      cd '\(bench.folder.path)'
      fallocate -d disk.raw
      qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2
      """)
    let server = try [
      { try ForeignServer.qemu(bench.path("disk.qcow2"), ["-r", "-f", "qcow2"]) },
      { try ForeignServer.nbdkit(["file", bench.path("disk.raw")]) },
      { try ForeignServer.nbdkit(["--filter=noextents", "file", bench.path("disk.raw")]) },
    ][number]()
    let source = try ExportSource(nbd: server.uri, clusterShift: 16)
    #expect(source.geometry == bench.disk.geometry)
    let sink = try FileTarget.image("out", in: bench.folder, of: source.geometry)
    let copy = BackupCopy(from: source, to: sink, on: bench.engine)
    while try copy.step(limitBytes: 1 << 20) { try copy.commit() }
    try copy.finish()
    #expect(copy.progress.bytesRead == (number == 2 ? 40 : 4) << 16)
    #expect(copy.progress.zeroBytes == 36 << 16)
    try QEMU.expectSound(bench.path("out"))
    try QEMU.convertToRaw(bench.path("out"), bench.path("seen"))
    try expectSameBytes(bench.path("seen"), bench.path("disk.raw"))
  }

  @Test("has zeroes behind its end, and data wherever a part of a cluster is")
  func parts() throws {
    let bench = try BackupBench()
    let file = try bench.folder.create("disk.raw")
    try file.truncate(to: 10 << 12 + 100)
    let byte = AlignedBuffer([7]).region
    for place in [1 << 12 + 4095, 4 << 12, 10 << 12 + 99] {
      try file.write(byte, at: UInt64(place))
    }
    for tellsZeroes in [false, true] {
      let source = try ExportSource(
        try FileExport(file, tellsZeroes: tellsZeroes), clusterShift: 12)
      #expect(source.geometry.sizeBytes == 10 << 12 + 512)
      var absent: [UInt64] = []
      var cluster: UInt64 = 0
      while cluster < source.geometry.clusterCount {
        let run = try source.content(from: cluster, limit: source.geometry.clusterCount - cluster)
        if run.isAbsent { absent += cluster..<cluster + run.count }
        cluster += run.count
      }
      #expect(absent == (tellsZeroes ? [0, 2, 3, 5, 6, 7, 8, 9] : []))
      let buffer = AlignedBuffer(count: 11 << 12)
      buffer.region.fill(0xEE)
      try source.read(into: buffer.region, from: 0)
      let places = (0..<buffer.count).filter { buffer.region[$0] != 0 }
      #expect(places == [1 << 12 + 4095, 4 << 12, 10 << 12 + 99])
    }
  }
}
