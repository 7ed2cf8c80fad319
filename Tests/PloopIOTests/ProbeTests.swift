import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("Watching and failing system calls")
struct ProbeTests {
  private let keep: TemporaryFolder

  init() throws { keep = try TemporaryFolder() }

  private func file(_ probe: any IOProbe) throws -> ImageFile {
    let plain = try ImageFolder(path: keep.path)
    _ = try plain.create("image")
    return try ImageFolder(path: keep.path, probe: probe).open("image", writable: true)
  }

  @Test("a trace holds what was written, in order, and says when a sync began and succeeded")
  func traces() throws {
    let trace = IOTrace()
    let file = try file(trace)
    try file.write(AlignedBuffer([1, 2, 3]).region, at: 10)
    try file.truncate(to: 8192)
    try file.sync()
    try file.punchHole(offset: 0, length: 4096)
    try file.allocate(offset: 8192, length: 4096)
    trace.mark(7)
    let path = "\(keep.path)/image"
    #expect(
      trace.events.map { "\($0)" } == [
        "\(IOTrace.Event.write(path: path, offset: 10, bytes: [1, 2, 3]))",
        "\(IOTrace.Event.truncate(path: path, size: 8192))",
        "\(IOTrace.Event.syncStarted(path: path))", "\(IOTrace.Event.synced(path: path))",
        "\(IOTrace.Event.zero(path: path, offset: 0, length: 4096))",
        "\(IOTrace.Event.allocate(path: path, offset: 8192, length: 4096))",
        "\(IOTrace.Event.mark(7))",
      ])
  }

  @Test("a plan fails exactly the call that it names, and the call is not made")
  func failsOne() throws {
    let plan = FaultPlan(at: 1, .error(EIO))
    let file = try file(plan)
    try file.write(AlignedBuffer([1]).region, at: 0)
    let error = #expect(throws: IOError.self) { try file.write(AlignedBuffer([2]).region, at: 0) }
    #expect(error?.code == EIO)
    let byte = AlignedBuffer(count: 1)
    #expect(try file.read(into: byte.region, at: 0) == 1)
    #expect(byte.region[0] == 1)
    try file.write(AlignedBuffer([3]).region, at: 0)
    #expect(plan.callCount == 4)
    #expect(plan.faultCount == 1)
  }

  @Test("interrupted and short transfers are carried on until every byte is there")
  func carriesOn() throws {
    let plan = FaultPlan { number, _, _ in number % 2 == 0 ? .error(EINTR) : .short }
    let file = try file(plan)
    let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    try file.write(AlignedBuffer(bytes).region, at: 5)
    let back = AlignedBuffer(count: 1000)
    #expect(try file.read(into: back.region, at: 5) == 1000)
    #expect(back.region.bytes == bytes)
    #expect(plan.faultCount > 10)
    try file.sync()
    try file.truncate(to: 3)
    #expect(try file.size() == 3)
  }

  @Test("a stalled call waits for its closure and then succeeds")
  func stalls() throws {
    let released = Monitor(false)
    let waited = Locked(false)
    let plan = FaultPlan(
      at: 0,
      .stall {
        let seen: Bool? = released.wait(until: .after(seconds: 10)) { $0 ? true : nil }
        waited.withLock { $0 = seen == true }
      })
    let file = try file(plan)
    let writer = try Thread(name: "writer") { try? file.write(AlignedBuffer([9]).region, at: 0) }
    #expect(try file.size() == 0)
    released.update { $0 = true }
    writer.join()
    #expect(waited.withLock { $0 })
    #expect(try file.size() == 1)
  }

  @Test("operations on names can be failed as well", arguments: [0, 1, 2, 3])
  func folders(number: Int) throws {
    let plan = FaultPlan(at: number, .error(EIO))
    let folder = try ImageFolder(path: keep.path, probe: plan)
    #expect(throws: IOError.self) {
      _ = try folder.create("a")
      try folder.rename("a", to: "b")
      try folder.sync()
      try folder.unlink("b")
    }
    #expect(plan.faultCount == 1)
    #expect(folder.contains("a") == (number == 1))
    #expect(folder.contains("b") == (number > 1))
  }
}
