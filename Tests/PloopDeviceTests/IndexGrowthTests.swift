import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("A lower delta that grows before it receives")
struct IndexGrowthTests {
  /// Clusters of 4 KiB: an index of one cluster is enough for 1,008 entries.
  private static func bytes(clusters: UInt64) -> UInt64 { clusters << 12 }

  @Test(
    "by no, one, two and more clusters of index, to the same disk and states",
    arguments: [(700, 900), (1008, 1009), (900, 2100), (600, 4000), (2000, 3500)],
    [ImageVersion.v1, .v2])
  func grows(sizes: (UInt64, UInt64), version: ImageVersion) throws {
    let (small, large) = (Self.bytes(clusters: sizes.0), Self.bytes(clusters: sizes.1))
    let bench = try ChainBench(
      growing: [small, large, large], clusterShift: 12, steps: 60, seed: sizes.0, version: version)
    try bench.check()
    try bench.merge(level: 0, .backward, limit: 16) { _ in try bench.exercise(1) }
    try bench.check("\(sizes)")
    #expect(try Device.header(of: bench.device.chain.deltas[0].file).sizeSectors == large / 512)
    try bench.exercise(20)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("what lies where the index will be is found all the time, and garbage becomes no entry")
  func relocation() throws {
    let bench = try ChainBench(
      growing: [Self.bytes(clusters: 600), Self.bytes(clusters: 5000)], clusterShift: 12,
      steps: 40, seed: 8)
    try bench.snapshot()
    let lower = bench.device.chain.deltas[0]
    let first = try #require(
      (0..<bench.geometry.clusterCount).first {
        try bench.device.map.place(of: $0) == Place(delta: lower.number, physical: 1)
      }, "the first cluster of the file is not to be seen")
    let merge = try DeltaMerge(of: bench.device, level: 0, .backward)
    try merge.prepare(until: .after(seconds: 20))
    let moved = try #require(try bench.device.map.place(of: first))
    #expect(moved.delta == lower.number)
    #expect(moved.physical >= bench.geometry.headerClusters)
    #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
    // Behind the last entry of the old size the index is zero, whatever was there.
    let file = lower.file
    let start = Int(Geometry.headerSlots + 600) * 4
    let rest = AlignedBuffer(count: Int(bench.geometry.headerBytes) - start)
    #expect(try file.read(into: rest.region, at: UInt64(start)) == rest.count)
    #expect(rest.region.isZero)
    merge.abandon(until: .after(seconds: 20))
    try bench.check()
    try bench.device.close()
  }

  @Test(
    "what an earlier change has moved, and told nobody, is found before its place is used",
    arguments: [MergeDirection.forward, .backward])
  func movedBefore(direction: MergeDirection) throws {
    // Backward the longer index takes the places, forward what is merged.
    let sizes = direction == .backward ? [600, 5000, 5000] : [600, 600, 600]
    let bench = try ChainBench(
      growing: sizes.map { Self.bytes(clusters: UInt64($0)) }, clusterShift: 12, steps: 40, seed: 8)
    let device = bench.device
    let receiver = direction == .backward ? 0 : 1
    let lower = device.chain.deltas[receiver]
    let shown = try (0..<600 as Range<UInt64>).filter {
      try device.map.place(of: $0)?.delta == lower.number
    }
    #expect(shown.count > 4)
    // All of it is moved to the end, so that only readers still know the old places.
    let tool = ForeignTool(in: bench.fixture.folder)
    let name = try bench.names()[receiver]
    let own = try tool.index(of: name)
    try tool.move(own.indices.filter { own[$0] != 0 }, in: name)
    try bench.merge(level: 0, direction)
    let content = bench.content
    #expect(try device.bytes(0, content.count) == content)
    try bench.check()
    try bench.device.close()
  }

  @Test("a fault at any call leaves a disk that reads right", arguments: [false, true])
  func faults(isKill: Bool) throws {
    for number in 0..<40 {
      let plan = FaultPlan { _, _, _ in nil }
      let bench = try ChainBench(
        growing: [Self.bytes(clusters: 600), Self.bytes(clusters: 2500)], clusterShift: 12,
        steps: 20, seed: 4, probe: plan)
      try bench.snapshot()
      try bench.device.flush()
      let calls = Locked(0)
      plan.replace { _, operation, _ in
        if case .read = operation { return nil }
        let call = calls.withLock { calls -> Int in
          calls += 1
          return calls - 1
        }
        return (isKill ? call >= number : call == number) ? .error(5) : nil
      }
      do {
        let merge = try DeltaMerge(of: bench.device, level: 0, .backward)
        do { try merge.prepare(until: .after(seconds: 20)) } catch {}
        #expect(try bench.device.bytes(0, bench.content.count) == bench.content, "call \(number)")
        merge.abandon(until: .after(seconds: 20))
      } catch {}
      #expect(try bench.device.bytes(0, bench.content.count) == bench.content, "call \(number)")
      if isKill { try? bench.device.close() }
      plan.replace { _, _, _ in nil }
      if !isKill { try bench.device.close() }
      try bench.reattach(repair: true)
      try bench.check("call \(number)")
      try bench.device.close()
    }
  }
}
