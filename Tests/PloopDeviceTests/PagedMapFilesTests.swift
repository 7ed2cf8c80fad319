import Glibc
import PloopFormat
import PloopIO
import Synchronization
import TestSupport
import Testing

@testable import PloopDevice

/// How the map reads the indexes of files that are written meanwhile, and how much of them.
@Suite("The map and the files that it comes from")
struct PagedMapFilesTests {
  private static let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 5_200 << 12)

  private static func pool(_ frames: Int) -> FramePool {
    FramePool(budgetBytes: frames * FramePool.frameBytes)
  }

  /// Reads of one file's index, and what is done when one is about to be made.
  private final class IndexReads: Sendable {
    struct Read: Equatable {
      var offset: UInt64
      var count: Int
    }
    private struct State {
      var name: String?
      var reads: [Read] = []
      var actions: [Int: @Sendable () -> Void] = [:]
    }
    private let state = Locked(State())

    var plan: FaultPlan {
      FaultPlan { [self] _, operation, path in
        guard case .read(let offset, let count) = operation,
          offset < PagedMapFilesTests.geometry.headerBytes
        else { return nil }
        return state.withLock { state in
          guard let name = state.name, path.hasSuffix("/\(name)") else { return nil }
          state.reads.append(Read(offset: offset, count: count))
          return state.actions.removeValue(forKey: state.reads.count).map { .stall($0) }
        }
      }
    }

    /// - Parameter actions: by the numbers of the reads, the first of which is 1.
    func watch(_ name: String, _ actions: [Int: @Sendable () -> Void] = [:]) {
      state.withLock { $0 = State(name: name, actions: actions) }
    }

    func end() -> [Read] {
      state.withLock { state in
        defer { state = State() }
        return state.reads
      }
    }
  }

  /// A disk of two deltas, of which the lower one has the clusters 0 to 39.
  private func disk(
    _ reads: IndexReads, frames: Int = 0
  ) throws -> (device: Device, fixture: DiskFixture, tool: ForeignTool) {
    let fixture = try DiskFixture(probe: reads.plan, indexCache: Self.pool(frames))
    for name in ["base", "top"] { try fixture.make(name, Self.geometry) }
    let base = try fixture.attach(["base"], locks: [])
    for cluster in 0..<40 as Range<UInt64> {
      try base.put([UInt8(cluster + 1)], at: cluster << 12)
    }
    try base.close()
    let device = try fixture.attach(["base", "top"], locks: [])
    // Without the probe.
    return (device, fixture, ForeignTool(in: try ImageFolder(path: fixture.folder.path)))
  }

  @Test("an entry of a lower delta is read until two reads agree, eight aligned bytes at a time")
  func entry() throws {
    let reads = IndexReads()
    let (device, fixture, tool) = try disk(reads)
    defer { withExtendedLifetime(fixture) {} }
    let moved = Locked<UInt32?>(nil)
    reads.watch("base", [2: { moved.withLock { $0 = try? tool.move([7], in: "base").first } }])
    let place = try device.map.place(of: 7)
    let offset = (Geometry.headerSlots + 7) * 4 & ~7
    #expect(
      reads.end() == [IndexReads.Read](repeating: .init(offset: offset, count: 8), count: 3))
    #expect(moved.withLock { $0 }.map(UInt64.init) == place?.physical)
    #expect(try device.bytes(7 << 12, 1) == [8])
    // Of the top there is nothing to be compared.
    reads.watch("top")
    #expect(try device.bytes(6 << 12, 1) == [7])
    #expect(reads.end().count <= 1)
    try device.close()
  }

  @Test("and so is a page")
  func page() throws {
    let reads = IndexReads()
    let (device, fixture, tool) = try disk(reads)
    defer { withExtendedLifetime(fixture) {} }
    let moved = Locked<[UInt32]>([])
    reads.watch("base", [2: { moved.withLock { $0 = (try? tool.move([7], in: "base")) ?? [] } }])
    var walk = device.map.walk()
    let place = try walk.place(of: 7)
    #expect(
      reads.end()
        == [IndexReads.Read](repeating: .init(offset: 0, count: Geometry.pageBytes), count: 3))
    #expect(moved.withLock { $0 }.map(UInt64.init) == [place?.physical])
    try device.close()
  }

  /// The slug of what is refused; "none" where nothing is.
  private func refusal(_ body: () throws -> Void) throws -> String {
    do { try body() } catch let error as DeviceError {
      guard case .refused(let refusal, _) = error.kind else { throw error }
      return refusal.rawValue
    }
    return "none"
  }

  @Test("what is never the same twice is not believed", arguments: [false, true])
  func unsteady(isWhole: Bool) throws {
    let reads = IndexReads()
    let (device, fixture, tool) = try disk(reads)
    defer { withExtendedLifetime(fixture) {} }
    let move: @Sendable () -> Void = { _ = try? tool.move([7], in: "base") }
    reads.watch("base", Dictionary(uniqueKeysWithValues: (2...40).map { ($0, move) }))
    let given = try refusal {
      if isWhole {
        var walk = device.map.walk()
        _ = try walk.place(of: 7)
      } else {
        _ = try device.map.place(of: 7)
      }
    }
    #expect(given == "index-mismatch")
    #expect(reads.end().count == 16)
    // Whoever has written it has ended.
    #expect(try device.bytes(7 << 12, 1) == [8])
    try device.close()
  }

  @Test("what was looked up ahead is read again only where it has changed")
  func foreseen() throws {
    let reads = IndexReads()
    let (device, fixture, _) = try disk(reads)
    defer { withExtendedLifetime(fixture) {} }
    let (base, top) = (device.chain.deltas[0].number, device.chain.top.number)
    let known = try device.map.foresee([7, 50, 3])
    reads.watch("base")
    #expect(try known.place(of: 7)?.delta == base)
    #expect(try known.place(of: 50) == nil)
    #expect(reads.end() == [])
    try device.put([9], at: 7 << 12)
    #expect(try known.place(of: 7)?.delta == top)
    try device.flush()
    #expect(!device.map.table.isResident(page: 0))
    #expect(try known.place(of: 7)?.delta == top)
    #expect(try known.place(of: 3)?.delta == base)
    try device.close()
  }

  @Test("of a disk that is only read another program may write the newest delta as well")
  func readonly() throws {
    let reads = IndexReads()
    let (written, fixture, _) = try disk(reads)
    try written.close()
    let device = try fixture.attach(["base", "top"], readonly: true, locks: [])
    reads.watch("top")
    #expect(try device.map.place(of: 7)?.delta == device.chain.deltas[0].number)
    #expect(reads.end().count == 2)
    #expect(try device.bytes(7 << 12, 1) == [8])
    try device.close()
  }

  @Test("an entry of a lower delta that is gone is no hole: nothing is written over it")
  func vanished() throws {
    let (device, fixture, tool) = try disk(IndexReads())
    let before = try tool.index(of: "base")
    try tool.set([7: 0], in: "base")
    for (name, body) in [
      ("read", { _ = try device.bytes(7 << 12, 1) }),
      ("write", { try device.put([1], at: 7 << 12 + 100) }),
      (
        "zeroes",
        {
          try device.writeZeroes(
            offset: 7 << 12, length: 4096, keepAllocated: true, onlyIfFast: false, durable: false)
        }
      ),
      (
        "walk",
        {
          var walk = device.map.walk()
          _ = try walk.place(of: 7)
        }
      ),
    ] as [(String, () throws -> Void)] {
      #expect(try refusal(body) == "index-mismatch", "\(name)")
    }
    // Its neighbours are what they were.
    #expect(try device.bytes(8 << 12, 1) == [9])
    var owners = LowerOwners(below: 1, of: device.chain)
    let owned = [try owners.own(7), try owners.own(40)]
    #expect(owned == [true, false])
    try tool.set([7: before[7]], in: "base")
    #expect(try device.bytes(7 << 12, 1) == [8])
    try device.put([1], at: 7 << 12 + 100)
    #expect(try device.bytes(7 << 12, 1) == [8])
    #expect(try device.bytes(7 << 12 + 100, 1) == [1])
    try device.flush()
    try expectRebuilt(device)
    try device.close()
    withExtendedLifetime(fixture) {}
  }

  @Test(
    "what was read while the page came, was changed and went is no fault, whatever it is",
    arguments: [false, true])
  func overtaken(isWhole: Bool) throws {
    let reads = IndexReads()
    let (device, fixture, _) = try disk(reads)
    try device.put([9], at: 7 << 12)
    try device.flush()
    let plain = try ImageFolder(path: fixture.folder.path).open("top", writable: true)
    reads.watch(
      "top",
      [
        1: {
          try? device.map.pin(0)
          try? plain.write(AlignedBuffer([255, 255, 255, 255]).region, at: 64 + 4 * 7)
        }
      ])
    var walk = device.map.walk()
    let place = isWhole ? try walk.place(of: 7) : try device.map.place(of: 7)
    #expect(place?.delta == device.chain.top.number)
    #expect(reads.end().count >= 1)
    #expect(try device.bytes(7 << 12, 1) == [9])
    device.map.unpin(0)
    // Now it is what the file says.
    #expect(throws: DeviceError.self) { try device.bytes(7 << 12, 1) }
  }

  @Test("a last round that finds room only the third time keeps no page")
  func lastRound() throws {
    let failures = Atomic(0)
    let plan = FaultPlan { _, operation, path in
      guard case .write(let offset, _) = operation, offset < Self.geometry.headerBytes,
        failures.load(ordering: .acquiring) > 0
      else { return nil }
      failures.wrappingSubtract(1, ordering: .releasing)
      return .error(ENOSPC)
    }
    let pool = Self.pool(0)
    let fixture = try DiskFixture(probe: plan, indexCache: pool)
    try fixture.make("top", Self.geometry)
    let device = try fixture.attach(["top"])
    for cluster in [0, 2_000, 4_000] as [UInt64] { try device.put([1], at: cluster << 12) }
    let index = try #require(device.chain.writing?.index)
    let last = index.beginLast()
    failures.store(2, ordering: .releasing)
    try index.end(last, until: .after(seconds: 120))
    #expect(failures.load(ordering: .acquiring) == 0)
    #expect(pool.values.pinnedBytes == 0 && pool.values.residentBytes == 0)
    #expect(device.failure == nil)
    for cluster in [0, 2_000, 4_000] as [UInt64] {
      #expect(try device.bytes(cluster << 12, 1) == [1])
    }
  }

  @Test("a step of a merge, or of what puts a file in order, reads the index only where it is")
  func steps() throws {
    let reads = IndexReads()
    let fixture = try DiskFixture(probe: reads.plan, indexCache: Self.pool(100))
    for name in ["base", "top"] { try fixture.make(name, Self.geometry) }
    let base = try fixture.attach(["base"], locks: [])
    let bytes = AlignedBuffer([UInt8](repeating: 7, count: 1 << 20)).region
    for part in 0..<20 as Range<UInt64> { try base.write(bytes, at: part << 20, durable: false) }
    try base.close()
    // In clusters behind each other, all over the disk.
    let again = try fixture.attach(["base"], locks: [])
    let compaction = try Compaction(of: again, [.zeroes])
    _ = try compaction.begin(until: .after(seconds: 120))
    let pool = fixture.indexCache
    reads.watch("base")
    _ = try compaction.step(limit: 1, until: .after(seconds: 120))
    #expect(reads.end().allSatisfy { $0.offset < UInt64(3 * Geometry.pageBytes) })
    try again.close()

    let device = try fixture.attach(["base", "top"], locks: [])
    let engine = IOEngine(threadLimit: 2)
    defer { engine.stop(until: .after(seconds: 120)) }
    let merge = try DeltaMerge(of: device, level: 0)
    for _ in 0..<3 {
      reads.watch("base")
      _ = try merge.step(limit: 1, on: engine)
      #expect(reads.end().allSatisfy { $0.offset < UInt64(3 * Geometry.pageBytes) })
    }
    #expect(pool.values.budgetBytes > 0)
    try device.close()
  }

  @Test("nothing is counted any more that nobody wants to know")
  func uncounted() throws {
    let reads = IndexReads()
    let (device, fixture, _) = try disk(reads)
    defer { withExtendedLifetime(fixture) {} }
    device.map.table.forgetMapped(page: 0)
    reads.watch("base")
    device.map.count { false }
    #expect(reads.end() == [])
    #expect(device.map.table.uncountedPages() == [0])
    device.map.count()
    #expect(device.map.table.uncountedPages().isEmpty)
    try device.close()
  }

  @Test("a disk that is attached drives out no page of another one")
  func room() throws {
    let pool = Self.pool(1)
    let fixture = try DiskFixture(indexCache: pool)
    for name in ["a", "b"] {
      try fixture.make(name, Self.geometry)
      let device = try fixture.attach([name], locks: [])
      try device.put([1], at: 0)
      try device.close()
    }
    let first = try fixture.attach(["a"], locks: [])
    #expect(first.map.table.isResident(page: 0))
    let second = try fixture.attach(["b"], locks: [])
    #expect(first.map.table.isResident(page: 0) && !second.map.table.isResident(page: 0))
    #expect(try second.bytes(0, 1) == [1])
    try first.close()
    try second.close()
  }
}
