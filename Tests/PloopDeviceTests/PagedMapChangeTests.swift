import PloopFormat
import PloopIO
import Synchronization
import TestSupport
import Testing

@testable import PloopDevice

/// What pages of the map say of a chain that changes, when they come and go at the worst moment
/// (docs/locking.md, "Pages of maps").
@Suite("Pages of the map while a chain changes")
struct PagedMapChangeTests {
  private static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 5_200 << 12)

  private static func pool(_ frames: Int) -> FramePool {
    FramePool(budgetBytes: frames * FramePool.frameBytes)
  }

  /// Does something once, when the descriptor takes its new name: the files are ready by then, and the map has
  /// not been told.
  private final class AtRename: Sendable {
    private struct Work { var body: (@Sendable () -> Void)? }
    private let work = Locked(Work())

    var plan: FaultPlan {
      FaultPlan { [self] _, operation, _ in
        guard case .rename(let name) = operation, name.hasSuffix(Descriptor.fileName) else {
          return nil
        }
        return work.withLock { work in
          defer { work.body = nil }
          return work.body.map { .stall($0) }
        }
      }
    }

    func set(_ body: @escaping @Sendable () -> Void) { work.withLock { $0.body = body } }
    var isDone: Bool { work.withLock { $0.body == nil } }
  }

  @Test(
    "a page that somebody outside reads between a merge's last look and its end names no delta that is gone",
    arguments: [MergeDirection.forward, .backward])
  func readBetween(direction: MergeDirection) throws {
    let moment = AtRename()
    let bench = try ChainBench(
      Self.geometry, seed: 3, probe: moment.plan, indexCache: Self.pool(1))
    let cluster: UInt64 = 2_000
    try bench.write(Int(cluster) << 12, [7])
    try bench.snapshot()
    try bench.write(4_000 << 12, [8])
    if direction == .backward { try bench.write(Int(cluster) << 12, [9]) }
    try bench.snapshot()
    let device = bench.device
    moment.set {
      // Met again, it is worth the only frame.
      for _ in 0..<3 { _ = try? device.map.run(from: cluster, limit: 1) }
    }
    try bench.merge(level: 0, direction)
    #expect(moment.isDone)
    #expect(try device.bytes(cluster << 12, 1) == [direction == .forward ? 7 : 9])
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("a page of the disk is larger than the deltas of a merge that is given up")
  func smallDeltas() throws {
    let bench = try ChainBench(growing: [64 << 12, 64 << 12, 400 << 12], clusterShift: 12, seed: 4)
    try bench.exercise(20)
    for steps in [0, 2, 100] {
      let merge = try DeltaMerge(of: bench.device, level: 0, .backward)
      for _ in 0..<steps {
        guard try merge.step(limit: 3, on: bench.engine) != nil else { break }
      }
      merge.abandon(until: .after(seconds: 120))
      try bench.check("after \(steps) steps")
      try bench.exercise(2)
    }
    try bench.merge(level: 0, .backward)
    try bench.check()
  }

  @Test(
    "what another program has lost or put into a lower delta is found, however little is in memory",
    arguments: [0, 1])
  func foreign(frames: Int) throws {
    let bench = try ForeignBench(seed: 9, indexCache: Self.pool(frames))
    let own = try #require(bench.owned(3).first)
    let before = try bench.tool.index(of: "d3")
    try bench.merge(2, .forward)
    let merged = try bench.tool.index(of: "d3")
    let foreign = try #require(bench.owned(0).first { merged[$0] == 0 })
    try bench.tool.set([own: 0], in: "d3")
    #expect(try bench.refusal { try bench.notify(2, .forward) } == "index-mismatch")
    try bench.tool.set([own: before[own]], in: "d3")
    let places = try bench.tool.move([own], in: "d3")
    try bench.tool.set([own: merged[own], foreign: places[0]], in: "d3")
    #expect(try bench.refusal { try bench.notify(2, .forward) } == "index-mismatch")
    try bench.tool.set([foreign: 0], in: "d3")
    try bench.notify(2, .forward)
    try bench.check()
    // What was taken is what it had, the next time.
    try bench.merge(2, .backward)
    try bench.notify(2, .backward)
    try bench.check()
    try bench.device.close()
  }

  @Test("a delta that is added is read, also where a page was dropped that had nothing in it")
  func added() throws {
    let pool = Self.pool(1)
    let fixture = try DiskFixture(indexCache: pool)
    let clusters: [UInt64] = [100, 2_000, 4_000]
    for name in ["low", "top"] { try fixture.make(name, Self.geometry) }
    let low = try fixture.attach(["low"], locks: [])
    for cluster in clusters { try low.put([5], at: cluster << 12) }
    try low.close()
    let device = try fixture.attach(["top"], locks: [])
    try device.suspend(until: .after(seconds: 120))
    // In memory, and empty.
    let pages = clusters.map { Geometry.position(of: $0).page }
    try device.map.pin(pages[1])
    device.map.unpin(pages[1])
    #expect(device.map.table.isResident(page: pages[1]) && device.map.table.isEmpty(page: pages[1]))
    try device.addDelta(try fixture.source("low"), until: .after(seconds: 120)) {
      _ throws(DeviceError) in
      // The only frame is another page's from here on.
      try device.map.pin(pages[2])
      device.map.unpin(pages[2])
    }
    #expect(!device.map.table.isEmpty(page: pages[1]))
    device.resume()
    for cluster in clusters { #expect(try device.bytes(cluster << 12, 1) == [5]) }
    #expect(device.mappedClusters == UInt64(clusters.count))
    try device.close()
  }

  @Test("whether zeroing would be quick is asked inside the gate only")
  func fastZero() throws {
    let fixture = try DiskFixture(indexCache: Self.pool(0))
    try fixture.make("top", Self.geometry)
    let device = try fixture.attach(["top"])
    try device.requireFastZero(offset: 0, length: 100)
    try device.detach(until: .after(seconds: 120))
    #expect(throws: DeviceError.self) { try device.requireFastZero(offset: 0, length: 100) }
  }

  @Test("which clusters a delta had")
  func had() {
    var clusters = MappedClusters()
    #expect(!clusters.contains(0) && clusters.pages.isEmpty)
    clusters.insert(IndexRun(cluster: 1_000, physical: 9, count: 100))
    clusters.insert(IndexRun(cluster: 5_000, physical: 1, count: 1))
    #expect(clusters.pages == [0, 1, 4])
    let found = (0..<6_000 as Range<UInt64>).filter(clusters.contains)
    #expect(found == Array(1_000..<1_100) + [5_000])
  }
}
