import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("A lower delta that a merge writes")
struct LowerReceiverTests {
  private static let cluster = 16 << 10

  private func fill(_ value: UInt8) -> [UInt8] { [UInt8](repeating: value, count: Self.cluster) }

  @Test("keeps what was merged into it where it could not be closed as a top")
  func unclosedBefore() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    for cluster in 0..<4 { try bench.write(cluster * Self.cluster, fill(UInt8(cluster + 1))) }
    try bench.snapshot()
    for cluster in 4..<6 { try bench.write(cluster * Self.cluster, fill(UInt8(cluster + 1))) }
    let receiver = "\(bench.fixture.folder.path)/\(try bench.names()[1])"
    let isFrozen = Locked(false)
    plan.replace { _, operation, path in
      if case .rename(let name) = operation, name.hasSuffix(Descriptor.fileName) {
        isFrozen.withLock { $0 = true }
      }
      guard case .sync = operation, path == receiver, isFrozen.withLock({ $0 }) else { return nil }
      return .error(5)
    }
    try bench.snapshot()
    plan.replace { _, _, _ in nil }
    #expect(plan.faultCount == 1)
    try bench.merge(level: 0)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("one that could not be closed and has gone is not taken for the one that has its number")
  func unclosedAndGone() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    try bench.write(0, fill(1))
    try bench.snapshot()
    try bench.write(Self.cluster, fill(2))
    let source = "\(bench.fixture.folder.path)/\(try bench.names()[1])"
    let isFrozen = Locked(false)
    plan.replace { _, operation, path in
      if case .rename(let name) = operation, name.hasSuffix(Descriptor.fileName) {
        isFrozen.withLock { $0 = true }
      }
      guard case .sync = operation, path == source, isFrozen.withLock({ $0 }) else { return nil }
      return .error(5)
    }
    try bench.snapshot()
    plan.replace { _, _, _ in nil }
    #expect(plan.faultCount == 1)
    let number = bench.device.chain.deltas[1].number
    #expect(bench.device.unclosed.withLock { $0.map(\.number) } == [number])
    try bench.merge(level: 1)
    #expect(bench.device.unclosed.withLock { $0.isEmpty })
    for cluster in 2..<4 {
      try bench.write(cluster * Self.cluster, fill(UInt8(cluster + 1)))
      try bench.snapshot()
    }
    #expect(bench.device.chain.deltas.contains { $0.number == number })
    let tool = ForeignTool(in: bench.fixture.folder)
    for delta in bench.device.chain.deltas.dropLast() {
      let index = try tool.index(of: delta.source.name)
      let had = try #require(delta.had.clusters)
      #expect(index.indices.allSatisfy { had.contains(UInt64($0)) == (index[$0] != 0) })
    }
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("has nothing of an extension that was interrupted in what was merged into it")
  func ragged() throws {
    let bench = try ChainBench()
    try bench.write(5 * Self.cluster, fill(7))
    try bench.snapshot()
    try bench.zero(clusters: 5..<6)
    try bench.snapshot()
    try bench.write(9 * Self.cluster, fill(8))
    try bench.snapshot()
    try bench.device.close()
    let file = try bench.fixture.folder.open(try bench.names()[2], writable: true)
    try file.write(AlignedBuffer([UInt8](repeating: 0xEE, count: 4_000)).region, at: file.size())
    try bench.reattach()
    // Zero over something has to stay, in a cluster of its own.
    try bench.merge(level: 1)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("has what was merged into it, also where giving the merge up has come to no end")
  func abandonedLate() throws {
    let bench = try ChainBench()
    for cluster in 0..<4 { try bench.write(cluster * Self.cluster, fill(UInt8(cluster + 1))) }
    try bench.snapshot()
    try bench.write(5 * Self.cluster, fill(9))
    try bench.snapshot()
    let receiver = bench.device.chain.deltas[1]
    let merge = try DeltaMerge(of: bench.device, level: 0)
    _ = try merge.step(limit: 8, on: bench.engine)
    // A request that does not end.
    let pass = try #require(bench.device.gate.enter())
    merge.abandon(until: .after(milliseconds: 20))
    bench.device.gate.leave(pass)
    #expect(bench.device.chain.deltas.count == 3)
    let index = try ForeignTool(in: bench.fixture.folder).index(of: receiver.source.name)
    let had = try #require(bench.device.chain.deltas[1].had.clusters)
    #expect(had.count == 5)
    #expect(index.indices.allSatisfy { had.contains(UInt64($0)) == (index[$0] != 0) })
    #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
    try bench.merge(level: 0)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("is not trusted again before the next attach where its sync has failed")
  func failedSync() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    for cluster in 0..<4 { try bench.write(cluster * Self.cluster, fill(UInt8(cluster + 1))) }
    try bench.snapshot()
    try bench.write(5 * Self.cluster, fill(9))
    try bench.snapshot()
    let receiver = "\(bench.fixture.folder.path)/\(try bench.names()[1])"
    let merge = try DeltaMerge(of: bench.device, level: 0)
    _ = try merge.step(limit: 8, on: bench.engine)
    plan.replace { _, operation, path in
      guard case .sync = operation, path == receiver else { return nil }
      return .error(5)
    }
    #expect(throws: DeviceError.self) { try merge.flush() }
    merge.abandon(until: .after(seconds: 20))
    plan.replace { _, _, _ in nil }
    // Its index in the page cache may name what no disk has: a merge that believed it would drop
    // the only copy.
    #expect(throws: DeviceError.self) { try DeltaMerge(of: bench.device, level: 0) }
    #expect(bench.device.failure == nil)
    try bench.exercise(5)
    #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
    try bench.device.close()
    try bench.reattach(repair: true)
    try bench.merge(level: 0)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("an empty image that becomes the top is durable under its name")
  func takenDurably() throws {
    let bench = try ChainBench()
    let trace = IOTrace()
    let other = try DiskFixture(probe: trace)
    try other.make("good", bench.geometry)
    let before = trace.events.count
    let top = try NewTop(taking: "good", in: other.folder, geometry: bench.geometry)
    let isSynced = trace.events[before...].contains { event in
      if case .folderSynced(let path) = event { path == other.folder.path } else { false }
    }
    #expect(isSynced)
    top.abandon()
    try bench.device.close()
  }
}
