import PloopFormat
import PloopIO
import Synchronization
import TestSupport
import Testing

@testable import PloopDevice

@Suite("Compacting a disk")
struct CompactionTests {
  private static let all = Set(Compaction.Part.allCases)
  private static let clusters = 64

  /// Clusters of 16 KiB.
  private static let geometry = Geometry(
    version: .v2, clusterShift: 14, sizeBytes: UInt64(clusters) << 14)

  @discardableResult
  static func compact(
    _ device: Device, _ parts: Set<Compaction.Part>, limit: Int = 5,
    between: () throws -> Void = {}
  ) throws -> Compaction.Progress {
    let deadline = Deadline.after(seconds: 3600)
    let compaction = try Compaction(of: device, parts)
    var progress = Compaction.Progress()
    while try compaction.begin(until: deadline) != nil {
      while let step = try compaction.step(limit: limit, until: deadline) {
        progress += step
        try between()
      }
    }
    return progress
  }

  private static func fill(_ bench: ChainBench, _ clusters: some Sequence<Int>) throws {
    for cluster in clusters {
      try bench.write(cluster << 14, [UInt8](repeating: UInt8(cluster & 0x7F + 1), count: 1 << 14))
    }
  }

  private func allocated(_ bench: ChainBench) throws -> UInt64 {
    let file = try bench.fixture.folder.open(bench.names().last ?? "", writable: false)
    try file.sync()
    return try file.allocatedBytes()
  }

  private func size(_ bench: ChainBench) throws -> UInt64 {
    try bench.fixture.folder.open(bench.names().last ?? "", writable: false).size()
  }

  @Test("moves what lies at the end of the file down, and cuts the file to what is referenced")
  func shrinks() throws {
    let bench = try ChainBench(Self.geometry)
    try Self.fill(bench, 0..<60)
    try bench.zero(clusters: 3..<33)
    try bench.device.flush()
    let before = try size(bench)
    let progress = try Self.compact(bench.device, [.shrink])
    #expect(progress.copied == 27)
    #expect(try size(bench) == UInt64(1 + 30) << 14)
    #expect(try size(bench) < before)
    #expect(bench.device.holesInTop == 0)
    try bench.check("shrunk")
    // What comes now has room again.
    try Self.fill(bench, 5..<20)
    try bench.check("used again")
    try bench.device.close()
    try bench.reattach()
    try bench.check("attached again")
    #expect(try Self.compact(bench.device, [.shrink]).copied == 0)
  }

  @Test("drops clusters that are all zero, and only punches those that a delta beneath has")
  func zeroes() throws {
    let bench = try ChainBench(Self.geometry)
    try Self.fill(bench, 0..<8)
    try bench.snapshot()
    // Written as zeroes, byte by byte: over what is beneath, and where nothing is.
    for cluster in [2, 3, 20, 21, 22] {
      try bench.write(cluster << 14, [UInt8](repeating: 0, count: 1 << 14))
    }
    try Self.fill(bench, [4, 30])
    // A byte at the very end of one.
    try bench.write(23 << 14, [UInt8](repeating: 0, count: 1 << 14))
    try bench.write(24 << 14 - 1, [1])
    try bench.device.flush()
    let mapped = bench.device.levels().last?.mappedClusters
    let before = try allocated(bench)
    let progress = try Self.compact(bench.device, [.zeroes])
    #expect(progress.dropped == 5 && progress.clusters == 8)
    try bench.device.flush()
    #expect(bench.device.levels().last?.mappedClusters == mapped.map { $0 - 3 })
    let after = try allocated(bench)
    // The file system takes blocks of its own for what is where.
    #expect((4 << 14) + 1...5 << 14 ~= before - after, "\(before) \(after)")
    try bench.check("dropped")
    #expect(try Self.compact(bench.device, [.zeroes]).dropped == 0)
    try bench.checkSnapshots()
  }

  @Test("punches what an earlier life has left in places that nothing references")
  func holes() throws {
    let bench = try ChainBench(Self.geometry)
    try Self.fill(bench, 0..<40)
    try bench.device.close()
    // As another program leaves them: out of the index, with their bytes.
    let file = try bench.fixture.folder.open("root.hds", writable: true)
    for cluster in 10..<20 {
      try file.write(AlignedBuffer(count: 4).region, at: UInt64(64 + 4 * cluster))
    }
    bench.content.replaceSubrange(10 << 14..<20 << 14, with: repeatElement(0, count: 10 << 14))
    try bench.reattach()
    let before = try allocated(bench)
    #expect(try Compaction.outlook(of: bench.device).idle == 10)
    let progress = try Self.compact(bench.device, [.holes])
    #expect(progress.punched == 10)
    let after = try allocated(bench)
    #expect((9 << 14) + 1...10 << 14 ~= before - after, "\(before) \(after)")
    try bench.check("punched")
    try Self.fill(bench, 8..<22)
    try bench.check("used again")
    #expect(try Self.compact(bench.device, [.holes]).punched == 0)
  }

  @Test("puts the clusters in the order of the disk", arguments: 1...3)
  func defragments(seed: UInt64) throws {
    let bench = try ChainBench(Self.geometry, seed: seed)
    var random = SeededGenerator(seed: seed)
    try Self.fill(bench, (0..<Self.clusters).shuffled(using: &random).prefix(50))
    try bench.zero(clusters: 7..<12)
    try bench.device.flush()
    #expect(try Compaction.outlook(of: bench.device).breaks > 20)
    let progress = try Self.compact(bench.device, [.defragment, .shrink])
    let mapped = bench.device.mappedClusters
    #expect(progress.copied <= 2 * mapped)
    #expect(try Compaction.outlook(of: bench.device).breaks == 0)
    #expect(try size(bench) == (1 + mapped) << 14)
    try bench.check("in order, seed \(seed)")
    #expect(try Self.compact(bench.device, [.defragment]).copied == 0)
    try bench.device.close()
    try bench.reattach()
    try bench.check("attached again, seed \(seed)")
  }

  @Test(
    "what is written, trimmed and read meanwhile is as if nothing had happened", arguments: 1...4)
  func underLoad(seed: UInt64) throws {
    let bench = try ChainBench(Self.geometry, seed: seed)
    var random = SeededGenerator(seed: seed)
    try Self.fill(bench, (0..<Self.clusters).shuffled(using: &random))
    try bench.snapshot()
    try Self.fill(bench, (0..<Self.clusters).shuffled(using: &random).prefix(48))
    let device = bench.device
    let isOver = Atomic(false)
    let content = Locked(bench.content)
    let failures = Locked<[String]>([])
    // Each with clusters of its own.
    let guests = try (0..<4).map { guest in
      try Thread(name: "guest") {
        var random = SeededGenerator(seed: seed &* 31 &+ UInt64(guest))
        while !isOver.load(ordering: .acquiring) {
          let cluster = guest + 4 * Int.random(in: 0..<Self.clusters / 4, using: &random)
          let range = cluster << 14..<(cluster + 1) << 14
          do {
            switch Int.random(in: 0..<8, using: &random) {
            case 0, 1:
              try device.discard(
                offset: UInt64(range.lowerBound), length: 1 << 14, durable: false)
              content.withLock {
                $0.replaceSubrange(range, with: repeatElement(0, count: range.count))
              }
            case 2:
              let expected = content.withLock { Array($0[range]) }
              guard try device.bytes(UInt64(range.lowerBound), range.count) == expected else {
                failures.withLock { $0.append("cluster \(cluster) reads wrong") }
                return
              }
            case 3: try device.flush()
            case 4:
              try device.put(
                [UInt8](repeating: 0, count: range.count), at: UInt64(range.lowerBound))
              content.withLock {
                $0.replaceSubrange(range, with: repeatElement(0, count: range.count))
              }
            default:
              let bytes = [UInt8](
                repeating: UInt8.random(in: 1...255, using: &random), count: 5000)
              let offset = range.lowerBound + Int.random(in: 0..<10_000, using: &random)
              try device.put(bytes, at: UInt64(offset))
              content.withLock { $0.replaceSubrange(offset..<offset + 5000, with: bytes) }
            }
          } catch {
            failures.withLock { $0.append("\(error)") }
            return
          }
        }
      }
    }
    for _ in 0..<6 { try Self.compact(device, Self.all, limit: 3) }
    isOver.store(true, ordering: .releasing)
    guests.forEach { $0.join() }
    #expect(failures.withLock { $0 } == [])
    bench.content = content.withLock { $0 }
    try bench.check("seed \(seed)")
    try Self.compact(device, Self.all)
    #expect(try Compaction.outlook(of: device).breaks == 0)
    #expect(device.holesInTop == 0)
    try bench.check("at rest, seed \(seed)")
    try bench.checkSnapshots()
  }

  @Test("an order that is given up because somebody stays inside gives nobody's place away")
  func givenUp() throws {
    let bench = try ChainBench(Self.geometry)
    let half = Self.clusters / 2
    try Self.fill(bench, (0..<half).reversed())
    try bench.device.flush()
    let compaction = try Compaction(of: bench.device, [.defragment])
    _ = try compaction.begin(until: .after(seconds: 3600))
    let pass = try #require(bench.device.gate.enterNow())
    #expect(throws: DeviceError.self) {
      try compaction.step(limit: 5, until: .after(milliseconds: 1))
    }
    bench.device.gate.leave(pass)
    try Self.fill(bench, half..<Self.clusters)
    try bench.check("written after it was given up")
    try Self.compact(bench.device, Self.all)
    try bench.check("in order at last")
  }

  @Test("can be given up between any two steps, and begun again")
  func interrupted() throws {
    for steps in 1..<12 {
      let bench = try ChainBench(Self.geometry, seed: UInt64(steps))
      try bench.exercise(60)
      let compaction = try Compaction(of: bench.device, Self.all)
      var left = steps
      let deadline = Deadline.after(seconds: 3600)
      parts: while try compaction.begin(until: deadline) != nil {
        while try compaction.step(limit: 3, until: deadline) != nil {
          left -= 1
          if left == 0 { break parts }
        }
      }
      try bench.exercise(20)
      try bench.check("given up after \(steps) steps")
      try Self.compact(bench.device, Self.all)
      #expect(bench.device.holesInTop == 0)
      try bench.check("compacted after all")
      try bench.device.close()
    }
  }
}
