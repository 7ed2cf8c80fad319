import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("Growing a disk whose file holds more than it should")
struct ResizeEdgeTests {
  private func grow(_ device: Device, to clusters: UInt64) throws {
    let deadline = Deadline.after(seconds: 300)
    let resize = try Resize(of: device, to: clusters << 12, until: deadline)
    while try resize.step(limit: 1, until: deadline) != nil {}
    try resize.prepare(until: deadline)
    _ = try resize.finish(descriptor: nil, until: deadline)
  }

  private func fill(_ fixture: DiskFixture, _ name: String, _ clusters: Range<UInt64>) throws {
    let file = try fixture.folder.open(name, writable: true)
    let garbage = AlignedBuffer([UInt8](repeating: 0xEE, count: 4096)).region
    for cluster in clusters { try file.write(garbage, at: cluster << 12) }
  }

  private func set(_ fixture: DiskFixture, _ name: String, entry: Int, to physical: UInt8) throws {
    let file = try fixture.folder.open(name, writable: true)
    try file.write(AlignedBuffer([physical, 0, 0, 0]).region, at: UInt64(64 + entry * 4))
  }

  @Test("whatever lies where the longer index will be, no entry comes of it")
  func garbage() throws {
    let fixture = try DiskFixture()
    try fixture.make("a", Geometry(version: .v2, clusterShift: 12, sizeBytes: 1000 << 12))
    // Free clusters with something in them, and one that an entry names.
    try fill(fixture, "a", 1..<9)
    try set(fixture, "a", entry: 7, to: 2)
    try set(fixture, "a", entry: 8, to: 8)
    let device = try fixture.attach(["a"])
    try grow(device, to: 4000)
    var expected = [UInt8](repeating: 0, count: 4000 << 12)
    for cluster in [7, 8] {
      expected.replaceSubrange(
        cluster << 12..<(cluster + 1) << 12, with: repeatElement(0xEE, count: 4096))
    }
    #expect(try device.bytes(0, expected.count) == expected)
    try device.close()
    let again = try fixture.attach(["a"])
    #expect(again.geometry.clusterCount == 4000)
    #expect(try again.bytes(0, expected.count) == expected)
    try again.close()
  }

  @Test("an image of version 1 grows as well")
  func oldVersion() throws {
    let fixture = try DiskFixture()
    let old = Geometry(version: .v1, clusterShift: 12, sizeBytes: 1000 << 12)
    try fixture.make("a", old)
    let device = try fixture.attach(["a"])
    for cluster in 0..<6 {
      try device.put([UInt8](repeating: UInt8(cluster + 1), count: 4096), at: UInt64(cluster) << 12)
    }
    try grow(device, to: 4000)
    try device.put([9], at: 4000 << 12 - 1)
    try device.close()
    let again = try fixture.attach(["a"])
    #expect(again.geometry.clusterCount == 4000 && again.geometry.version == .v1)
    for cluster in 0..<6 {
      #expect(try again.bytes(UInt64(cluster) << 12, 1) == [UInt8(cluster + 1)])
    }
    #expect(try again.bytes(4000 << 12 - 2, 2) == [0, 9])
    try again.close()
  }

  @Test(
    "a partial last cluster that a lower delta has shows zeroes behind its old end, and below nothing changes"
  )
  func lowerTail() throws {
    let fixture = try DiskFixture()
    let old = Geometry(version: .v2, clusterShift: 12, sizeBytes: 10 << 12 - 1024)
    for name in ["a", "b"] { try fixture.make(name, old) }
    try fill(fixture, "a", 1..<2)
    try set(fixture, "a", entry: 9, to: 1)
    let device = try fixture.attach(["a", "b"])
    try grow(device, to: 20)
    let tail = [UInt8](repeating: 0xEE, count: 3072) + [UInt8](repeating: 0, count: 5120)
    #expect(try device.bytes(9 << 12, 8192) == tail)
    try device.close()
    let again = try fixture.attach(["a", "b"])
    #expect(try again.bytes(9 << 12, 8192) == tail)
    try again.close()
    let file = try fixture.folder.open("a", writable: false)
    let bytes = AlignedBuffer(count: 4096)
    _ = try file.read(into: bytes.region, at: 4096)
    #expect(bytes.region.bytes.allSatisfy { $0 == 0xEE })
  }

  @Test("a cluster that is moved is read meanwhile, and written when it has its place")
  func moving() throws {
    let bench = try ChainBench(
      Geometry(version: .v2, clusterShift: 12, sizeBytes: 100 << 12), seed: 1)
    try bench.write(0, [UInt8](repeating: 3, count: 8192))
    let device = bench.device
    device.moving.begin([1])
    #expect(try device.bytes(4096, 4) == [3, 3, 3, 3])
    #expect(!device.writeNow(AlignedBuffer([4]).region, at: 4096))
    #expect(device.writeNow(AlignedBuffer([4]).region, at: 0))
    let isWritten = Monitor(false)
    let writer = try Thread(name: "writer") {
      #expect(throws: Never.self) { try device.put([5, 6], at: 4095) }
      isWritten.update { $0 = true }
    }
    // It leaves the gate to wait: whoever moves the cluster waits for those inside, and not for it.
    #expect(device.gate.awaitLeavers(until: .after(seconds: 300)))
    #expect(!isWritten.withLock { $0 })
    device.moving.end([1])
    writer.join()
    #expect(try device.bytes(4094, 4) == [3, 5, 6, 3])
    try device.close()
  }

  @Test("tracking goes on over what has come, and marks nothing that was only moved")
  func tracked() throws {
    let bench = try ChainBench(
      Geometry(version: .v2, clusterShift: 12, sizeBytes: 1000 << 12), seed: 1)
    try bench.write(0, [UInt8](repeating: 3, count: 8192))
    let tracker = try Tracker(.virtual, of: bench.device, until: .after(seconds: 300)) {}
    try grow(bench.device, to: 3000)
    #expect(tracker.marks.take(.max).taken == [])
    try bench.device.put([1], at: 2999 << 12)
    #expect(tracker.marks.take(.max).taken == [2999])
    try tracker.end(until: .after(seconds: 300))
    try bench.device.close()
  }

  @Test("a descriptor that is behind its header is completed, and one that is not stays as it is")
  func completed() throws {
    let bench = try ChainBench(
      Geometry(version: .v2, clusterShift: 12, sizeBytes: 1000 << 12), seed: 1)
    #expect(try !ChainChange.completeResize(bench.file, of: bench.device))
    try grow(bench.device, to: 1500)
    #expect(try bench.file.read().sizeSectors == 8000)
    #expect(try ChainChange.completeResize(bench.file, of: bench.device))
    #expect(try bench.file.read().sizeSectors == 12_000)
    #expect(try !ChainChange.completeResize(bench.file, of: bench.device))
    try bench.device.close()
  }
}
