import CrashKit
import Glibc
import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Copies that share blocks")
struct SharedCopyTests {
  private static let sizeBytes: UInt64 = 41 << 16 - 4096

  /// A disk of 41 clusters, the last one partial, in a folder of its own; half of it is there.
  private func disk(_ bench: BackupBench, in path: String) throws -> Device {
    bench.write(stride(from: 0, to: 41, by: 2))
    bench.disk.clusters[6] = 0
    let folder = try ImageFolder(path: path)
    try ImageCreator.create(in: folder, name: "disk", geometry: bench.disk.geometry)
    func attach(_ options: AttachOptions) throws -> Device {
      try Device.attach(
        [
          DeltaSource(
            file: try folder.open("disk", writable: !options.readonly), folder: folder,
            name: "disk")
        ], options)
    }
    var options = AttachOptions.ofTests
    let device = try attach(options)
    let geometry = bench.disk.geometry
    let cluster = AlignedBuffer(count: Int(geometry.clusterBytes)).region
    for (number, value) in bench.disk.clusters.enumerated() {
      guard let value else { continue }
      let start = UInt64(number) * geometry.clusterBytes
      let part = cluster.slice(0, Int(min(geometry.clusterBytes, geometry.sizeBytes - start)))
      ModelDisk.fill(part, with: value)
      try device.write(part, at: start, durable: false)
    }
    try device.close()
    options.readonly = true
    return try attach(options)
  }

  /// - Returns: bytes that were read of the disk.
  private func copy(
    _ device: Device, _ bench: BackupBench, into folder: ImageFolder
  ) throws -> UInt64 {
    let sink = try FileTarget.image("out", in: folder, of: device.geometry)
    let copy = BackupCopy(from: DeviceSource(device), to: sink, on: bench.engine)
    while try copy.step(limitBytes: 1 << 20) { try copy.commit() }
    try copy.finish()
    return copy.progress.bytesRead
  }

  private func expectSame(_ bench: BackupBench, _ path: String) throws {
    try bench.saveRaw(bench.disk, "expected")
    try OpenVZ.expectSound(path)
    try QEMU.expectSound(path)
    try QEMU.convertToRaw(path, bench.path("seen"))
    try expectSameBytes(bench.path("seen"), bench.path("expected"))
  }

  @Test("nothing is read but what ends behind the disk")
  func shared() throws {
    let bench = try BackupBench(clusterShift: 16, sizeBytes: Self.sizeBytes)
    let folder = try TemporaryFolder()
    let device = try disk(bench, in: folder.path)
    let watched = try ImageFolder(
      path: bench.folder.path, probe: IOTrace(sharesBlocks: true))
    #expect(try copy(device, bench, into: watched) == 1 << 16)
    try device.close()
    try expectSame(bench, bench.path("out"))
  }

  @Test(
    "what cannot be shared, from some cluster on, is copied",
    arguments: [EOPNOTSUPP, ENOSPC], [0, 7])
  func refused(code: Int32, first: Int) throws {
    let bench = try BackupBench(clusterShift: 16, sizeBytes: Self.sizeBytes)
    let folder = try TemporaryFolder()
    let device = try disk(bench, in: folder.path)
    let clones = Locked(0)
    let plan = FaultPlan(sharesBlocks: true) { _, operation, _ in
      guard case .cloneRange = operation else { return nil }
      return clones.withLock { clones in
        clones += 1
        return clones > first ? .error(code) : nil
      }
    }
    let read = try copy(device, bench, into: ImageFolder(path: bench.folder.path, probe: plan))
    #expect(read > 0 && read < 21 << 16)
    try device.close()
    try expectSame(bench, bench.path("out"))
  }

  @Test(
    "on a file system that can they take no room, and are whole disks",
    arguments: [SmallFilesystem.Kind.xfs, .btrfs])
  func filesystems(kind: SmallFilesystem.Kind) throws {
    let bench = try BackupBench(clusterShift: 16, sizeBytes: Self.sizeBytes)
    let folder = try TemporaryFolder()
    let filesystem = try SmallFilesystem(in: folder, "fs", kind)
    let device = try disk(bench, in: filesystem.path)
    let target = try ImageFolder(path: filesystem.path)
    #expect(try copy(device, bench, into: target) == 1 << 16)
    try device.close()
    let out = "\(filesystem.path)/out"
    #expect(try filesystem.sharedExtents(of: out) > 0)
    try expectSame(bench, out)
    // What becomes of the one the other does not see.
    let file = try target.open("disk", writable: true)
    try file.write(
      AlignedBuffer([UInt8](repeating: 0x55, count: 40 << 16)).region,
      at: bench.disk.geometry.headerBytes)
    try QEMU.convertToRaw(out, bench.path("seen"))
    try expectSameBytes(bench.path("seen"), bench.path("expected"))
  }
}
