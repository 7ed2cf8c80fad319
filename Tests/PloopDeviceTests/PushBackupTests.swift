import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

/// Invariants of push backup (F1 to F9; F7, F8 and F10 are the service's).
@Suite("Push backup")
struct PushBackupTests {
  static let cluster = 16 << 10
  /// Of each wait, from when it begins: all tests together may take longer.
  static var long: Deadline { .after(seconds: 600) }

  /// A clock that only a test moves.
  private final class Clock: Sendable {
    private let time = Locked<UInt64>(1_000_000_000)
    var now: UInt64 { time.withLock { $0 } }
    func pass(seconds: UInt64, _ backup: PushBackup) {
      time.withLock { $0 += seconds * 1_000_000_000 }
      backup.lookAgain()
    }
  }

  /// Requests on threads of their own.
  private final class Writers: Sendable {
    private let ended = Monitor<[String: Bool]>([:])

    func start(_ name: String, _ body: @escaping @Sendable () throws -> Void) throws {
      try Thread(name: "writer") { [ended] in
        let isDone = (try? body()) != nil
        ended.update { $0[name] = isDone }
      }.detach()
    }

    func hasEnded(_ name: String) -> Bool { ended.withLock { $0[name] != nil } }

    /// - Returns: whether it succeeded.
    func end(of name: String) -> Bool {
      ended.wait(until: PushBackupTests.long) { $0[name] } ?? false
    }
  }

  private func backup(
    _ bench: ChainBench, _ options: PushBackup.Options = PushBackup.Options()
  ) throws -> PushBackup {
    let backup = PushBackup("b", of: bench.device, options, engine: bench.engine)
    _ = try backup.start(until: Self.long)
    return backup
  }

  private func scratch(_ bench: ChainBench, clusters: Int) throws -> Scratch {
    try Scratch(
      "scratch", in: bench.fixture.folder, clusterBytes: UInt64(Self.cluster),
      limitBytes: UInt64(clusters * Self.cluster))
  }

  private func waitForPending(_ backup: PushBackup, _ count: Int) {
    let waits = backup.state.wait(until: Self.long) { $0.waiting >= count ? true : nil }
    #expect(waits == true)
  }

  private func clusters(_ backup: PushBackup, limit: Int = 100) throws -> [Int] {
    try backup.pending(limit: limit).map(\.cluster)
  }

  private func frozen(_ backup: PushBackup, cluster: Int) throws -> [UInt8] {
    let buffer = AlignedBuffer(count: Self.cluster)
    try backup.read(into: buffer.region, at: UInt64(cluster * Self.cluster))
    return buffer.region.bytes
  }

  enum Mode: String, CaseIterable { case abort, wait, spill, spillLittle }

  @Test(
    "F1: the backup is the disk at its instant, whatever is written meanwhile, byte for byte",
    arguments: Mode.allCases, 1...3)
  func instant(mode: Mode, seed: Int) throws {
    let bench = try ChainBench(
      Geometry(version: .v2, clusterShift: 14, sizeBytes: (1 << 20) - 1536), seed: UInt64(seed))
    try bench.exercise(30)
    try bench.snapshot()
    try bench.exercise(10)
    let device = bench.device
    let size = Int(device.geometry.sizeBytes)
    var options = PushBackup.Options()
    options.deadlineNanoseconds = .max
    options.onDeadline = PushBackup.OnDeadline(rawValue: mode.rawValue) ?? .spill
    if options.onDeadline == .spill {
      options.scratch = try scratch(bench, clusters: mode == .spill ? 64 : 3)
    }
    // Writers do not stop for the start.
    let stop = Monitor(false)
    let writers = Writers()
    for writer in 0..<3 {
      try writers.start("\(writer)") {
        var random = SeededGenerator(seed: UInt64(100 * seed + writer))
        while !stop.withLock({ $0 }) {
          let offset = UInt64.random(in: 0..<UInt64(size - 40_000), using: &random)
          let count = Int.random(in: 1...40_000, using: &random)
          switch Int.random(in: 0..<10, using: &random) {
          case 0: try device.flush()
          case 1: try device.discard(offset: offset, length: UInt64(count), durable: false)
          case 2:
            try device.writeZeroes(
              offset: offset, length: UInt64(count), keepAllocated: false, onlyIfFast: false,
              durable: false)
          case 3...6:
            let region = AlignedBuffer([UInt8](repeating: UInt8(writer + 1), count: count)).region
            if !device.writeNow(region, at: offset) {
              try device.write(region, at: offset, durable: false)
            }
          default:
            try device.put(
              [UInt8](repeating: .random(in: 1...255, using: &random), count: count), at: offset)
          }
        }
      }
    }
    let backup = PushBackup("b", of: device, options, engine: bench.engine)
    let atInstant = Locked<[UInt8]>([])
    // What the disk is at the instant, by its own map, while nobody is inside.
    _ = try device.beginRecording(backup, until: Self.long) { () throws(DeviceError) in
      atInstant.withLock { bytes in
        bytes = (try? Self.content(of: device)) ?? []
      }
    }
    let expected = atInstant.withLock { $0 }
    #expect(expected.count == size)
    var copy = [UInt8](repeating: 0xEE, count: size)
    var random = SeededGenerator(seed: UInt64(seed))
    let last = (size - 1) / Self.cluster
    var order = Array(0...last).shuffled(using: &random)[...]
    while backup.facts.remaining > 0 {
      for cluster in try clusters(backup, limit: 2) + order.prefix(3) {
        guard try backup.left(from: cluster, limit: 1).first?.lowerBound == cluster else {
          continue
        }
        let count = min(Self.cluster, size - cluster * Self.cluster)
        let buffer = AlignedBuffer(count: count)
        try backup.read(into: buffer.region, at: UInt64(cluster * Self.cluster))
        copy.replaceSubrange(
          cluster * Self.cluster..<cluster * Self.cluster + count, with: buffer.region.bytes)
        #expect(try backup.confirm([cluster..<cluster + 1]) == 1)
      }
      order = order.dropFirst(3)
    }
    #expect(copy == expected)
    stop.update { $0 = true }
    for writer in 0..<3 { #expect(writers.end(of: "\(writer)")) }
    try backup.stop(until: Self.long)
    #expect(try !bench.fixture.folder.names().contains("scratch"))
    try device.close()
  }

  private static func content(of device: Device) throws -> [UInt8] {
    var bytes: [UInt8] = []
    for run in try device.layout(offset: 0, length: device.geometry.sizeBytes, limit: .max) {
      let buffer = AlignedBuffer(count: Int(run.length))
      if let level = run.level, let physical = run.physical {
        try device.chain.deltas[level].file.readOrZero(
          into: buffer.region, at: physical << UInt64(device.geometry.clusterShift))
      }
      bytes += buffer.region.bytes
    }
    return bytes
  }

  @Test("F2: a write waits until its cluster is confirmed, and is there then; reads do not wait")
  func confirmed() throws {
    let bench = try ChainBench()
    let device = bench.device
    try bench.write(0, [UInt8](repeating: 1, count: 3 * Self.cluster))
    let backup = try backup(bench)
    let writers = Writers()
    let offset = UInt64(Self.cluster - 1)
    try writers.start("both") { try device.put([9, 9], at: offset, durable: true) }
    waitForPending(backup, 1)
    #expect(!device.writeNow(AlignedBuffer([8]).region, at: 0))
    #expect(try device.bytes(0, 3 * Self.cluster) == Array(bench.content.prefix(3 * Self.cluster)))
    try device.flush()
    #expect(try clusters(backup) == [0, 1])
    #expect(try backup.confirm([1..<2]) == 1)
    #expect(try clusters(backup) == [0], "it needs both")
    #expect(!writers.hasEnded("both"))
    #expect(try frozen(backup, cluster: 0) == [UInt8](repeating: 1, count: Self.cluster))
    #expect(throws: PushBackup.Refusal.released(cluster: 1)) {
      try self.frozen(backup, cluster: 1)
    }
    #expect(try backup.confirm([0..<1]) == 1)
    #expect(writers.end(of: "both"))
    #expect(try device.bytes(offset, 2) == [9, 9])
    #expect(try clusters(backup) == [])
    #expect(backup.facts.longestWaitNanoseconds > 0)
    // Trims and zeroes wait as writes do.
    try writers.start("trim") {
      try device.discard(
        offset: UInt64(2 * Self.cluster), length: UInt64(Self.cluster), durable: false)
    }
    waitForPending(backup, 1)
    #expect(try frozen(backup, cluster: 2) == [UInt8](repeating: 1, count: Self.cluster))
    try backup.stop(until: Self.long)
    #expect(writers.end(of: "trim"), "the end lets everybody go on")
    #expect(try device.bytes(UInt64(2 * Self.cluster), 1) == [0])
    #expect(throws: PushBackup.Refusal.over("it was stopped")) { try backup.confirm([0..<1]) }
    try device.close()
  }

  @Test("F3: they are told in the order in which requests began to wait, again until confirmed")
  func order() throws {
    let bench = try ChainBench()
    let device = bench.device
    let backup = try backup(bench)
    let writers = Writers()
    for (index, cluster) in [7, 3, 7, 5].enumerated() {
      try writers.start("\(index)") { try device.put([1], at: UInt64(cluster * Self.cluster)) }
      waitForPending(backup, index + 1)
    }
    #expect(try clusters(backup) == [7, 3, 5])
    #expect(try clusters(backup, limit: 2) == [7, 3], "and again, after a crash of the copier")
    #expect(backup.facts.blockedWrites == 4)
    _ = try backup.confirm([3..<4])
    #expect(try clusters(backup) == [7, 5])
    #expect(writers.end(of: "1"))
    _ = try backup.confirm([5..<8])
    for index in 0..<4 { #expect(writers.end(of: "\(index)")) }
    try backup.stop(until: Self.long)
    try device.close()
  }

  @Test("F4: confirmed unasked, twice, or beyond the disk")
  func confirming() throws {
    let bench = try ChainBench()
    let backup = try backup(bench)
    let total = backup.facts.clustersTotal
    #expect(total == 64)
    #expect(try backup.confirm([10..<12]) == 2)
    #expect(try backup.confirm([10..<13, 11..<12]) == 1)
    #expect(throws: PushBackup.Refusal.outOfRange(64)) {
      try backup.confirm([20..<21, 63..<65])
    }
    #expect(backup.facts.remaining == total - 3, "nothing of a call that is refused")
    #expect(try backup.left(from: 0, limit: 9) == [0..<10, 13..<64])
    #expect(try backup.left(from: 11, limit: 1) == [13..<64])
    #expect(try backup.confirm([0..<64]) == 61)
    #expect(backup.facts.remaining == 0)
    #expect(try backup.left(from: 0, limit: 9) == [])
    try backup.stop(until: Self.long)
    try bench.device.close()
  }

  @Test("F5, F6: each request has its own deadline, however others come along; it stays over then")
  func deadline() throws {
    let bench = try ChainBench()
    let device = bench.device
    let clock = Clock()
    var options = PushBackup.Options()
    options.deadlineNanoseconds = 10_000_000_000
    options.clock = { clock.now }
    let told = Locked(0)
    let backup = PushBackup("b", of: device, options, engine: bench.engine) { change in
      if case .failed = change { told.withLock { $0 += 1 } }
    }
    _ = try backup.start(until: Self.long)
    let writers = Writers()
    try writers.start("oldest") { try device.put([1], at: 0) }
    waitForPending(backup, 1)
    for second in 1...9 {
      clock.pass(seconds: 1, backup)
      // Others wait and are served meanwhile.
      try writers.start("\(second)") { try device.put([2], at: UInt64(second * Self.cluster)) }
      waitForPending(backup, 2)
      _ = try backup.confirm([second..<second + 1])
      #expect(writers.end(of: "\(second)"))
    }
    #expect(!writers.hasEnded("oldest"))
    #expect(try backup.pending(limit: 1).first?.waitingNanoseconds == 9_000_000_000)
    clock.pass(seconds: 1, backup)
    #expect(writers.end(of: "oldest"))
    #expect(try device.bytes(0, 1) == [1])
    let words = "a request has waited for 10 seconds"
    #expect(backup.facts.end == .failed(words))
    #expect(backup.facts.longestWaitNanoseconds == 10_000_000_000)
    #expect(throws: PushBackup.Refusal.over(words)) { try backup.pending(limit: 1) }
    #expect(throws: PushBackup.Refusal.over(words)) { try backup.confirm([20..<21]) }
    #expect(throws: PushBackup.Refusal.over(words)) { try self.frozen(backup, cluster: 30) }
    #expect(device.writeNow(AlignedBuffer([3]).region, at: UInt64(30 * Self.cluster)))
    #expect(told.withLock { $0 } == 1)
    try backup.stop(until: Self.long)
    try device.close()
  }

  @Test("whoever waits for a copier that has stopped for a minute still waits, if asked to")
  func patient() throws {
    let bench = try ChainBench()
    let device = bench.device
    let clock = Clock()
    var options = PushBackup.Options()
    options.onDeadline = .wait
    options.deadlineNanoseconds = 1_000_000_000
    options.clock = { clock.now }
    let backup = try backup(bench, options)
    let writers = Writers()
    try writers.start("one") { try device.put([1], at: 0) }
    waitForPending(backup, 1)
    clock.pass(seconds: 60, backup)
    #expect(try backup.pending(limit: 1).first?.waitingNanoseconds == 60_000_000_000)
    // A suspended disk does not wait for it.
    try device.suspend(until: Self.long)
    device.resume()
    #expect(!writers.hasEnded("one"))
    _ = try backup.confirm([0..<1])
    #expect(writers.end(of: "one"))
    try backup.stop(until: Self.long)
    try device.close()
  }

  @Test("a suspended disk's requests are not late: whoever copies it waits as well")
  func suspended() throws {
    let bench = try ChainBench()
    let device = bench.device
    let clock = Clock()
    var options = PushBackup.Options()
    options.deadlineNanoseconds = 10_000_000_000
    options.clock = { clock.now }
    let backup = try backup(bench, options)
    let writers = Writers()
    try writers.start("one") { try device.put([1], at: 0) }
    waitForPending(backup, 1)
    try device.suspend(until: Self.long)
    clock.pass(seconds: 11, backup)
    // It has looked at the clock once it counts from there.
    let isProlonged = backup.state.wait(until: Self.long) { $0.prolonged > 0 ? true : nil }
    #expect(isProlonged == true)
    device.resume()
    clock.pass(seconds: 9, backup)
    #expect(backup.facts.end == nil)
    clock.pass(seconds: 2, backup)
    #expect(writers.end(of: "one"))
    #expect(backup.facts.end != nil)
    try backup.stop(until: Self.long)
    try device.close()
  }

  @Test("with a scratch file nobody waits while there is room; then for room, and to the deadline")
  func spill() throws {
    let bench = try ChainBench()
    let device = bench.device
    try bench.write(0, [UInt8](repeating: 1, count: 5 * Self.cluster))
    let clock = Clock()
    var options = PushBackup.Options()
    options.onDeadline = .spill
    options.deadlineNanoseconds = 10_000_000_000
    options.clock = { clock.now }
    options.scratch = try scratch(bench, clusters: 2)
    let backup = try backup(bench, options)
    for cluster in [0, 1] { try device.put([9], at: UInt64(cluster * Self.cluster)) }
    // What was nowhere takes no room.
    try device.put([9], at: UInt64(40 * Self.cluster))
    let ones = [UInt8](repeating: 1, count: Self.cluster)
    for cluster in [0, 1, 2] { #expect(try frozen(backup, cluster: cluster) == ones) }
    #expect(try frozen(backup, cluster: 40) == [UInt8](repeating: 0, count: Self.cluster))
    #expect(backup.facts.spilledBytes == UInt64(2 * Self.cluster))
    #expect(backup.facts.remaining == 64 && backup.facts.blockedWrites == 0)
    let writers = Writers()
    try writers.start("third") { try device.put([9], at: UInt64(2 * Self.cluster)) }
    waitForPending(backup, 1)
    #expect(try clusters(backup) == [2])
    // Room is as good as its own confirmation.
    _ = try backup.confirm([0..<1])
    #expect(writers.end(of: "third"))
    #expect(try frozen(backup, cluster: 2) == ones)
    #expect(throws: PushBackup.Refusal.released(cluster: 0)) {
      try self.frozen(backup, cluster: 0)
    }
    try writers.start("fourth") { try device.put([9], at: UInt64(3 * Self.cluster)) }
    waitForPending(backup, 1)
    clock.pass(seconds: 10, backup)
    #expect(writers.end(of: "fourth"))
    #expect(backup.facts.end == .failed("a request has waited for 10 seconds"))
    #expect(try device.bytes(UInt64(3 * Self.cluster), 1) == [9])
    try backup.stop(until: Self.long)
    try device.close()
  }

  @Test(
    "a host without room, and an old cluster that cannot be read, cost the backup, not the guest")
  func faults() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    let device = bench.device
    try bench.write(0, [UInt8](repeating: 1, count: 5 * Self.cluster))
    var options = PushBackup.Options()
    options.onDeadline = .spill
    options.deadlineNanoseconds = .max
    options.scratch = try scratch(bench, clusters: 20)
    let backup = try backup(bench, options)
    plan.replace { _, operation, path in
      guard case .write = operation, path.hasSuffix("scratch") else { return nil }
      return .error(28)
    }
    let writers = Writers()
    try writers.start("full") { try device.put([9], at: 0) }
    waitForPending(backup, 1)
    _ = try backup.confirm([0..<1])
    #expect(writers.end(of: "full"))
    // With the next confirmation of what is saved it is tried again; here there is none.
    #expect(options.scratch?.hasRoom == false)
    try backup.stop(until: Self.long)
    let again = PushBackup(
      "c", of: device,
      {
        var options = options
        options.scratch = nil
        return options
      }(), engine: bench.engine)
    _ = try again.start(until: Self.long)
    try again.stop(until: Self.long)
    options.scratch = try scratch(bench, clusters: 20)
    let unreadable = try self.backup(bench, options)
    plan.replace { _, operation, path in
      guard case .read(_, let count) = operation, count == Self.cluster else { return nil }
      return .error(5)
    }
    try device.put([7], at: UInt64(2 * Self.cluster))
    plan.replace { _, _, _ in nil }
    guard case .failed(let reason)? = unreadable.facts.end else {
      Issue.record("it goes on")
      return
    }
    #expect(reason.hasPrefix("cluster 2 cannot be saved"))
    #expect(try device.bytes(UInt64(2 * Self.cluster), 2) == [7, 1])
    try unreadable.stop(until: Self.long)
    try device.close()
  }

  @Test(
    "F1: a frozen read that is overtaken by a write gives what was saved, or nothing, but nothing newer",
    arguments: [false, true])
  func overtaken(isSaved: Bool) throws {
    let plan = FaultPlan { _, _, _ in nil }
    let bench = try ChainBench(probe: plan)
    let device = bench.device
    let ones = [UInt8](repeating: 1, count: Self.cluster)
    try bench.write(0, ones)
    var options = PushBackup.Options()
    if isSaved {
      options.onDeadline = .spill
      options.scratch = try scratch(bench, clusters: 1)
    }
    let backup = try backup(bench, options)
    let isFirst = Locked(true)
    plan.replace { _, operation, _ in
      guard case .read(_, let count) = operation, count == Self.cluster,
        isFirst.withLock({ isFirst in
          defer { isFirst = false }
          return isFirst
        })
      else { return nil }
      // It has looked where the cluster is, and reads it only after this.
      return .stall {
        if !isSaved { _ = try? backup.confirm([0..<1]) }
        try? device.put([UInt8](repeating: 9, count: Self.cluster), at: 0)
      }
    }
    if isSaved {
      #expect(try frozen(backup, cluster: 0) == ones)
    } else {
      #expect(throws: PushBackup.Refusal.released(cluster: 0)) {
        try self.frozen(backup, cluster: 0)
      }
    }
    #expect(try device.bytes(0, 1) == [9])
    #expect(isFirst.withLock { !$0 })
    try backup.stop(until: Self.long)
    try device.close()
  }

  @Test("F9: what is not wanted never waits, and is no part of the backup")
  func mask() throws {
    let bench = try ChainBench()
    let device = bench.device
    var options = PushBackup.Options()
    options.clusters = .these(Bitmap(bytes: [0b0110], count: 4))
    let backup = try backup(bench, options)
    #expect(backup.facts.clustersTotal == 2 && backup.facts.remaining == 2)
    #expect(try backup.left(from: 0, limit: 9) == [1..<3])
    try device.put([9], at: 0)
    try device.put([9], at: UInt64(3 * Self.cluster))
    #expect(!device.writeNow(AlignedBuffer([9]).region, at: UInt64(Self.cluster)))
    #expect(throws: PushBackup.Refusal.released(cluster: 0)) {
      try self.frozen(backup, cluster: 0)
    }
    #expect(try backup.confirm([0..<64]) == 2)
    #expect(device.writeNow(AlignedBuffer([9]).region, at: UInt64(Self.cluster)))
    try backup.stop(until: Self.long)
    try device.close()
  }

  @Test("holes of the frozen disk are told only where they are certain")
  func holes() throws {
    let bench = try ChainBench()
    let device = bench.device
    try bench.write(Self.cluster, [1])
    var options = PushBackup.Options()
    options.onDeadline = .spill
    options.scratch = try scratch(bench, clusters: 4)
    let backup = try backup(bench, options)
    func runs() throws -> [Bool] {
      try backup.runs(offset: 0, length: UInt64(3 * Self.cluster), limit: 9).map(\.isHole)
    }
    #expect(try runs() == [true, false, true])
    // What was there is trimmed, and what was not is written or trimmed: it is as it was to the copier.
    try device.discard(
      offset: UInt64(Self.cluster), length: UInt64(2 * Self.cluster), durable: false)
    #expect(try runs() == [true, false, true])
    try device.put([9], at: 0)
    #expect(try runs() == [true, false, true])
    #expect(try frozen(backup, cluster: 1).prefix(2) == [1, 0])
    #expect(try frozen(backup, cluster: 0).prefix(2) == [0, 0])
    // Of what is released nothing is certain.
    _ = try backup.confirm([0..<1])
    #expect(try runs() == [false, false, true])
    try backup.stop(until: Self.long)
    try device.close()
  }

  @Test("however many requests wait, the engine's other work goes on")
  func aside() throws {
    let bench = try ChainBench()
    let device = bench.device
    let engine = IOEngine(threadLimit: 2, rings: false)
    var options = PushBackup.Options()
    options.onDeadline = .wait
    let backup = PushBackup("b", of: device, options, engine: engine)
    _ = try backup.start(until: Self.long)
    let ended = Monitor(0)
    for cluster in 0..<6 {
      engine.submit {
        try? device.put([1], at: UInt64(cluster * Self.cluster))
        ended.update { $0 += 1 }
      }
    }
    waitForPending(backup, 6)
    let other = Monitor(false)
    engine.submit { other.update { $0 = true } }
    #expect(other.wait(until: Self.long) { $0 ? true : nil } == true)
    _ = try backup.confirm([0..<6])
    #expect(ended.wait(until: Self.long) { $0 == 6 ? true : nil } == true)
    try backup.stop(until: Self.long)
    engine.stop(until: Self.long)
    try device.close()
  }
}
