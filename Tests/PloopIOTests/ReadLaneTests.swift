import Glibc
import PloopIO
import TestSupport
import Testing

/// The same for both ways: what a caller sees does not depend on whether the kernel has rings.
@Suite("Reads on a lane")
struct ReadLaneTests {
  private static let fileBytes = 3 << 20

  private final class Bench: Sendable {
    let folder: TemporaryFolder
    let file: ImageFile
    let engine: IOEngine
    let bell: Bell
    let content: [UInt8]
    let results = Monitor<[Int: Result<Int, IOError>]>([:])

    init(rings: Bool, probe: (any IOProbe)? = nil) throws {
      folder = try TemporaryFolder()
      var random = SeededGenerator(seed: 7)
      content = (0..<fileBytes).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      try ImageFolder(path: folder.path).replace("file", with: content)
      file = try ImageFolder(path: folder.path, probe: probe).open("file", writable: false)
      file.dropFromPageCache()
      engine = IOEngine(threadLimit: 4, rings: rings)
      bell = try Bell()
    }

    func read(_ lane: ReadLane, _ number: Int, into region: ByteRegion, at offset: Int) {
      lane.read(file, into: region, at: UInt64(offset)) { result in
        self.results.update { $0[number] = result }
      }
    }

    /// Completes what the lane has until so many reads are over.
    func finish(_ lane: ReadLane, _ count: Int) -> Bool {
      let deadline = Deadline.after(seconds: 20)
      while !deadline.hasPassed {
        lane.submit()
        lane.reap()
        if results.wait(until: .after(milliseconds: 1), { $0.count == count ? true : nil }) == true
        {
          return true
        }
      }
      return false
    }

    deinit { engine.stop(until: .after(seconds: 10)) }
  }

  @Test("this machine has rings, so that both ways are tested")
  func rings() { #expect(IOEngine().hasRings) }

  @Test("many reads at once each get their own bytes", arguments: [true, false])
  func many(rings: Bool) throws {
    let bench = try Bench(rings: rings)
    let lane = ReadLane(bench.engine, bell: bench.bell)
    var random = SeededGenerator(seed: 11)
    var wanted: [(offset: Int, region: ByteRegion)] = []
    // More than a ring holds at once.
    for number in 0..<500 {
      let count = Int.random(in: 1...20_000, using: &random)
      let offset = Int.random(in: 0..<Self.fileBytes - count, using: &random)
      wanted.append((offset, AlignedBuffer(count: count).region))
      bench.read(lane, number, into: wanted[number].region, at: offset)
    }
    #expect(bench.finish(lane, 500))
    for (number, read) in wanted.enumerated() {
      #expect(try bench.results.withLock { $0[number] }?.get() == read.region.count)
      #expect(
        read.region.bytes == Array(bench.content[read.offset..<read.offset + read.region.count]))
    }
  }

  @Test("a read over the end of the file gets what is there", arguments: [true, false])
  func end(rings: Bool) throws {
    let bench = try Bench(rings: rings)
    let lane = ReadLane(bench.engine, bell: bench.bell)
    let over = AlignedBuffer(count: 10_000).region
    bench.read(lane, 0, into: over, at: Self.fileBytes - 6_000)
    let behind = AlignedBuffer(count: 10_000).region
    bench.read(lane, 1, into: behind, at: Self.fileBytes + 4096)
    #expect(bench.finish(lane, 2))
    #expect(try bench.results.withLock { $0[0] }?.get() == 6_000)
    #expect(over.slice(0, 6_000).bytes == Array(bench.content[(Self.fileBytes - 6_000)...]))
    #expect(try bench.results.withLock { $0[1] }?.get() == 0)
  }

  @Test(
    "faults are met on both ways: errors, short reads, interruptions", arguments: [true, false])
  func faults(rings: Bool) throws {
    let plan = FaultPlan { number, operation, _ in
      guard case .read = operation else { return nil }
      return switch number % 4 {
      case 0: .short
      case 1: nil
      case 2: .error(EIO)
      default: .short
      }
    }
    let bench = try Bench(rings: rings, probe: plan)
    let lane = ReadLane(bench.engine, bell: bench.bell)
    var failures = 0
    for number in 0..<40 {
      let region = AlignedBuffer(count: 8192).region
      bench.read(lane, number, into: region, at: number * 8192)
      #expect(bench.finish(lane, number + 1))
      switch bench.results.withLock({ $0[number] }) {
      case .success(let count):
        #expect(count == 8192)
        #expect(region.bytes == Array(bench.content[number * 8192..<(number + 1) * 8192]))
      case .failure(let error):
        #expect(error.code == EIO)
        failures += 1
      case nil: Issue.record("no result")
      }
    }
    #expect(failures > 0 && failures < 40)
  }

  @Test("a read that stalls holds no other one up", arguments: [true, false])
  func stall(rings: Bool) throws {
    let gate = Monitor(false)
    let plan = FaultPlan { _, operation, _ in
      guard case .read(offset: 0, _) = operation else { return nil }
      return .stall { _ = gate.wait { $0 ? true : nil } }
    }
    let bench = try Bench(rings: rings, probe: plan)
    let lane = ReadLane(bench.engine, bell: bench.bell)
    let regions = (0..<5).map { _ in AlignedBuffer(count: 4096).region }
    bench.read(lane, 0, into: regions[0], at: 0)
    for number in 1..<5 { bench.read(lane, number, into: regions[number], at: number * 4096) }
    #expect(bench.finish(lane, 4))
    #expect(bench.results.withLock { $0.count } == 4)
    gate.update { $0 = true }
    #expect(bench.finish(lane, 5))
  }

  @Test("draining waits for what is under way, and the bell tells of it", arguments: [true, false])
  func drain(rings: Bool) throws {
    let bench = try Bench(rings: rings)
    let lane = ReadLane(bench.engine, bell: bench.bell)
    let regions = (0..<64).map { _ in AlignedBuffer(count: 4096).region }
    for (number, region) in regions.enumerated() {
      bench.read(lane, number, into: region, at: number * 40_960)
    }
    lane.drain()
    if rings { #expect(bench.results.withLock { $0.count } == 64) }
    #expect(bench.results.wait(until: .after(seconds: 20)) { $0.count == 64 ? true : nil } == true)
    for (number, region) in regions.enumerated() {
      #expect(region.bytes == Array(bench.content[number * 40_960..<number * 40_960 + 4096]))
    }
  }
}
