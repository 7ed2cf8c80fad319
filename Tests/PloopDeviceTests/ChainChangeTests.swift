import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("A chain that changes under load")
struct ChainChangeTests {
  private static let cluster = 16 << 10

  @Test(
    "keeps every state through snapshots and merges of any level",
    arguments: 1...6 as ClosedRange<UInt64>)
  func random(seed: UInt64) throws {
    let bench = try ChainBench(seed: seed)
    var random = SeededGenerator(seed: seed)
    for round in 0..<14 {
      try bench.exercise(12)
      let levels = bench.device.levels().count
      if levels < 3 || Bool.random(using: &random) {
        try bench.snapshot()
      } else {
        let level = Int.random(in: 0..<levels - 1, using: &random)
        try bench.merge(level: level, limit: 5) { _ in try bench.exercise(2) }
      }
      try bench.check("round \(round), seed \(seed)")
    }
    try bench.checkSnapshots()
  }

  @Test("loses no write of several threads, and fails none")
  func storm() throws {
    let bench = try ChainBench()
    let device = bench.device
    let isOver = Monitor(false)
    let expected = Locked<[Int: [UInt8]]>([:])
    let threads = try (0..<4).map { thread in
      try Thread(name: "storm") {
        var random = SeededGenerator(seed: UInt64(thread) + 7)
        let own = thread * 16 * Self.cluster
        var image = [UInt8](repeating: 0, count: 16 * Self.cluster)
        while !isOver.withLock({ $0 }) {
          let start = Int.random(in: 0..<image.count - 1, using: &random)
          let count = min(image.count - start, Int.random(in: 1...40_000, using: &random))
          let bytes = [UInt8](repeating: UInt8.random(in: 0...255, using: &random), count: count)
          image.replaceSubrange(start..<start + count, with: bytes)
          do {
            if !device.writeNow(AlignedBuffer(bytes).region, at: UInt64(own + start)) {
              try device.put(bytes, at: UInt64(own + start), durable: count % 5 == 0)
            }
            if count % 7 == 0 { try device.flush() }
            if count % 11 == 0 {
              #expect(try device.bytes(UInt64(own), image.count) == image)
            }
          } catch { Issue.record("thread \(thread): \(error)") }
        }
        expected.withLock { $0[own] = image }
      }
    }
    for round in 0..<12 {
      try bench.snapshot()
      if round % 3 == 1 { try bench.merge(level: bench.device.levels().count - 2, limit: 4) }
      if round % 3 == 2 { try bench.merge(level: 0, limit: 4) }
    }
    isOver.update { $0 = true }
    threads.forEach { $0.join() }
    for (own, image) in expected.withLock({ $0 }) {
      bench.content.replaceSubrange(own..<own + image.count, with: image)
    }
    try bench.check()
    // Each of them, and each time that the gate was closed in vain.
    #expect(bench.device.statistics().pauses >= 12 + 8)
    try bench.device.close()
  }

  @Test(
    "a merge reads what nothing above shadows, once, and copies nothing that is zero over nothing")
  func counters() throws {
    let bench = try ChainBench()
    for cluster in 0..<10 {
      try bench.write(cluster * Self.cluster, [UInt8](repeating: 7, count: Self.cluster))
    }
    try bench.zero(clusters: 8..<10)
    try bench.snapshot()
    for cluster in [1, 3] { try bench.write(cluster * Self.cluster + 5, [1, 2, 3]) }
    // Below the one that is merged lies something: zero has to stay.
    try bench.zero(clusters: 5..<6)
    try bench.write(12 * Self.cluster, [UInt8](repeating: 0, count: Self.cluster))
    try bench.snapshot()
    try bench.write(3 * Self.cluster, [9])
    let (progress, total) = try bench.merge(level: 1, limit: 3)
    // Clusters 1 and 5, and 12, which is zero over nothing; the top has 3 of its own.
    #expect(total == 3)
    #expect(progress.clusters == 3)
    #expect(progress.copied == 2)
    #expect(progress.dropped == 1)
    #expect(progress.overtaken == 0)
    #expect(progress.readBytes <= 3 * UInt64(Self.cluster))
    #expect(progress.readBytes >= UInt64(Self.cluster))
    try bench.check()
    try bench.checkSnapshots()
  }

  @Test(
    "a snapshot that cannot be made leaves the chain as it was", arguments: 0..<40, [false, true])
  func faults(number: Int, late: Bool) throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan, helpers: .nobody { late })
    try bench.exercise(10)
    // What a failed sync loses is another matter.
    try bench.device.flush()
    let calls = Locked(0)
    plan.replace { _, operation, _ in
      if case .read = operation { return nil }
      let call = calls.withLock { calls -> Int in
        calls += 1
        return calls - 1
      }
      return call == number ? .error(5) : nil
    }
    do { try bench.snapshot() } catch {}
    plan.replace { _, _, _ in nil }
    #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
    if bench.device.failure == nil {
      try bench.exercise(4)
      try bench.snapshot()
      try bench.exercise(4)
      #expect(try bench.device.bytes(0, bench.content.count) == bench.content)
      try bench.checkSnapshots()
    } else {
      // Whichever descriptor is there, its chain holds what the disk held.
      #expect(throws: DeviceError.self) { try bench.device.put([1], at: 0) }
      try bench.device.close()
      try bench.reattach(repair: true)
      try bench.check()
      try bench.device.close()
    }
  }

  @Test("behind a snapshot's moment requests go on, and flushes wait for what it froze")
  func behind() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let pieces = Locked(0)
    // The flush ahead at once; what follows the moment, once its result is wanted: the gate is open.
    let bench = try ChainBench(
      probe: plan,
      helpers: .nobody {
        pieces.withLock { pieces in
          pieces += 1
          return pieces > 1
        }
      })
    let cluster = Self.cluster
    try bench.write(0, [UInt8](repeating: 1, count: 2 * cluster))
    let device = bench.device
    let stage = Monitor((isRenamed: false, isSyncing: false, mayGoOn: false))
    plan.replace { _, operation, _ in
      switch operation {
      case .rename(let name) where name.hasSuffix(".intent"):
        // Not flushed ahead: a cluster that the frozen delta's index in the file does not name.
        return .stall { try? device.put([2], at: UInt64(2 * cluster)) }
      case .rename(let name) where name.hasSuffix(".xml"):
        stage.update { $0.isRenamed = true }
        return nil
      case .sync where stage.withLock({ $0.isRenamed && !$0.isSyncing }):
        return .stall {
          stage.update { $0.isSyncing = true }
          _ = stage.wait(until: .after(seconds: 600)) { $0.mayGoOn ? true : nil }
        }
      default: return nil
      }
    }
    let guests = try Thread(name: "guests") {
      defer { stage.update { $0.mayGoOn = true } }
      #expect(stage.wait(until: .after(seconds: 600)) { $0.isSyncing ? true : nil } == true)
      do {
        // Requests go on, into the new top.
        try device.put([3], at: UInt64(2 * cluster))
        #expect(try device.bytes(UInt64(2 * cluster), 1) == [3])
        let answers = Monitor<Set<String>>([])
        let flush = try Thread(name: "flush") {
          do { try device.flush() } catch { Issue.record("flush: \(error)") }
          answers.update { _ = $0.insert("flush") }
        }
        // What the frozen delta holds below has to be known before anything is unmapped.
        let trim = try Thread(name: "trim") {
          do {
            try device.discard(
              offset: UInt64(2 * cluster), length: UInt64(cluster), durable: false)
          } catch { Issue.record("trim: \(error)") }
          answers.update { _ = $0.insert("trim") }
        }
        let early: Bool? = answers.wait(until: .after(milliseconds: 100)) {
          $0.isEmpty ? nil : true
        }
        #expect(early == nil)
        stage.update { $0.mayGoOn = true }
        flush.join()
        trim.join()
      } catch { Issue.record("\(error)") }
    }
    try bench.snapshot()
    guests.join()
    plan.replace { _, _, _ in nil }
    bench.content.replaceSubrange(
      2 * cluster..<3 * cluster, with: repeatElement(0, count: cluster))
    try bench.check()
    try bench.device.close()
    try bench.reattach()
    try bench.check()
    try bench.device.close()
  }

  @Test("a merge that is given up, or of a level that is not there, changes nothing")
  func refused() throws {
    let bench = try ChainBench()
    try bench.exercise(20)
    #expect(throws: DeviceError.self) { try DeltaMerge(of: bench.device, level: 0) }
    try bench.snapshot()
    try bench.exercise(5)
    try bench.snapshot()
    try bench.exercise(5)
    for level in [-1, 2, 3, Int.max] {
      #expect(throws: DeviceError.self) { try DeltaMerge(of: bench.device, level: level) }
    }
    for level in 0...1 {
      let merge = try DeltaMerge(of: bench.device, level: level)
      _ = try merge.step(limit: 3, on: bench.engine)
      merge.abandon(until: .after(seconds: 20))
      try bench.check("level \(level)")
    }
    try bench.checkSnapshots()
  }

  @Test("a snapshot of a disk that does not drain is refused in time, and nothing has changed")
  func timeout() throws {
    let bench = try ChainBench()
    try bench.exercise(5)
    let pass = try bench.device.admitted()
    let names = try bench.names()
    let files = try bench.fixture.folder.names()
    do {
      try bench.snapshot(until: .after(milliseconds: 20))
      Issue.record("it was made")
    } catch let error as DeviceError {
      guard case .timeout = error.kind else { throw error }
    }
    bench.device.gate.leave(pass)
    #expect(try bench.names() == names)
    #expect(try Set(bench.fixture.folder.names()) == Set(files))
    try bench.check()
    try bench.device.close()
  }

  @Test("a new top that is there already is taken if it is empty and fits, and else is left alone")
  func given() throws {
    let bench = try ChainBench()
    let folder = bench.fixture.folder
    try bench.exercise(10)
    func digest(_ name: String) throws -> [UInt8] { try folder.bytes(of: name, limit: 4 << 20) }
    try bench.fixture.make(
      "other", Geometry(version: .v2, clusterShift: 14, sizeBytes: 2 << 20))
    try bench.fixture.make("full", bench.geometry)
    let full = try bench.fixture.attach(["full"], locks: [])
    try full.put([1], at: 0)
    try full.close()
    try bench.fixture.make("open", bench.geometry)
    var header = Header(new: bench.geometry)
    header.inUse = Header.InUse.open
    try folder.open("open", writable: true).write(AlignedBuffer(header.encoded).region, at: 0)
    try folder.replace("text", with: Array("no image".utf8))
    for name in ["other", "full", "open", "text"] {
      let before = try digest(name)
      #expect(throws: DeviceError.self, "\(name)") {
        try NewTop(taking: name, in: folder, geometry: bench.geometry)
      }
      #expect(try digest(name) == before, "\(name)")
    }
    try bench.fixture.make("good", bench.geometry)
    let before = try digest("good")
    try NewTop(taking: "good", in: folder, geometry: bench.geometry).abandon()
    #expect(try digest("good") == before)
    try bench.snapshot(onto: .taken(name: "good", in: folder, file: "good"))
    try bench.exercise(10)
    try bench.check()
    try bench.checkSnapshots()
  }
}
