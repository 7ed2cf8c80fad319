import PloopFormat
import PloopIO
import Synchronization
import TestSupport
import Testing

@testable import PloopDevice

@Suite("Growing a disk")
struct ResizeTests {
  /// Clusters of 4 KiB: an index cluster holds 1,024 entries, the first 1,008.
  private static func geometry(clusters: UInt64) -> Geometry {
    Geometry(version: .v2, clusterShift: 12, sizeBytes: clusters << 12)
  }

  @discardableResult
  private static func grow(
    _ device: Device, to clusters: UInt64, _ file: DescriptorFile? = nil, limit: Int = 3,
    between: () throws -> Void = {}
  ) throws -> (total: UInt64, copied: UInt64) {
    let (size, deadline) = (clusters << 12, Deadline.after(seconds: 300))
    let change = file.map { ChainChange(of: $0, device: "disk", helpers: .nobody { false }) }
    let resize =
      try change?.beginResize(device, to: size, until: deadline)
      ?? Resize(of: device, to: size, until: deadline)
    var copied: UInt64 = 0
    while let step = try resize.step(limit: limit, until: deadline) {
      copied += step.copied
      try between()
    }
    try resize.prepare(until: deadline)
    _ =
      try change?.finish(resize, until: deadline)
      ?? resize.finish(descriptor: nil, until: deadline)
    return (resize.totalClusters, copied)
  }

  @Test(
    "moves what is in the way of a longer index, and nothing else",
    arguments: [
      // clusters before, after; index clusters that are added
      (100, 200, 0), (1000, 1009, 1), (1000, 4081, 4), (1008, 1009, 1), (10, 1008, 0),
      (1032, 2033, 1),
    ])
  func relocates(before: UInt64, after: UInt64, added: UInt64) throws {
    let bench = try ChainBench(Self.geometry(clusters: before), seed: before + after)
    // Neighbours in the file, from its beginning on: the first `added` are in the way.
    for cluster in 0..<60 where UInt64(cluster) < before {
      try bench.write(cluster * 4096, [UInt8](repeating: UInt8(cluster + 1), count: 4096))
    }
    try bench.device.flush()
    let (total, copied) = try Self.grow(bench.device, to: after, bench.file)
    #expect(total == added)
    #expect(copied == added)
    #expect(bench.device.geometry == Self.geometry(clusters: after))
    try bench.expectGrown(to: after)
    // The new part can be used at once, its last cluster included.
    try bench.write(Int(after - 1) * 4096 + 7, [7, 8, 9])
    try bench.write(Int(before) * 4096 - 2, [1, 2, 3, 4])
    try bench.check("after the grow")
    try bench.device.close()
    try bench.reattach()
    #expect(try bench.file.read().sizeSectors == after << 3)
    try bench.check("after another attach")
  }

  @Test("grows again and again, with snapshots between, and every snapshot stays as it was")
  func growsAgain() throws {
    let bench = try ChainBench(Self.geometry(clusters: 700), seed: 5)
    var size: UInt64 = 700
    for next in [900, 1100, 1101, 2100] as [UInt64] {
      try bench.exercise(60)
      try Self.grow(bench.device, to: next, bench.file)
      try bench.expectGrown(to: next)
      size = next
      try bench.exercise(20)
      try bench.check("\(size) clusters")
      try bench.snapshot()
    }
    try bench.exercise(40)
    // A smaller delta below a larger one is merged like any other.
    while bench.device.levels().count > 1 { try bench.merge(level: 0) }
    try bench.check("after the merges")
    try bench.checkSnapshots()
  }

  @Test("refuses what is no larger disk, and changes nothing")
  func refusals() throws {
    let bench = try ChainBench(Self.geometry(clusters: 100))
    func refusal(_ bytes: UInt64) -> DeviceError.Kind? {
      do throws(DeviceError) {
        _ = try Resize(of: bench.device, to: bytes, until: .after(seconds: 60))
      } catch { return error.kind }
      return nil
    }
    func isShrinking(_ bytes: UInt64) -> Bool {
      if case .shrinks? = refusal(bytes) { true } else { false }
    }
    func fault(_ bytes: UInt64) -> NewDiskFault? {
      if case .size(let fault)? = refusal(bytes) { fault } else { nil }
    }
    #expect(isShrinking(99 << 12) && isShrinking(0))
    #expect(fault(101 << 12 + 512) == .misaligned(nearestBytes: [101 << 12, 102 << 12]))
    let limit = Geometry.sizeLimit(version: .v2, clusterShift: 12)
    #expect(fault(UInt64.max << 12) == .tooLarge(limitBytes: limit))
    #expect(fault(limit + 4096) == .tooLarge(limitBytes: limit))
    try bench.check("after refusals")
  }

  @Test("a disk whose last cluster is partial shows zeroes behind its old end")
  func partialTail() throws {
    let fixture = try DiskFixture()
    let old = Geometry(version: .v2, clusterShift: 12, sizeBytes: 10 << 12 - 1024)
    try fixture.make("a", old)
    // Another program has left bytes behind the end of the disk.
    let file = try fixture.folder.open("a", writable: true)
    try file.write(AlignedBuffer([UInt8](repeating: 0xEE, count: 4096)).region, at: 4096)
    try file.write(AlignedBuffer([1, 0, 0, 0]).region, at: 64 + 9 * 4)
    let device = try fixture.attach(["a"])
    try Self.grow(device, to: 20)
    let tail = try device.bytes(9 << 12, 8192)
    #expect(tail == [UInt8](repeating: 0xEE, count: 3072) + [UInt8](repeating: 0, count: 5120))
    try device.close()
  }

  @Test(
    "what is written, trimmed and read meanwhile is as if nothing had happened", arguments: 1...4)
  func underLoad(seed: UInt64) throws {
    let clusters = 900
    let bench = try ChainBench(Self.geometry(clusters: UInt64(clusters)), seed: seed)
    for cluster in 0..<200 {
      try bench.write(cluster * 4096, [UInt8](repeating: UInt8(cluster & 0x7F + 1), count: 4096))
    }
    let device = bench.device
    // Four writers, each with clusters of its own among those in the way and others.
    let isOver = Atomic(false)
    let content = Locked(bench.content)
    let failures = Locked<[String]>([])
    let workers = try (0..<4).map { worker in
      try Thread(name: "guest") {
        var random = SeededGenerator(seed: seed &* 31 &+ UInt64(worker))
        while !isOver.load(ordering: .acquiring) {
          let cluster = worker + 4 * Int.random(in: 0..<50, using: &random)
          let offset = cluster * 4096 + Int.random(in: 0..<2048, using: &random)
          do {
            switch Int.random(in: 0..<8, using: &random) {
            case 0:
              try device.discard(offset: UInt64(cluster * 4096), length: 4096, durable: false)
              content.withLock {
                $0.replaceSubrange(
                  cluster * 4096..<(cluster + 1) * 4096, with: repeatElement(0, count: 4096))
              }
            case 1:
              let expected = content.withLock { Array($0[cluster * 4096..<(cluster + 1) * 4096]) }
              guard try device.bytes(UInt64(cluster * 4096), 4096) == expected else {
                failures.withLock { $0.append("cluster \(cluster) reads wrong") }
                return
              }
            case 2: try device.flush()
            default:
              let bytes = [UInt8](
                repeating: UInt8.random(in: 1...255, using: &random), count: 1024)
              try device.put(bytes, at: UInt64(offset))
              content.withLock { $0.replaceSubrange(offset..<offset + 1024, with: bytes) }
            }
          } catch {
            failures.withLock { $0.append("\(error)") }
            return
          }
        }
      }
    }
    for size in [1200, 2100, 3100] as [UInt64] {
      try Self.grow(device, to: size, bench.file, limit: 2)
    }
    isOver.store(true, ordering: .releasing)
    workers.forEach { $0.join() }
    #expect(failures.withLock { $0 } == [])
    bench.content = content.withLock { $0 }
    try bench.expectGrown(to: 3100)
    try bench.check("seed \(seed)")
    try device.close()
    try bench.reattach()
    try bench.check("attached again, seed \(seed)")
  }

  @Test("is given up with everything as it was, and begun again")
  func abandoned() throws {
    let bench = try ChainBench(Self.geometry(clusters: 1000), seed: 3)
    try bench.exercise(100)
    try bench.device.flush()
    let holes = bench.device.holesInTop
    let resize = try Resize(of: bench.device, to: 3000 << 12, until: .after(seconds: 60))
    _ = try resize.step(limit: 2, until: .after(seconds: 60))
    try resize.abandon(until: .after(seconds: 60))
    try bench.exercise(50)
    try bench.check("given up")
    #expect(bench.device.geometry.clusterCount == 1000)
    try bench.device.flush()
    #expect(bench.device.holesInTop < holes + 60)
    try Self.grow(bench.device, to: 3000, bench.file)
    try bench.expectGrown(to: 3000)
    try bench.exercise(50)
    try bench.check("grown after all")
  }

  @Test("is given up without an index being read while everybody waits")
  func abandonedOutside() throws {
    let gate = Locked<Gate?>(nil)
    let (readsOpen, readsClosed) = (Locked(0), Locked(0))
    let plan = FaultPlan { _, operation, _ in
      guard case .read(let offset, _) = operation, offset < 4096,
        let gate = gate.withLock({ $0 })
      else { return nil }
      (gate.isClosed ? readsClosed : readsOpen).withLock { $0 += 1 }
      return nil
    }
    // Nothing of the index is in memory.
    let bench = try ChainBench(
      Self.geometry(clusters: 1000), probe: plan, indexCache: FramePool(budgetBytes: 0))
    for cluster in 0..<20 {
      try bench.write(cluster * 4096, [UInt8](repeating: UInt8(cluster + 1), count: 4096))
    }
    try bench.device.flush()
    let resize = try Resize(of: bench.device, to: 3000 << 12, until: .after(seconds: 120))
    _ = try resize.step(limit: 1, until: .after(seconds: 120))
    gate.withLock { $0 = bench.device.gate }
    try resize.abandon(until: .after(seconds: 120))
    gate.withLock { $0 = nil }
    #expect(readsClosed.withLock { $0 } == 0)
    #expect(readsOpen.withLock { $0 } > 0)
    try bench.check("given up")
  }

  @Test("nothing beyond the old end is reachable before the size is durable")
  func order() throws {
    let trace = IOTrace()
    let bench = try ChainBench(Self.geometry(clusters: 1000), probe: trace)
    try bench.exercise(30)
    try bench.device.flush()
    let start = trace.events.count
    try Self.grow(bench.device, to: 3000, bench.file)
    let events = trace.events[start...].filter { event in
      switch event {
      case .write(let path, _, _): path.hasSuffix("root.hds")
      case .synced(let path): path.hasSuffix("root.hds")
      case .rename: true
      default: false
      }
    }
    // The header is written between two syncs, and the descriptor is renamed behind it.
    let header = try #require(
      events.lastIndex { event in
        if case .write(_, 0, let bytes) = event { bytes.count == Header.byteCount } else { false }
      })
    guard case .synced = events[header - 1], case .synced = events[header + 1],
      case .rename = events[header + 2]
    else {
      Issue.record("another order")
      return
    }
  }
}
