import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("A physical offset that 32 bits of sectors cannot say")
struct FarOffsetTests {
  @Test("is read and written where the entry points, not where a shortened number would")
  func farEntries() throws {
    let bench = try Bench()
    let geometry = Geometry(version: .v2, clusterShift: 20, sizeBytes: 64 << 20)
    // Cluster 1, and the two that are cluster 1 as well when their offset loses bits 41 and 42.
    let places: [UInt64] = [1, 1 + 2 << 20, 1 + 4 << 20]
    try bench.makeImage(
      "top", geometry,
      entries: Dictionary(uniqueKeysWithValues: places.enumerated().map { (UInt64($0), $1) }))
    for (place, mark) in zip(places, [0x11, 0x22, 0x33] as [UInt8]) {
      try bench.overwrite("top", at: place << 20, with: [mark, mark])
    }

    let device = try bench.attach(["top"])
    for (cluster, mark) in [(0, 0x11), (1, 0x22), (2, 0x33)] as [(UInt64, UInt8)] {
      #expect(try device.bytes(cluster << 20, 3) == [mark, mark, 0xA1])
      try device.put([mark + 1], at: cluster << 20 + 1)
    }
    for (place, mark) in zip(places, [0x11, 0x22, 0x33] as [UInt8]) {
      #expect(try bench.bytes("top", at: place << 20, count: 3) == [mark, mark + 1, 0xA1])
    }
    // Trimmed and written anew: the far clusters go back to the file system.
    try device.discard(offset: 1 << 20, length: 2 << 20, durable: true)
    try device.put([0x44], at: 2 << 20)
    try device.close()
    #expect(try bench.sizeBytes("top") == 3 << 20)
    try QEMU.expectSound(bench.path("top"))
  }

  @Test(
    "is allocated when everything below is in use, and QEMU finds it there",
    arguments: [2 << 40, 4 << 40] as [UInt64])
  func farAllocation(boundary: UInt64) throws {
    let bench = try Bench()
    let shift: UInt64 = 26
    let mapped = boundary >> shift
    let geometry = Geometry(
      version: .v2, clusterShift: Int(shift), sizeBytes: (mapped + 8) << shift)
    try makeFull(bench, geometry, mapped: mapped)

    let device = try bench.attach(["top"])
    #expect(device.mappedClusters == mapped)
    let next = mapped + 3
    try device.put([0x55, 0x66], at: next << shift)
    let run = try #require(
      try device.runs(offset: next << shift, length: 1 << shift, limit: 1).first)
    #expect(run.physical == mapped + 1)
    #expect(try device.bytes(next << shift, 3) == [0x55, 0x66, 0])
    #expect(try bench.bytes("top", at: (mapped + 1) << shift, count: 3) == [0x55, 0x66, 0])
    // Nothing wrapped to the start of the file.
    #expect(try bench.bytes("top", at: 1 << shift, count: 2) == [0, 0])
    try device.close()

    #expect(try bench.sizeBytes("top") == (mapped + 2) << shift)
    try QEMU.expectSound(bench.path("top"))
    let read = try Tool.shell(
      """
      qemu-io -r -f parallels -c 'read -P 0x55 \(next << shift) 1' \
      -c 'read -P 0x66 \(next << shift + 1) 1' '\(bench.path("top"))'
      """)
    #expect(!read.output.contains("failed"), "\(read.output)")
    let again = try bench.attach(["top"])
    #expect(try again.bytes(next << shift, 3) == [0x55, 0x66, 0])
    try again.close()
  }

  @Test("is where version 1 ends: the last cluster below is allocated, and QEMU finds it")
  func version1Last() throws {
    let bench = try Bench()
    let geometry = version1()
    try makeFull(bench, geometry, mapped: geometry.clusterCount - 1)
    let last = (geometry.clusterCount - 1) << 26
    let device = try bench.attach(["top"])
    try device.put([0x55], at: last)
    #expect(try device.runs(offset: last, length: 1, limit: 1).first?.physical == 32767)
    try device.close()
    try QEMU.expectSound(bench.path("top"))
    let read = try Tool.shell(
      "qemu-io -r -f parallels -c 'read -P 0x55 \(last) 1' '\(bench.path("top"))'")
    #expect(!read.output.contains("failed"), "\(read.output)")
  }

  @Test("is never allocated in version 1: the disk is the image is full, and what it has stays")
  func version1Full() throws {
    let bench = try Bench()
    // With an index of two clusters, one cluster of the disk has no place left.
    let geometry = version1(entryCount: 1 << 24)
    try #require(geometry.headerClusters == 2)
    try makeFull(bench, geometry, mapped: geometry.clusterCount - 1)
    let last = (geometry.clusterCount - 1) << 26
    let device = try bench.attach(["top"])
    let error = #expect(throws: DeviceError.self) { try device.put([0x55], at: last) }
    guard case .imageFull? = error?.kind else {
      Issue.record("failed as \(String(describing: error))")
      return
    }
    #expect(device.failure == nil)
    try device.put([0x66], at: last - 1)
    // A trimmed cluster makes room.
    try device.discard(offset: 0, length: 1 << 26, durable: true)
    try device.put([0x55], at: last)
    #expect(try device.bytes(last - 1, 3) == [0x66, 0x55, 0])
    try device.close()
    try QEMU.expectSound(bench.path("top"))
  }

  /// The largest version 1 disk, in clusters of 64 MiB.
  private func version1(entryCount: UInt64? = nil) -> Geometry {
    Geometry(
      version: .v1, clusterShift: 26, sizeBytes: Geometry.sizeLimit(version: .v1, clusterShift: 26),
      entryCount: entryCount)
  }

  /// An image with the first `mapped` clusters in a row behind its header, all holes in the file.
  private func makeFull(_ bench: Bench, _ geometry: Geometry, mapped: UInt64) throws {
    try bench.makeImage("top", geometry)
    let index = AlignedBuffer(count: Int(mapped) * 4)
    let first = geometry.headerClusters
    for cluster in 0..<mapped {
      index.region.setLittleEndian(geometry.entry(of: first + cluster), at: Int(cluster) * 4)
    }
    try bench.overwrite("top", at: 64, with: index.region.bytes)
    try bench.changeHeader("top") { $0.flags = 0 }
    try bench.truncate("top", to: (first + mapped) << UInt64(geometry.clusterShift))
  }
}
