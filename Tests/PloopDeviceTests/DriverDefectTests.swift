import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

/// What the kernel's drivers got wrong in one of their versions, each as the case that shows it.
@Suite("Defects of the kernel's drivers")
struct DriverDefectTests {
  private static let cluster = 16 << 10

  private func fill(_ value: Int, count: Int = cluster) -> [UInt8] {
    [UInt8](repeating: UInt8(value), count: count)
  }

  // MARK: Merging

  @Test(
    "the neighbour of a merged level was always taken to be level 1",
    arguments: [(3, MergeDirection.forward), (3, .backward), (2, .forward), (2, .backward)])
  func neighbour(level: Int, direction: MergeDirection) throws {
    let bench = try ForeignBench(seed: 31)
    // Level 1 lacks what the real neighbour receives.
    let receiver = direction == .forward ? level + 1 : level - 1
    let other = try bench.tool.index(of: bench.names[1])
    try bench.merge(level, direction)
    let merged = try bench.tool.index(of: bench.names[receiver])
    #expect(receiver == 1 || zip(merged, other).contains { $0 != 0 && $1 == 0 })
    try bench.notify(level, direction)
    try bench.check()
    try bench.device.close()
  }

  @Test("clusters that the neighbour lacked kept the numbers of levels that had moved down")
  func renumbering() throws {
    let bench = try ForeignBench(seed: 32)
    let neighbour = try bench.tool.index(of: bench.names[1])
    let lacking = bench.owned(4).filter { neighbour[$0] == 0 }
    #expect(!lacking.isEmpty)
    let owner = bench.device.chain.deltas[4].number
    try bench.merge(0, .forward)
    try bench.notify(0, .forward)
    for cluster in lacking {
      let place = try #require(try bench.device.map.place(of: UInt64(cluster)))
      #expect(place.delta == owner && bench.device.chain.level(of: place.delta) == 3)
    }
    try bench.check()
    try bench.device.close()
  }

  @Test("a merge copied what lies below the merged delta as well")
  func onlyTheMerged() throws {
    let bench = try ChainBench()
    try bench.write(0, fill(1))
    try bench.snapshot()
    try bench.write(Self.cluster, fill(2))
    try bench.snapshot()
    try bench.write(2 * Self.cluster, fill(3))
    let (progress, total) = try bench.merge(level: 1)
    #expect(total == 1 && progress.copied == 1)
    #expect(bench.device.levels().map(\.mappedClusters) == [1, 2])
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("one merge that had failed failed all others, of any disk")
  func failedMerge() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    for cluster in 0..<6 { try bench.write(cluster * Self.cluster, fill(cluster + 1)) }
    try bench.snapshot()
    try bench.write(10 * Self.cluster, fill(9))
    try bench.device.flush()
    let merge = try DeltaMerge(of: bench.device, level: 0)
    plan.replace { _, operation, _ in
      switch operation {
      case .write, .allocate: .error(28)
      default: nil
      }
    }
    #expect(throws: DeviceError.self) { try merge.step(limit: 8, on: bench.engine) }
    plan.replace { _, _, _ in nil }
    merge.abandon(until: .after(seconds: 20))
    let other = try ChainBench(seed: 2)
    try other.exercise(10)
    try other.snapshot()
    try other.exercise(10)
    for disk in [bench, other] {
      try disk.merge(level: 0)
      try disk.check()
      try disk.checkSnapshots()
    }
  }

  // MARK: The index

  @Test("an entry of an index update was looked up before its cluster was known to exist")
  func outside() throws {
    let bench = try ForeignBench(seed: 33)
    for cluster in [ForeignBench.clusters, ForeignBench.clusters + 1, 1 << 40, Int.max] {
      let given = try bench.refusal { _ = try bench.update(1, [(cluster, 1)]) }
      #expect(given == "cluster-out-of-range 0")
    }
    try bench.check()
    try bench.device.close()
  }

  @Test("an index update was answered and had no effect")
  func update() throws {
    let bench = try ForeignBench(seed: 34)
    let own = bench.owned(2)
    let old = try bench.tool.index(of: "d2")
    let places = try bench.tool.move(own, in: "d2")
    #expect(try bench.update(2, Array(zip(own, places))) == own.count)
    try bench.tool.overwrite(own.map { old[$0] }, in: "d2")
    try bench.check()
    try bench.device.close()
  }

  @Test("a disk of more than 2 TiB wrapped around")
  func beyondTwoTebibytes() throws {
    let fixture = try DiskFixture()
    let geometry = Geometry(version: .v2, clusterShift: 24, sizeBytes: 5 << 40)
    try fixture.make("top", geometry)
    let device = try fixture.attach(["top"])
    let places: [UInt64] = [0, 1 << 40, 2 << 40, 3 << 40, 4 << 40, (5 << 40) - 512]
    for (number, place) in places.enumerated() {
      try device.put(fill(number + 1, count: 512), at: place)
    }
    for (number, place) in places.enumerated() {
      #expect(try device.bytes(place, 512) == fill(number + 1, count: 512))
    }
    try device.close()
    let again = try fixture.attach(["top"], readonly: true)
    for (number, place) in places.enumerated() {
      #expect(try again.bytes(place, 512) == fill(number + 1, count: 512))
    }
    try again.close()
  }

  // MARK: Allocating

  @Test("a cluster whose index write had failed counted as free, or for ever as used")
  func failedIndexWrite() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    try bench.write(0, fill(1))
    try bench.device.flush()
    try bench.write(Self.cluster, fill(2))
    plan.replace { _, operation, _ in
      if case .write(let offset, _) = operation, offset < 4096 { return .error(5) }
      return nil
    }
    #expect(throws: DeviceError.self) { try bench.device.flush() }
    plan.replace { _, _, _ in nil }
    // Not given to another one: both are there, also in the file.
    for cluster in 2..<5 { try bench.write(cluster * Self.cluster, fill(cluster + 1)) }
    try bench.check()
    #expect(bench.device.levels()[0].mappedClusters == 5)
    try bench.checkSnapshots()
  }

  @Test("a part of a cluster written into a hole showed what the hole had held")
  func dirtyHole() throws {
    let bench = try ChainBench()
    for cluster in 0..<4 { try bench.write(cluster * Self.cluster, fill(0xEE)) }
    try bench.device.flush()
    try bench.device.discard(offset: 0, length: 4 * UInt64(Self.cluster), durable: true)
    bench.content.replaceSubrange(
      0..<4 * Self.cluster, with: repeatElement(0, count: 4 * Self.cluster))
    for cluster in 10..<14 { try bench.write(cluster * Self.cluster + 5000, [1, 2, 3]) }
    try bench.check()
    // Where the holes came from entries that were taken out, they have not even been punched.
    try bench.snapshot()
    for cluster in 10..<14 { try bench.write(cluster * Self.cluster, fill(7)) }
    try bench.flip()
    for cluster in 20..<26 { try bench.write(cluster * Self.cluster + 9000, [4, 5, 6]) }
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("a reader between the allocation of a cluster and its bytes saw somebody else's")
  func readerBeforePublish() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    try bench.write(0, fill(0xEE))
    try bench.snapshot()
    let device = bench.device
    let seen = Locked<[[UInt8]]>([])
    plan.replace { _, operation, _ in
      guard case .write(let offset, _) = operation, offset >= UInt64(Self.cluster) else {
        return nil
      }
      return .stall {
        let bytes = try? device.bytes(0, Self.cluster)
        seen.withLock { $0.append(bytes ?? []) }
      }
    }
    try bench.write(100, [1, 2, 3])
    plan.replace { _, _, _ in nil }
    let old = fill(0xEE)
    let states = seen.withLock { $0 }
    #expect(!states.isEmpty)
    #expect(states.allSatisfy { $0 == old })
    try bench.check()
    try bench.checkSnapshots()
  }

  // MARK: Changes amid requests

  @Test("a guest's write failed when a snapshot came while its cluster was being copied")
  func snapshotAmidCopy() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    try bench.write(0, fill(0xEE))
    try bench.snapshot()
    enum Moment { case before, copying, released }
    let moment = Monitor(Moment.before)
    let device = bench.device
    plan.replace { _, operation, path in
      guard case .write(let offset, _) = operation, offset >= UInt64(Self.cluster) else {
        return nil
      }
      return .stall {
        moment.update { if $0 == .before { $0 = .copying } }
        _ = moment.wait(until: .after(seconds: 300)) { $0 == .released ? true : nil }
      }
    }
    let failure = Locked<String?>(nil)
    let writer = try Thread(name: "writer") {
      do { try device.put([1, 2, 3], at: 100) } catch { failure.withLock { $0 = "\(error)" } }
    }
    #expect(moment.wait(until: .after(seconds: 300)) { $0 == .copying ? true : nil } == true)
    let releaser = try Thread(name: "releaser") {
      // The snapshot waits at the gate by now, or will find nobody inside.
      moment.update { $0 = .released }
    }
    try bench.snapshot()
    releaser.join()
    writer.join()
    plan.replace { _, _, _ in nil }
    #expect(failure.withLock { $0 } == nil)
    bench.content.replaceSubrange(100..<103, with: [1, 2, 3])
    #expect(try device.bytes(0, 200) == Array(bench.content[0..<200]))
    try device.close()
  }

  @Test("a delta was dropped while somebody still read from it")
  func readersOfLowerDeltas() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    try bench.write(0, fill(0xEE))
    try bench.snapshot()
    try bench.write(Self.cluster, fill(1))
    let merge = try DeltaMerge(of: bench.device, level: 0)
    while try merge.step(limit: 8, on: bench.engine) != nil {}
    let pass = try bench.device.admitted()
    var changed = try bench.file.read()
    let chain = try changed.chain(to: changed.topGUID)
    _ = try changed.mergeForward(chain[0].guid)
    let descriptor = changed
    #expect(throws: DeviceError.self, "it waits for who is inside") {
      try merge.finish(
        descriptor: bench.file, becoming: descriptor, until: .after(milliseconds: 30))
    }
    bench.device.gate.leave(pass)
    merge.abandon(until: .after(seconds: 20))
    #expect(bench.device.levels().count == 2)
    try bench.merge(level: 0)
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test("what was written before a snapshot was lost with the power after it")
  func flushAtSnapshot() throws {
    let trace = IOTrace()
    let bench = try ChainBench(probe: trace)
    try bench.write(0, fill(1))
    let top = try #require(try bench.names().last)
    let before = trace.events.count
    try bench.snapshot()
    // Its bytes, then its index: both synced before the descriptor names another top.
    var syncs = 0
    for event in trace.events[before...] {
      if case .synced(let path) = event, path.hasSuffix("/\(top)") { syncs += 1 }
      if case .rename(_, let name) = event, name.hasSuffix("DiskDescriptor.xml") { break }
    }
    #expect(syncs >= 2)
    try bench.checkSnapshots()
  }

  @Test("the header of one file was written into another at a snapshot or a flip")
  func headers() throws {
    let bench = try ChainBench(growing: [1 << 20, 3 << 20], clusterShift: 12, seed: 4)
    func sizes() throws -> [UInt64] {
      try bench.names().map {
        try Header.read(bench.fixture.folder.open($0, writable: false)).sizeBytes
      }
    }
    try bench.snapshot()
    #expect(try sizes() == [1 << 20, 3 << 20, 3 << 20])
    try bench.exercise(10)
    try bench.flip()
    try bench.exercise(10)
    try bench.flip()
    #expect(try sizes() == [1 << 20, 3 << 20, 3 << 20])
    try bench.check()
    try bench.checkSnapshots()
  }
}

extension Header {
  fileprivate static func read(_ file: ImageFile) throws -> Geometry {
    try Device.geometry(
      of: file, isRaw: false, like: Geometry(version: .v2, clusterShift: 12, sizeBytes: 1 << 20))
  }
}
