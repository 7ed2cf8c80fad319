import Glibc
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("A disk without room")
struct RoomTests {
  private static let cluster = 16 << 10

  @Test(
    "a step of a merge that finds no room counts what it has moved, and the next goes on behind that",
    arguments: [MergeDirection.forward, .backward], 0..<12)
  func steps(direction: MergeDirection, fails: Int) throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(seed: 4, probe: plan)
    for cluster in 0..<12 {
      try bench.write(cluster * Self.cluster, [UInt8](repeating: 7, count: Self.cluster))
    }
    let older = try bench.snapshot()
    for cluster in 12..<24 {
      try bench.write(cluster * Self.cluster, [UInt8](repeating: 8, count: Self.cluster))
    }
    try bench.snapshot()
    let before = try bench.file.read()
    let chain = try before.chain(to: before.topGUID)
    let merge = try DeltaMerge(of: bench.device, level: 0, direction)
    try merge.prepare(until: .after(seconds: 20))
    let writes = Locked(0)
    plan.replace { _, operation, _ in
      guard case .write = operation else { return nil }
      return writes.withLock { writes in
        writes += 1
        return writes == fails + 1 ? .error(ENOSPC) : nil
      }
    }
    var done: UInt64 = 0
    var refusals = 0
    while true {
      #expect(merge.stepBytes(limit: 5) <= (merge.totalClusters - done) << 14)
      do throws(DeviceError) {
        guard let step = try merge.step(limit: 5, on: bench.engine) else { break }
        done += step.clusters
      } catch {
        guard case .outOfSpace = error.kind else { throw error }
        refusals += 1
      }
    }
    plan.replace { _, _, _ in nil }
    #expect(refusals <= 1)
    #expect(done == 12 && merge.totalClusters == 12 && merge.stepBytes(limit: 5) == 0)
    var changed = before
    switch direction {
    case .forward: _ = try changed.mergeForward(chain[0].guid)
    case .backward: _ = try changed.mergeIntoParent(chain[1].guid)
    }
    _ = try merge.finish(descriptor: bench.file, becoming: changed, until: .after(seconds: 20))
    bench.forget(older)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("a write that finds no room leaves none of its cluster behind")
  func givesBack() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let fixture = try DiskFixture(probe: plan)
    let geometry = Geometry(version: .v2, clusterShift: 20, sizeBytes: 8 << 20)
    try fixture.make("top", geometry)
    let device = try fixture.attach(["top"])
    try device.put([UInt8](repeating: 1, count: 1 << 20), at: 0)
    try device.flush()
    let before = device.levels()[0].diskBytes
    // A part of it, and then the end.
    let calls = Locked(0)
    plan.replace { _, operation, _ in
      switch operation {
      case .allocate: .error(ENOSPC)
      case .write:
        calls.withLock { calls in
          calls += 1
          return calls % 2 == 1 ? .short : .error(ENOSPC)
        }
      default: nil
      }
    }
    let error = #expect(throws: DeviceError.self) {
      try device.put([UInt8](repeating: 2, count: 1 << 20), at: 1 << 20)
    }
    #expect(error?.lacksRoom == true)
    plan.replace { _, _, _ in nil }
    #expect(device.levels()[0].diskBytes == before)
    // The cluster is taken again, and holds nothing of what was refused.
    try device.put([3], at: 1 << 20)
    #expect(try device.bytes(1 << 20, 3) == [3, 0, 0])
    try device.close()
  }

  @Test("what a file cannot hold is not taken for want of room")
  func tooLarge() {
    let full = DeviceError(IOError("write", path: "a", code: ENOSPC))
    guard case .outOfSpace = full.kind else {
      Issue.record("\(full.kind)")
      return
    }
    let large = DeviceError(IOError("write", path: "a", code: EFBIG))
    guard case .imageFull = large.kind else {
      Issue.record("\(large.kind)")
      return
    }
    #expect(full.lacksRoom && large.lacksRoom)
  }
}
