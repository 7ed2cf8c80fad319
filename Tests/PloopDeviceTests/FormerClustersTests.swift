import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

/// What a delta had is known also where the disk itself has written it, and nothing of it is in memory.
@Suite("What another program takes out of deltas that were the top")
struct FormerClustersTests {
  private static let cluster = 4096
  private static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 4 << 20)

  /// A delta with a cluster each, and a top.
  private func bench(_ frames: Int) throws -> (ChainBench, ForeignTool) {
    let bench = try ChainBench(
      Self.geometry, indexCache: FramePool(budgetBytes: frames * FramePool.frameBytes))
    for cluster in [0, 5, 9] {
      try bench.write(cluster * Self.cluster, [UInt8(cluster + 1)])
      try bench.snapshot()
    }
    try bench.write(11 * Self.cluster, [12])
    return (bench, ForeignTool(in: bench.fixture.folder))
  }

  private func refusal(_ body: () throws -> Void) throws -> String? {
    do { try body() } catch let error as DeviceError {
      guard case .refused(let refusal, _) = error.kind else { throw error }
      return refusal.rawValue
    }
    return nil
  }

  @Test(
    "neither receiver nor source may have lost what is read from them", arguments: [0, 1, 64],
    [MergeDirection.forward, .backward])
  func merged(frames: Int, direction: MergeDirection) throws {
    let (bench, tool) = try bench(frames)
    let device = bench.device
    let names = try bench.names()
    let (source, receiver) = direction == .forward ? (1, 2) : (2, 1)
    let (its, own) = direction == .forward ? (5, 9) : (9, 5)
    let before = try tool.index(of: names[source])
    switch direction {
    case .forward: try tool.mergeForward(names[source], into: names[receiver])
    case .backward: try tool.mergeBackward(names[source], into: names[receiver])
    }
    let merged = try tool.index(of: names[receiver])
    func notify() throws {
      _ = try device.takeMerged(level: source, direction, until: .after(seconds: 120)) {
        _ throws(DeviceError) in
      }
    }
    try tool.set([own: 0], in: names[receiver])
    #expect(try refusal(notify) == "index-mismatch")
    // As if it had been gone before the other program merged it.
    try tool.set([own: merged[own], its: 0], in: names[receiver])
    try tool.set([its: 0], in: names[source])
    #expect(try refusal(notify) == "index-mismatch")
    try tool.set([its: merged[its]], in: names[receiver])
    try tool.set([its: before[its]], in: names[source])
    #expect(try device.bytes(0, bench.content.count) == bench.content)
    try notify()
    #expect(device.map.names(only: device.chain.deltas.map(\.number)))
    #expect(try device.bytes(0, bench.content.count) == bench.content)
    try device.flush()
    try expectRebuilt(device)
    try device.close()
  }

  @Test("a delta that is to be the top again has what it had", arguments: [0, 64])
  func flipped(frames: Int) throws {
    let (bench, tool) = try bench(frames)
    let name = try #require(try bench.names().dropLast().last)
    let before = try tool.index(of: name)
    try tool.set([9: 0], in: name)
    #expect(try refusal { try bench.flip() } == "index-mismatch")
    try tool.set([9: before[9]], in: name)
    // Of a cluster that the oldest one has, which the disk would read from here.
    let places = try tool.move([9], in: name)
    try tool.set([0: places[0], 9: before[9]], in: name)
    #expect(try refusal { try bench.flip() } == "flip-overlap")
    try tool.set([0: 0], in: name)
    try bench.flip()
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("what a merge of the disk itself has put into a delta it has", arguments: [0, 64])
  func own(frames: Int) throws {
    let (bench, tool) = try bench(frames)
    try bench.merge(level: 0, .forward)
    try bench.check()
    let names = try bench.names()
    try tool.mergeForward(names[0], into: names[1])
    let merged = try tool.index(of: names[1])
    func notify() throws {
      _ = try bench.device.takeMerged(level: 0, .forward, until: .after(seconds: 120)) {
        _ throws(DeviceError) in
      }
    }
    for cluster in [0, 5, 9] {
      try tool.set([cluster: 0], in: names[1])
      #expect(try refusal(notify) == "index-mismatch", "cluster \(cluster)")
      try tool.set([cluster: merged[cluster]], in: names[1])
    }
    try notify()
    #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
    try bench.device.close()
  }
}
