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

  static let merges: [(Int, MergeDirection)] = [(0, .forward), (2, .forward), (0, .backward)]

  @Test(
    "a merge of the disk itself removes no source that has lost what it had", arguments: [0, 64],
    merges)
  func source(frames: Int, merge: (level: Int, direction: MergeDirection)) throws {
    let (bench, tool) = try bench(frames)
    let source = merge.direction == .forward ? merge.level : merge.level + 1
    let name = try bench.names()[source]
    let cluster = [0, 5, 9][source]
    let before = try tool.index(of: name)
    try tool.set([cluster: 0], in: name)
    let given = try refusal { try bench.merge(level: merge.level, merge.direction) }
    #expect(given == "index-mismatch")
    #expect(bench.device.chain.deltas.count == 4)
    try tool.set([cluster: before[cluster]], in: name)
    try bench.merge(level: merge.level, merge.direction)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test(
    "clusters that another program has put into a delta are none that it has moved",
    arguments: [0, 64])
  func moved(frames: Int) throws {
    let (bench, tool) = try bench(frames)
    // The page is in memory only where there is room for it.
    try bench.device.flush()
    let name = try bench.names()[1]
    let before = try tool.index(of: name)
    // One that an older delta has, one that a newer one has, and one that nobody has.
    for cluster in [0, 9, 20] {
      let place = try #require(try tool.move([5], in: name).first)
      try tool.set([cluster: place, 5: before[5]], in: name)
      let given = try refusal {
        _ = try bench.device.updateIndex(
          level: 1, [IndexMove(cluster: UInt64(cluster), physical: UInt64(place))],
          isWholeChecked: true, until: .after(seconds: 120))
      }
      #expect(given == (cluster == 20 && frames > 0 ? "cluster-not-mapped" : "index-mismatch"))
      try tool.set([cluster: 0], in: name)
    }
    let place = try #require(try tool.move([5], in: name).first)
    let applied = try bench.device.updateIndex(
      level: 1, [IndexMove(cluster: 5, physical: UInt64(place))], isWholeChecked: true,
      until: .after(seconds: 120))
    #expect(applied == 1)
    try tool.overwrite([before[5]], in: name)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("what is read from a receiver it has, also where nobody knows what it had")
  func unknown() throws {
    let (bench, tool) = try bench(64)
    #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
    let name = try bench.names()[1]
    let before = try tool.index(of: name)
    bench.device.chain.deltas[1].had.note(nil)
    try tool.set([5: 0], in: name)
    #expect(try refusal { try bench.merge(level: 0) } == "index-mismatch")
    #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
    try tool.set([5: before[5]], in: name)
    try bench.merge(level: 0)
    try bench.check()
    try bench.checkSnapshots()
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
