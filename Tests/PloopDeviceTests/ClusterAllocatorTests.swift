import Glibc
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("The free map of the top")
struct ClusterAllocatorTests {
  let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 40 * 4096)

  /// An allocator over a file whose header cluster and `used` are taken; `clusters` in all.
  private func make(
    _ disk: DiskFixture, clusters: Int = 6, used: [Int] = []
  ) throws -> (allocator: ClusterAllocator, gate: Gate, file: ImageFile) {
    let file = try disk.folder.create("top")
    try file.truncate(to: UInt64(clusters) * 4096)
    var bitmap = Bitmap(count: clusters)
    for cluster in [0] + used { bitmap[cluster] = true }
    let gate = Gate()
    return (
      ClusterAllocator(file: file, geometry: geometry, gate: gate, used: bitmap), gate, file
    )
  }

  @Test("the lowest free cluster is taken; holes found at attach count as dirty, new ones as zero")
  func lowestFirst() throws {
    let disk = try DiskFixture()
    let (allocator, _, file) = try make(disk, used: [1, 3])
    let taken = try (0..<4).map { _ in try allocator.allocate() }
    #expect(taken.map(\.physical) == [2, 4, 5, 6])
    #expect(taken.map(\.isZero) == [false, false, false, true])
    #expect(try file.size() == 7 * 4096)
    #expect(allocator.dataClusters == 6)
    #expect(allocator.holes == 0)
  }

  @Test("an abandoned cluster is the next one taken, and counts as dirty")
  func abandons() throws {
    let disk = try DiskFixture()
    let (allocator, _, _) = try make(disk, clusters: 1)
    let fresh = try allocator.allocate()
    #expect(fresh.isZero)
    allocator.abandon(fresh, isZero: false)
    let again = try allocator.allocate()
    #expect(again.physical == fresh.physical)
    #expect(!again.isZero)
  }

  @Test("a freed cluster is reusable only after a good round and after all who could use it left")
  func freesLate() throws {
    let disk = try DiskFixture()
    let (allocator, gate, file) = try make(disk, clusters: 2, used: [1])
    try file.write(AlignedBuffer([UInt8](repeating: 9, count: 4096)).region, at: 4096)
    let reader = try #require(gate.enter())
    allocator.unmapped(1)
    allocator.reap()
    #expect(try allocator.allocate().physical == 2)

    allocator.roundEnded(allocator.roundBegins(), succeeded: true)
    for _ in 0..<4 { allocator.reap() }
    #expect(try allocator.allocate().physical == 3)
    let bytes = AlignedBuffer(count: 4096)
    _ = try file.read(into: bytes.region, at: 4096)
    #expect(bytes.region.bytes.allSatisfy { $0 == 9 })

    gate.leave(reader)
    allocator.reap()
    let freed = try allocator.allocate()
    #expect(freed.physical == 1)
    #expect(freed.isZero)
    _ = try file.read(into: bytes.region, at: 4096)
    #expect(bytes.region.isZero)
  }

  @Test("a failed round frees nothing; the next good one does")
  func failedRound() throws {
    let disk = try DiskFixture()
    let (allocator, _, _) = try make(disk, clusters: 2, used: [1])
    allocator.unmapped(1)
    allocator.roundEnded(allocator.roundBegins(), succeeded: false)
    allocator.reap()
    #expect(try allocator.allocate().physical == 2)
    allocator.roundEnded(allocator.roundBegins(), succeeded: true)
    allocator.reap()
    #expect(try allocator.allocate().physical == 1)
  }

  @Test("what was unmapped after a round began waits for the next round")
  func laterUnmapping() throws {
    let disk = try DiskFixture()
    let (allocator, _, _) = try make(disk, clusters: 3, used: [1, 2])
    allocator.unmapped(1)
    let first = allocator.roundBegins()
    allocator.unmapped(2)
    allocator.roundEnded(first, succeeded: true)
    allocator.reap()
    #expect(try allocator.allocate().physical == 1)
    #expect(try allocator.allocate().physical == 3)
  }

  @Test("where holes cannot be punched, a freed cluster is dirty")
  func unpunched() throws {
    let disk = try DiskFixture(
      probe: FaultPlan { _, operation, _ in
        if case .punchHole = operation { return .error(EOPNOTSUPP) }
        return nil
      })
    let (allocator, _, _) = try make(disk, clusters: 2, used: [1])
    allocator.unmapped(1)
    allocator.roundEnded(allocator.roundBegins(), succeeded: true)
    allocator.reap()
    let freed = try allocator.allocate()
    #expect(freed.physical == 1)
    #expect(!freed.isZero)
  }

  @Test("a full host takes back what was reserved ahead, and one cluster is added without it")
  func growsWhenFull() throws {
    let disk = try DiskFixture(
      probe: FaultPlan { _, operation, _ in
        if case .allocate = operation { return .error(ENOSPC) }
        return nil
      })
    let (allocator, _, file) = try make(disk, clusters: 16, used: Array(1..<16))
    #expect(try allocator.allocate().physical == 16)
    #expect(try file.size() == 17 * 4096)
  }

  @Test("a long file grows by an eighth, and only what is used is needed")
  func growsAhead() throws {
    let disk = try DiskFixture()
    let (allocator, _, file) = try make(disk, clusters: 16, used: Array(1..<16))
    #expect(try allocator.allocate().physical == 16)
    #expect(try file.size() == 18 * 4096)
    #expect(allocator.neededBytes == 17 * 4096)
  }

  @Test("a detach waits for a flush that still punches what it freed")
  func detachWaitsForReaping() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let disk = try DiskFixture(probe: plan)
    try disk.make("top", geometry)
    let device = try disk.attach(["top"])
    try device.put([UInt8](repeating: 5, count: 8192), at: 0)
    try device.flush()
    try device.discard(offset: 0, length: 4096, durable: false)
    enum Moment { case before, punching, detached }
    let moment = Monitor(Moment.before)
    let detachedMeanwhile = Locked(false)
    plan.replace { _, operation, _ in
      guard case .punchHole = operation else { return nil }
      return .stall {
        moment.update { $0 = .punching }
        let seen: Bool? = moment.wait(until: .after(milliseconds: 200)) {
          $0 == .detached ? true : nil
        }
        detachedMeanwhile.withLock { $0 = seen == true }
      }
    }
    let flusher = try Thread(name: "flusher") { try? device.flush() }
    #expect(moment.wait(until: .after(seconds: 10)) { $0 == .punching ? true : nil } == true)
    try device.close()
    moment.update { $0 = .detached }
    flusher.join()
    // Afterwards the image may be attached again, and the cluster hold somebody's bytes.
    #expect(!detachedMeanwhile.withLock { $0 })
  }

  @Test("clusters that are kept for a longer index are nobody's, also when they are freed")
  func reserves() throws {
    let disk = try DiskFixture()
    let (allocator, _, file) = try make(disk, clusters: 3, used: [1])
    let early = try allocator.allocate()
    #expect(early.physical == 2)
    try allocator.reserve(1..<5)
    #expect(try file.size() >= 5 * 4096)
    allocator.abandon(early, isZero: false)
    allocator.unmapped(1)
    #expect(allocator.isAwaited(1..<5) && !allocator.isAwaited(2..<5))
    let freed = allocator.roundBegins()
    #expect(allocator.isAwaited(1..<5), "a round that runs has it")
    allocator.roundEnded(freed, succeeded: true)
    #expect(allocator.isAwaited(1..<5))
    allocator.reap()
    #expect(!allocator.isAwaited(1..<5))
    #expect(try allocator.allocate().physical == 5)
    #expect(allocator.dataClusters == 1)
    allocator.adopt(headerClusters: 5)
    #expect(allocator.dataClusters == 1)
    #expect(try allocator.allocate().physical == 6)
  }

  @Test("what was kept and is not needed is given back, but for what an entry names or may name")
  func givesBack() throws {
    let disk = try DiskFixture()
    let (allocator, _, _) = try make(disk, clusters: 5, used: [1, 2, 3])
    try allocator.reserve(1..<5)
    allocator.unmapped(2)
    let freed = allocator.roundBegins()
    allocator.giveUpReserved(owned: [1, 3])
    #expect(try allocator.allocate().physical == 4)
    allocator.roundEnded(freed, succeeded: true)
    allocator.reap()
    #expect(try allocator.allocate().physical == 2)
    #expect(allocator.dataClusters == 4)
  }
}
