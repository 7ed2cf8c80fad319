import Glibc
import PloopFormat
import PloopIO
import Synchronization
import TestSupport
import Testing

@testable import PloopDevice

@Suite("The map of a disk that is not all in memory")
struct PagedMapTests {
  /// Six pages of index.
  private static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 5_200 << 12)

  private static func pool(_ frames: Int) -> FramePool {
    FramePool(budgetBytes: frames * FramePool.frameBytes)
  }

  @Test(
    "what is written, frozen, merged and turned around reads as it has to", arguments: [0, 1, 2])
  func changes(frames: Int) throws {
    let pool = Self.pool(frames)
    let bench = try ChainBench(Self.geometry, seed: UInt64(frames + 1), indexCache: pool)
    for round in 0..<3 {
      try bench.exercise(40)
      try bench.snapshot()
      try bench.exercise(40)
      try bench.zero(clusters: round * 1_000..<round * 1_000 + 60)
      try bench.snapshot()
      try bench.exercise(20)
      try bench.check("round \(round)")
      switch round {
      case 0: try bench.merge(level: 0, .backward, limit: 20) { _ in try bench.exercise(1) }
      case 1: try bench.merge(level: 1, .forward, limit: 20) { _ in try bench.exercise(1) }
      default: break
      }
      try bench.check("merged in round \(round)")
      let top = bench.device.chain.topLevel
      try bench.merge(level: top - 1, .forward, limit: 20) { _ in try bench.exercise(1) }
      try bench.check("the top merged in round \(round)")
    }
    #expect(pool.values.residentBytes <= UInt64(max(frames, 1) * FramePool.frameBytes))
    #expect(pool.values.misses > 0)
    try bench.checkSnapshots()
  }

  @Test("a disk that grows, and one that is put in order, with pages that come and go")
  func moved() throws {
    let bench = try ChainBench(Self.geometry, seed: 5, indexCache: Self.pool(1))
    try bench.exercise(150)
    try bench.snapshot()
    try bench.exercise(150)
    let deadline = Deadline.after(seconds: 3_600)
    let compaction = try Compaction(of: bench.device, Set(Compaction.Part.allCases))
    while try compaction.begin(until: deadline) != nil {
      while try compaction.step(limit: 40, until: deadline) != nil { try bench.exercise(1) }
    }
    try bench.check("compacted")
    let resize = try Resize(of: bench.device, to: 9_000 << 12, until: deadline)
    while try resize.step(limit: 2, until: deadline) != nil { try bench.exercise(1) }
    try resize.prepare(until: deadline)
    _ = try resize.finish(descriptor: nil, until: deadline)
    try bench.expectGrown(to: 9_000)
    try bench.exercise(100)
    try bench.check("grown")
    try bench.checkSnapshots()
  }

  @Test("guests on all sides, a chain that changes beneath them, and room for two pages")
  func concurrent() throws {
    let pool = Self.pool(2)
    let bench = try ChainBench(Self.geometry, seed: 9, indexCache: pool)
    let device = bench.device
    let isOver = Atomic(false)
    let wrong = Locked<[String]>([])
    let guests = try (0..<3).map { number in
      try Thread(name: "guest") {
        var random = SeededGenerator(seed: UInt64(number))
        var values: [UInt64: UInt8] = [:]
        do {
          while !isOver.load(ordering: .acquiring) {
            let cluster = UInt64.random(in: 0..<1_700, using: &random) * 3 + UInt64(number)
            switch Int.random(in: 0..<8, using: &random) {
            case 0..<4:
              let value = UInt8.random(in: 1...255, using: &random)
              let bytes = AlignedBuffer([UInt8](repeating: value, count: 4096)).region
              if !device.writeNow(bytes, at: cluster << 12) {
                try device.write(bytes, at: cluster << 12, durable: value < 8)
              }
              values[cluster] = value
            case 4:
              try device.discard(offset: cluster << 12, length: 4096, durable: false)
              values[cluster] = 0
            default:
              let bytes = try device.bytes(cluster << 12, 4096)
              let value = values[cluster] ?? 0
              if bytes.contains(where: { $0 != value }) {
                wrong.withLock { $0.append("cluster \(cluster): \(bytes[0]), not \(value)") }
              }
            }
          }
          for (cluster, value) in values {
            let bytes = try device.bytes(cluster << 12, 4096)
            if bytes.contains(where: { $0 != value }) {
              wrong.withLock {
                $0.append("cluster \(cluster) in the end: \(bytes[0]), not \(value)")
              }
            }
          }
        } catch {
          wrong.withLock { $0.append("\(error)") }
        }
      }
    }
    do {
      defer {
        isOver.store(true, ordering: .releasing)
        guests.forEach { $0.join() }
      }
      for round in 0..<4 {
        try bench.snapshot()
        try bench.snapshot()
        if round % 2 == 0 {
          try bench.merge(level: 0, .backward, limit: 100)
        } else {
          try bench.merge(level: 0, .forward, limit: 100)
        }
        try bench.merge(level: device.chain.topLevel - 1, .forward, limit: 100)
        try device.flush()
      }
    }
    #expect(wrong.withLock { $0.prefix(5) } == [])
    try device.flush()
    try expectRebuilt(device)
    #expect(pool.values.pinnedBytes == 0)
    try device.close()
  }

  @Test("an index page that cannot be read fails who wants it, and is read again the next time")
  func unreadable() throws {
    let fails = Atomic(false)
    let plan = FaultPlan { _, operation, _ in
      guard fails.load(ordering: .acquiring), case .read(let offset, _) = operation,
        offset < Self.geometry.headerBytes
      else { return nil }
      return .error(EIO)
    }
    let fixture = try DiskFixture(probe: plan, indexCache: Self.pool(0))
    try fixture.make("top", Self.geometry)
    let device = try fixture.attach(["top"])
    try device.put([1], at: 2_000 << 12)
    try device.flush()
    fails.store(true, ordering: .releasing)
    func isUnread(_ body: () throws -> Void) -> Bool {
      do {
        try body()
        return false
      } catch let error as DeviceError {
        if case .io = error.kind { return true }
        return false
      } catch { return false }
    }
    #expect(isUnread { _ = try device.bytes(2_000 << 12, 1) })
    #expect(isUnread { try device.put([2], at: 2_001 << 12) })
    #expect(isUnread { try device.discard(offset: 2_000 << 12, length: 4096, durable: false) })
    // Where nothing was ever mapped there is nothing to be read.
    #expect(try device.bytes(5_000 << 12, 1) == [0])
    fails.store(false, ordering: .releasing)
    #expect(try device.bytes(2_000 << 12, 1) == [1])
    try device.put([2], at: 2_001 << 12)
    #expect(device.failure == nil && device.holesInTop == 0)
    try device.flush()
    try expectRebuilt(device)
    try device.close()
  }

  @Test("an entry that has become bad since the attach is not followed, and harms no other cluster")
  func damaged() throws {
    let fixture = try DiskFixture(indexCache: Self.pool(0))
    try fixture.make("top", Self.geometry)
    let device = try fixture.attach(["top"])
    for cluster in [7, 8, 2_000] { try device.put([5], at: UInt64(cluster) << 12) }
    try device.flush()
    let file = try fixture.folder.open("top", writable: true)
    for bad: [UInt8] in [[1, 0, 0, 0], [0, 0, 0, 1], [255, 255, 255, 255]] {
      try file.write(AlignedBuffer(bad).region, at: 64 + 4 * 7)
      #expect(throws: DeviceError.self) { try device.bytes(7 << 12, 1) }
      #expect(throws: DeviceError.self) { try device.put([1], at: 7 << 12) }
      #expect(try device.bytes(8 << 12, 1) == [5] && device.bytes(2_000 << 12, 1) == [5])
    }
    #expect(device.failure == nil)
  }

  @Test(
    "pages that are not in the file yet stay, and what a failed sync leaves unknown does for good")
  func unsynced() throws {
    let fails = Atomic(false)
    let plan = FaultPlan { _, operation, _ in
      guard fails.load(ordering: .acquiring), case .sync = operation else { return nil }
      return .error(EIO)
    }
    let pool = Self.pool(0)
    let fixture = try DiskFixture(probe: plan, indexCache: pool)
    try fixture.make("top", Self.geometry)
    let device = try fixture.attach(["top"])
    try device.put([1], at: 0)
    try device.put([2], at: 2_000 << 12)
    #expect(pool.values.pinnedBytes == UInt64(2 * FramePool.frameBytes))
    try device.flush()
    #expect(pool.values.pinnedBytes == 0 && pool.values.residentBytes == 0)
    try device.put([3], at: 3_000 << 12)
    fails.store(true, ordering: .releasing)
    #expect(throws: DeviceError.self) { try device.flush() }
    fails.store(false, ordering: .releasing)
    #expect(throws: DeviceError.self) { try device.put([4], at: 4_000 << 12) }
    #expect(pool.values.pinnedBytes == UInt64(FramePool.frameBytes))
    for (cluster, value) in [(0, 1), (2_000, 2), (3_000, 3), (4_000, 0)] {
      #expect(try device.bytes(UInt64(cluster) << 12, 1) == [UInt8(value)])
    }
    try device.close()
    #expect(pool.values.evictions > 0)
  }

  @Test("a disk with too many pages that are not in its file writes them by itself")
  func crowding() throws {
    let pages = 60
    let geometry = Geometry(
      version: .v2, clusterShift: 12, sizeBytes: UInt64(pages * Geometry.entriesPerPage) << 12)
    let pool = Self.pool(0)
    let fixture = try DiskFixture(indexCache: pool)
    try fixture.make("top", geometry)
    let device = try fixture.attach(["top"])
    var most: UInt64 = 0
    var refused = 0
    let bytes = AlignedBuffer([UInt8](repeating: 7, count: 4096)).region
    for page in 0..<pages {
      let offset = geometry.clusters(inPage: page).lowerBound << 12
      if !device.writeNow(bytes, at: offset) {
        refused += 1
        try device.write(bytes, at: offset, durable: false)
      }
      most = max(most, pool.values.pinnedBytes)
    }
    #expect(refused > 0)
    #expect(most <= UInt64(17 * FramePool.frameBytes), "\(most) bytes")
    try device.flush()
    #expect(pool.values.residentBytes == 0)
    #expect(device.mappedClusters == UInt64(pages))
    try expectRebuilt(device)
    try device.close()
  }
}
