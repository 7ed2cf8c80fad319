import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// Invariants of tracking: what is handed out is what was written, and copying it makes a copy.
@Suite("Tracking")
struct TrackerTests {
  private static let cluster = 16 << 10

  private func tracker(_ space: Tracker.Space, _ bench: ChainBench) throws -> Tracker {
    try Tracker(space, of: bench.device, until: .after(seconds: 600)) {}
  }

  private func all(_ tracker: Tracker) -> [Int] { tracker.marks.take(.max).taken }

  @Test("E1: of the disk, exactly the clusters that were written since, whatever wrote them")
  func exact() throws {
    let bench = try ChainBench()
    let device = bench.device
    let cluster = UInt64(Self.cluster)
    try bench.write(0, [UInt8](repeating: 1, count: 9 * Self.cluster))
    try bench.snapshot()
    let tracker = try tracker(.virtual, bench)
    #expect(all(tracker) == [])
    try bench.write(Self.cluster - 1, [7, 7])
    #expect(all(tracker) == [0, 1])
    try device.discard(offset: 2 * cluster, length: cluster, durable: false)
    try device.writeZeroes(
      offset: 4 * cluster, length: 2 * cluster, keepAllocated: false, onlyIfFast: false,
      durable: true)
    _ = try device.bytes(0, 1 << 20)
    try device.flush()
    #expect(all(tracker) == [2, 4, 5])
    #expect(device.writeNow(AlignedBuffer([1]).region, at: cluster))
    #expect(all(tracker) == [1])
    try tracker.end(until: .after(seconds: 600))
    try bench.write(0, [1])
    #expect(all(tracker) == [])
    try device.close()
  }

  @Test(
    "E1: of the file, what is in use at the beginning, then what is written, the index by a flush")
  func exactImage() throws {
    let bench = try ChainBench()
    let device = bench.device
    try bench.write(0, [UInt8](repeating: 1, count: 2 * Self.cluster))
    try device.flush()
    let tracker = try tracker(.image, bench)
    #expect(all(tracker) == [0, 1, 2])
    try bench.write(Self.cluster, [9])
    #expect(all(tracker) == [2])
    try device.flush()
    #expect(all(tracker) == [], "no entry has changed")
    try bench.write(7 * Self.cluster, [9])
    #expect(all(tracker) == [3])
    try device.flush()
    #expect(all(tracker) == [0])
    // A cluster that was never written and is all zero belongs to the file all the same.
    try device.writeZeroes(
      offset: UInt64(9 * Self.cluster), length: UInt64(Self.cluster), keepAllocated: true,
      onlyIfFast: false, durable: true)
    #expect(all(tracker).sorted() == [0, 4])
    try tracker.end(until: .after(seconds: 600))
    try bench.write(0, [1])
    #expect(all(tracker) == [])
    try device.close()
  }

  @Test("E1: of the file, also a cluster that is all zero and needed no write to be so")
  func zeroesOfTheFile() throws {
    let bench = try ChainBench()
    try bench.write(0, [UInt8](repeating: 1, count: 2 * Self.cluster))
    try bench.snapshot()
    let tracker = try tracker(.image, bench)
    #expect(all(tracker) == [0])
    // The lower delta has it, so the top takes a cluster at its end, where the file is zero.
    try bench.zero(clusters: 1..<2)
    #expect(all(tracker) == [1])
    try tracker.end(until: .after(seconds: 600))
    try bench.check()
    try bench.device.close()
  }

  @Test("E2: upward from the last one and round, each once, again when it is written again")
  func rounds() throws {
    let bench = try ChainBench()
    let tracker = try tracker(.virtual, bench)
    for cluster in [5, 3, 9] { try bench.write(cluster * Self.cluster, [1]) }
    #expect(tracker.marks.take(2).taken == [3, 5])
    try bench.write(3 * Self.cluster, [2])
    #expect(tracker.marks.take(2) == ([9, 3], 0))
    #expect(tracker.marks.take(2) == ([], 0))
    try tracker.end(until: .after(seconds: 600))
    try bench.device.close()
  }

  @Test(
    "E3: copying what is handed out while guests write, and the rest once suspended, makes a copy",
    arguments: [Tracker.Space.image, .virtual], 1...3)
  func converges(space: Tracker.Space, seed: Int) throws {
    let bench = try ChainBench(seed: UInt64(seed))
    try bench.exercise(30)
    try bench.snapshot()
    try bench.exercise(20)
    let device = bench.device
    let tracker = try tracker(space, bench)
    let size = bench.content.count
    var copy = try device.bytes(0, size)
    let source = try bench.fixture.folder.open(try #require(bench.names().last), writable: false)
    let target = try bench.fixture.folder.create("copy.hds")
    func copyOnce(_ limit: Int) throws -> Int {
      let (clusters, _) = tracker.marks.take(limit)
      for cluster in clusters {
        let offset = cluster * Self.cluster
        if space == .virtual {
          let bytes = try device.bytes(UInt64(offset), Self.cluster)
          copy.replaceSubrange(offset..<offset + Self.cluster, with: bytes)
        } else {
          let buffer = AlignedBuffer(count: Self.cluster)
          try source.readOrZero(into: buffer.region, at: UInt64(offset))
          try target.write(buffer.region, at: UInt64(offset))
        }
      }
      return clusters.count
    }
    let stop = Monitor(false)
    let ended = Monitor(0)
    for writer in 0..<2 {
      try Thread(name: "writer") {
        var random = SeededGenerator(seed: UInt64(100 * seed + writer))
        while !stop.withLock({ $0 }) {
          let offset = UInt64.random(in: 0..<UInt64(size - 40_000), using: &random)
          let count = Int.random(in: 1...40_000, using: &random)
          switch Int.random(in: 0..<8, using: &random) {
          case 0: try? device.flush()
          case 1:
            try? device.discard(offset: offset, length: UInt64(count), durable: false)
          default:
            try? device.put(
              [UInt8](repeating: .random(in: 1...255, using: &random), count: count), at: offset)
          }
        }
        ended.update { $0 += 1 }
      }.detach()
    }
    for _ in 0..<200 { _ = try copyOnce(4) }
    stop.update { $0 = true }
    _ = ended.wait(until: .after(seconds: 600)) { $0 == 2 ? true : nil }
    if space == .image {
      try device.suspend(until: .after(seconds: 600))
    }
    while try copyOnce(.max) > 0 {}
    try tracker.end(until: .after(seconds: 600))
    device.resume()
    let content = try device.bytes(0, copy.count)
    try device.close()
    guard space == .image else {
      #expect(copy == content)
      return
    }
    // The copy in the place of the top: marked as in use, as the top was.
    let names = try bench.names().dropLast() + ["copy.hds"]
    let again = try bench.fixture.attach(Array(names), repair: true)
    #expect(try again.bytes(0, content.count) == content)
    try again.close()
  }

  @Test("E4: a disk that is only read is not tracked")
  func readOnly() throws {
    let bench = try ChainBench()
    try bench.device.close()
    let device = try bench.fixture.attach(try bench.names(), readonly: true)
    #expect(throws: DeviceError.self) {
      try Tracker(.virtual, of: device, until: .after(seconds: 600)) {}
    }
    try device.close()
  }

  @Test("a start that cannot have its instant leaves nothing behind")
  func busy() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    let device = bench.device
    try bench.write(0, [1])
    let (reached, go) = (Monitor(false), Monitor(false))
    plan.replace { _, operation, _ in
      guard case .write = operation else { return nil }
      return .stall {
        reached.update { $0 = true }
        _ = go.wait { $0 ? true : nil }
      }
    }
    let ended = Monitor(false)
    try Thread(name: "writer") {
      try? device.put([2], at: 0)
      ended.update { $0 = true }
    }.detach()
    _ = reached.wait(until: .after(seconds: 600)) { $0 ? true : nil }
    for space in [Tracker.Space.image, .virtual] {
      #expect(throws: DeviceError.self) {
        try Tracker(space, of: device, until: .after(milliseconds: 20)) {}
      }
    }
    plan.replace { _, _, _ in nil }
    go.update { $0 = true }
    _ = ended.wait(until: .after(seconds: 600)) { $0 ? true : nil }
    #expect(try device.bytes(0, 1) == [2])
    try device.close()
  }
}
