import CrashKit
import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("A backup of a live disk")
struct LiveDiskTests {
  @Test("holds the instant at which it began, whatever guests write meanwhile")
  func frozen() throws {
    let bench = try BackupBench(clusterShift: 16, sizeBytes: 40 << 16)
    let geometry = bench.disk.geometry
    try ImageCreator.create(in: bench.folder, name: "disk.hds", geometry: geometry)
    let device = try Device.attach(
      [
        DeltaSource(
          file: try bench.folder.open("disk.hds", writable: true), folder: bench.folder,
          name: "disk.hds")
      ], .ofTests)
    func guestWrites(_ clusters: some Sequence<Int>) throws {
      bench.write(clusters)
      let buffer = AlignedBuffer(count: Int(geometry.clusterBytes))
      for cluster in clusters {
        ModelDisk.fill(buffer.region, with: bench.disk.clusters[cluster] ?? 0)
        try device.write(
          buffer.region, at: UInt64(cluster) << 16, durable: false)
      }
    }
    try guestWrites(stride(from: 0, to: 40, by: 3))
    let instant = bench.disk
    var options = PushBackup.Options()
    options.onDeadline = .spill
    options.scratch = try Scratch(
      "scratch", in: bench.folder, clusterBytes: geometry.clusterBytes, limitBytes: 40 << 16)
    let backup = PushBackup("uuid", of: device, options, engine: bench.engine)
    _ = try backup.start(until: .after(seconds: 10))
    let source = FrozenSource(backup)
    let manifest = PointManifest(
      "live", device: "disk", mode: .full, geometry: geometry, pointInTime: 1)
    let copy = BackupCopy(
      from: source, to: try bench.chain.write(manifest), on: bench.engine)
    for round in 0..<40 {
      try guestWrites([round, (round * 7) % 40])
      let goesOn = try copy.step(limitBytes: 3 << 16)
      try copy.commit()
      if !goesOn { break }
    }
    try copy.finish()
    #expect(backup.facts.remaining == 0)
    // Whoever has lost what was copied does not get what guests have made of it.
    let again = BackupCopy(
      from: source, to: try StoredBackup.raw("again", in: bench.folder, of: geometry),
      on: bench.engine)
    #expect(kind { _ = try again.step(limitBytes: 1) } == .source)
    try backup.stop(until: .after(seconds: 10))
    try device.close()
    let values = try #require(try ModelDisk.values(of: PointReader("live", of: bench.chain)))
    #expect(instant.reads(like: values))
    #expect(bench.disk != instant)
  }
}
