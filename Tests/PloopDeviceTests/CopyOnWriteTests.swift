import Glibc
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

/// What a write reads of the deltas below, and what it has the file system share.
@Suite("Copy-on-write")
struct CopyOnWriteTests {
  private static let geometry = Geometry(
    version: .v2, clusterShift: 14, sizeBytes: 20 << 14 - 4096)
  private static let cluster = 1 << 14

  /// Calls that concern data, by the name of their file.
  private final class Calls: Sendable {
    private let found = Locked<[(name: String, operation: IOOperation)]>([])
    let headerBytes = CopyOnWriteTests.geometry.headerBytes

    func note(_ operation: IOOperation, _ path: String) {
      let name = String(path.split(separator: "/").last ?? "")
      found.withLock { $0.append((name, operation)) }
    }

    /// Clusters of a file of which something was read.
    func reads(of name: String) -> Set<UInt64> {
      Set(
        found.withLock { $0 }.compactMap { call in
          guard call.name == name, case .read(let offset, let count) = call.operation, count > 0,
            offset >= headerBytes
          else { return nil }
          return offset >> 14
        })
    }

    var clones: Int {
      found.withLock { $0 }.count { if case .cloneRange = $0.operation { true } else { false } }
    }

    /// How often room was reserved.
    var reservations: Int {
      found.withLock { $0 }.count { if case .allocate = $0.operation { true } else { false } }
    }

    func forget() { found.withLock { $0 = [] } }
  }

  /// A base with clusters 2 to 9 and the last one, and a top over it; the disk's content.
  private struct Bench {
    let disk: DiskFixture
    let calls = Calls()
    let device: Device
    var content: [UInt8]

    init(
      shares: Bool = false, keptBytes: UInt64 = 1,
      rule: @escaping @Sendable (IOOperation) -> IOFault? = { _ in nil }
    ) throws {
      let plan = FaultPlan(sharesBlocks: shares) { _, _, _ in nil }
      disk = try DiskFixture(probe: plan)
      content = [UInt8](repeating: 0, count: Int(geometry.sizeBytes))
      try disk.make("base", geometry)
      let base = try disk.attach(["base"])
      for number in Array(2..<10) + [19] {
        let start = number * cluster
        let bytes = [UInt8](
          repeating: UInt8(number + 1), count: min(cluster, content.count - start))
        try base.put(bytes, at: UInt64(start))
        content.replaceSubrange(start..<start + bytes.count, with: bytes)
      }
      try base.close()
      try disk.make("top", geometry)
      var options = AttachOptions.ofTests
      options.sharing.keptBytes = keptBytes
      device = try Device.attach(
        [try disk.source("base"), try disk.source("top", writable: true)], options)
      plan.replace { [calls] _, operation, path in
        calls.note(operation, path)
        return rule(operation)
      }
    }

    mutating func write(_ offset: Int, count: Int) throws {
      let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 / 512 + 100) }
      try device.put(bytes, at: UInt64(offset))
      content.replaceSubrange(offset..<offset + count, with: bytes)
    }

    mutating func zero(_ offset: Int, count: Int, keepAllocated: Bool) throws {
      try device.writeZeroes(
        offset: UInt64(offset), length: UInt64(count), keepAllocated: keepAllocated,
        onlyIfFast: false, durable: false)
      content.replaceSubrange(offset..<offset + count, with: repeatElement(0, count: count))
    }

    /// The disk holds what it has to, now and when it is attached again; the base is as it was.
    func end() throws {
      #expect(try device.bytes(0, content.count) == content)
      try device.close()
      let again = try disk.attach(["base", "top"], readonly: true)
      #expect(try again.bytes(0, content.count) == content)
      try again.close()
      let base = try disk.attach(["base"], readonly: true)
      for number in 2..<10 {
        let bytes = try base.bytes(UInt64(number * cluster), cluster)
        #expect(bytes.allSatisfy { $0 == UInt8(number + 1) }, "cluster \(number)")
      }
      try base.close()
    }
  }

  @Test("a write that covers a cluster never reads the old one", arguments: [false, true])
  func covered(shares: Bool) throws {
    var bench = try Bench(shares: shares)
    try bench.write(2 * Self.cluster, count: Self.cluster)
    try bench.write(4 * Self.cluster, count: 3 * Self.cluster)
    // The last cluster, of which the disk has no more.
    try bench.write(19 * Self.cluster, count: Self.cluster - 4096)
    #expect(bench.calls.reads(of: "base").isEmpty && bench.calls.clones == 0)
    // Covered in the middle only: both ends are copied.
    try bench.write(7 * Self.cluster + 512, count: 2 * Self.cluster)
    #expect(bench.calls.reads(of: "base").count == (shares ? 0 : 2))
    #expect(bench.calls.clones == (shares ? 2 : 0))
    try bench.end()
  }

  @Test("holes of the chain are never read, by reads or by writes", arguments: [false, true])
  func holes(shares: Bool) throws {
    var bench = try Bench(shares: shares)
    #expect(try bench.device.bytes(0, 2 * Self.cluster).allSatisfy { $0 == 0 })
    try bench.write(100, count: 512)
    try bench.write(12 * Self.cluster - 512, count: 1024)
    try bench.zero(13 * Self.cluster + 512, count: 512, keepAllocated: true)
    #expect(bench.calls.reads(of: "base").isEmpty && bench.calls.reads(of: "top").isEmpty)
    #expect(bench.calls.clones == 0)
    try bench.end()
  }

  @Test("a cluster of a lower delta without blocks is not read either", arguments: [false, true])
  func sparse(shares: Bool) throws {
    let bench = try Bench(shares: shares)
    try bench.device.close()
    let base = try bench.disk.folder.open("base", writable: true)
    let attached = try bench.disk.attach(["base"], readonly: true)
    let place = try #require(
      try attached.runs(offset: UInt64(5 * Self.cluster), length: 1, limit: 1).first?.physical)
    try attached.close()
    try base.punchHole(offset: place << 14, length: UInt64(Self.cluster))
    let device = try bench.disk.attach(["base", "top"])
    bench.calls.forget()
    try device.put([1, 2, 3], at: UInt64(5 * Self.cluster + 700))
    #expect(bench.calls.reads(of: "base").isEmpty && bench.calls.clones == 0)
    var expected = [UInt8](repeating: 0, count: Self.cluster)
    expected.replaceSubrange(700..<703, with: [1, 2, 3])
    #expect(try device.bytes(UInt64(5 * Self.cluster), Self.cluster) == expected)
    try device.close()
  }

  @Test("where blocks can be shared nothing is read or reserved, and the base stays as it is")
  func shared() throws {
    var bench = try Bench(shares: true)
    try bench.write(2 * Self.cluster, count: 4096)
    try bench.write(3 * Self.cluster + 512, count: 512)
    try bench.write(4 * Self.cluster - 100, count: 200)
    #expect(bench.calls.reservations == 0)
    try bench.zero(6 * Self.cluster + 1024, count: 5000, keepAllocated: false)
    try bench.zero(7 * Self.cluster + 1024, count: 5000, keepAllocated: true)
    #expect(bench.calls.reads(of: "base").isEmpty && bench.calls.clones == 5)
    #expect(bench.device.counters.values(inFlight: 0).copyOnWriteClusters == 5)
    // What is in the top now is written in place.
    try bench.write(3 * Self.cluster + 8192, count: 4096)
    #expect(bench.calls.clones == 5)
    try bench.end()
  }

  @Test("a small rest is copied, a large one is shared")
  func bounds() throws {
    var bench = try Bench(shares: true, keptBytes: 8192)
    try bench.write(2 * Self.cluster, count: 8192 + 512)
    #expect(bench.calls.clones == 0 && bench.calls.reservations == 1)
    try bench.write(3 * Self.cluster + 512, count: 8192)
    #expect(bench.calls.clones == 1 && bench.calls.reservations == 1)
    try bench.end()
  }

  @Test(
    "a host that cannot is asked once, one without room each time; what is broken fails the write",
    arguments: [EOPNOTSUPP, ENOSPC, EIO])
  func refused(code: Int32) throws {
    var bench = try Bench(shares: true) {
      guard case .cloneRange = $0 else { return nil }
      return .error(code)
    }
    for number in 2..<5 {
      let start = UInt64(number * Self.cluster + 512)
      guard code == EIO else {
        try bench.write(Int(start), count: 512)
        continue
      }
      #expect(throws: DeviceError.self) { try bench.device.put([1], at: start) }
    }
    #expect(bench.calls.clones == (code == EOPNOTSUPP ? 1 : 3))
    #expect(bench.calls.reads(of: "base").count == (code == EIO ? 0 : 3))
    try bench.end()
  }

  // MARK: Changes of a chain

  @Test("merges share what they move", arguments: [MergeDirection.forward, .backward], [7, 8])
  func merges(direction: MergeDirection, seed: UInt64) throws {
    let calls = Calls()
    let bench = try ChainBench(
      seed: seed,
      probe: FaultPlan(sharesBlocks: true) { _, operation, path in
        calls.note(operation, path)
        return nil
      })
    for _ in 0..<3 {
      try bench.exercise(25)
      try bench.snapshot()
    }
    try bench.exercise(10)
    calls.forget()
    let merged = try bench.merge(level: 1, direction).progress
    #expect(merged.copied > 0)
    // All but those that are zero over something.
    #expect(calls.clones > 0 && calls.clones <= Int(merged.copied), "seed \(seed)")
    try bench.check("seed \(seed)")
    try bench.exercise(20)
    try bench.merge(level: 1)
    try bench.check("seed \(seed)")
    try bench.checkSnapshots()
  }

  @Test("what moves to the front of a file is shared, what is put in order is written anew")
  func compaction() throws {
    let calls = Calls()
    let bench = try ChainBench(
      probe: FaultPlan(sharesBlocks: true) { _, operation, path in
        calls.note(operation, path)
        return nil
      })
    for cluster in (0..<40).reversed() {
      try bench.write(
        cluster << 14, [UInt8](repeating: UInt8(cluster + 1), count: Self.cluster))
    }
    try bench.zero(clusters: 20..<30)
    try bench.device.flush()
    calls.forget()
    let shrunk = try CompactionTests.compact(bench.device, [.shrink])
    #expect(shrunk.copied == 10 && calls.clones == 10)
    try bench.check("shrunk")
    calls.forget()
    let ordered = try CompactionTests.compact(bench.device, [.defragment])
    // Those who only made room; each cluster that has got its place was written there.
    #expect(ordered.copied >= 30 && calls.clones <= Int(ordered.copied) - 29)
    try bench.check("in order")
    try bench.device.close()
  }

  // MARK: File systems that can

  @Test(
    "on XFS and btrfs a chain of snapshots that share holds what it has to, merged and compacted",
    arguments: [SmallFilesystem.Kind.xfs, .btrfs])
  func filesystems(kind: SmallFilesystem.Kind) throws {
    let folder = try TemporaryFolder()
    let disk = try SmallFilesystem(in: folder, "fs", kind)
    let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 48 << 16)
    let bench = try ChainBench(geometry, beneath: disk.path, seed: 21)
    for cluster in 0..<40 {
      try bench.write(
        cluster << 16, [UInt8](repeating: UInt8(cluster + 1), count: 1 << 16))
    }
    try bench.snapshot()
    for cluster in 0..<40 { try bench.write(cluster << 16 + 8192, [1, 2, 3, UInt8(cluster)]) }
    let top = try #require(try bench.names().last)
    #expect(try disk.sharedExtents(of: "\(bench.fixture.folder.path)/\(top)") >= 40)
    try bench.check("copied")
    try bench.exercise(30)
    try bench.snapshot()
    try bench.exercise(30)
    try bench.snapshot()
    try bench.exercise(30)
    try bench.check("used")
    try bench.merge(level: 1, .backward)
    try bench.check("backward")
    try bench.merge(level: 0)
    try bench.check("between")
    try bench.zero(clusters: 3..<9)
    try bench.device.flush()
    try CompactionTests.compact(bench.device, Set(Compaction.Part.allCases))
    try bench.check("compacted")
    try bench.merge(level: 0)
    try bench.check("merged")
    try bench.checkSnapshots()
    for name in try bench.names() {
      let path = "\(bench.fixture.folder.path)/\(name)"
      try QEMU.expectSound(path)
      try OpenVZ.expectSound(path)
    }
  }
}
