import Logging
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Suspended disks")
struct SuspensionTests {
  /// A service with one disk, `vm`, and a clock that only the test moves.
  private final class Bench {
    private let folder: TemporaryFolder
    private let nanoseconds = Locked<UInt64>(1)
    let service: Service

    init() async throws {
      folder = try TemporaryFolder()
      try Tool.shell("mkdir -p '\(folder.path)/images' '\(folder.path)/state'")
      var configuration = Service.Configuration()
      configuration.suspensionClock = { [nanoseconds] in nanoseconds.withLock { $0 } }
      service = try Service(
        roots: Roots([("main", "\(folder.path)/images")]),
        store: Store(path: "\(folder.path)/state"), engine: IOEngine(threadLimit: 4),
        log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, configuration: configuration)
      try service.recover()
      var create = AttachRequest.CreateRequest(directory: "vm", sizeBytes: 1 << 20)
      create.clusterBytes = 1 << 16
      _ = try await service.attach(
        AttachRequest(id: "vm", source: .create(create)), keeping: nil)
    }

    func pass(seconds: UInt64) {
      nanoseconds.withLock { $0 += seconds * 1_000_000_000 }
      service.suspensions.lookAgain()
    }

    @discardableResult
    func change(
      _ body: (inout DeviceChange) -> Void
    ) async throws(ServiceError) -> DeviceInfo {
      var change = DeviceChange()
      change.caller = "tester"
      body(&change)
      return try await service.change("vm", change, ifRevision: nil)
    }

    func refusal(_ body: (inout DeviceChange) -> Void) async -> ServiceError? {
      do throws(ServiceError) { try await change(body) } catch { return error }
      return nil
    }

    func device() async throws -> DeviceInfo { try await service.device("vm") }

    /// Waits until the disk is as it is wanted; the test's clock does not move meanwhile.
    func device(until isWanted: (DeviceInfo) -> Bool) async throws -> DeviceInfo {
      let deadline = Deadline.after(seconds: 120)
      while true {
        let changes = service.changes
        let device = try await device()
        if isWanted(device) { return device }
        try #require(!deadline.hasPassed)
        _ = await service.change(of: .device("vm"), since: changes, milliseconds: 1_000)
      }
    }

    func events() async throws -> [String] {
      let filter = EventFilter(device: "vm")
      return try await service.events(after: nil, matching: filter, limit: 100).items.map(\.type)
    }

    func end() { #expect(service.stop(until: .after(seconds: 60))) }
  }

  @Test("Who suspends is named; the same again changes nothing, a new limit begins now")
  func holder() async throws {
    let bench = try await Bench()
    let first = try await bench.change { $0.suspended = true }
    #expect(first.state == .suspended && first.suspension?.holder == "tester")
    let suspension = try #require(first.suspension)
    #expect(suspension.until == suspension.since + 300)
    let again = try await bench.change { change in
      change.suspended = true
      change.caller = "another"
    }
    #expect(again.revision == first.revision && again.suspension == suspension)
    let longer = try await bench.change { $0.suspendSeconds = 1_000 }
    #expect(longer.revision > first.revision)
    #expect(longer.suspension?.since == suspension.since && longer.suspension?.holder == "tester")
    #expect((longer.suspension?.until ?? 0) >= suspension.since + 1_000)
    let resumed = try await bench.change { $0.suspended = false }
    #expect(resumed.state == .online && resumed.suspension == nil)
    #expect(
      try await bench.change { $0.suspended = false }.revision == resumed.revision)
    bench.end()
  }

  @Test("A disk resumes by itself when its time has come, and not before")
  func limit() async throws {
    let bench = try await Bench()
    try await bench.change { change in
      change.suspended = true
      change.suspendSeconds = 30
    }
    bench.pass(seconds: 20)
    try await bench.change { $0.suspendSeconds = 30 }
    // What was to happen at 30 s must not any more.
    bench.pass(seconds: 20)
    #expect(try await bench.change { $0.labels = ["k": "v"] }.state == .suspended)
    bench.pass(seconds: 11)
    let device = try await bench.device { $0.state == .online }
    #expect(!device.suspended && device.suspension == nil)
    bench.end()
  }

  @Test("Nobody resumes a disk while noresume is set: no request, no limit")
  func prohibited() async throws {
    let bench = try await Bench()
    let held = try await bench.change { change in
      change.noresume = true
      change.suspended = true
      change.suspendSeconds = 30
    }
    #expect(held.noresume && held.state == .suspended && held.prohibition?.holder == "tester")
    #expect(try await bench.change { $0.noresume = true }.revision == held.revision)
    let refusal = try #require(await bench.refusal { $0.suspended = false })
    #expect(refusal.code == .resumeProhibited && refusal.errno == "EAGAIN")
    #expect(refusal.holder?.id == "tester")
    bench.pass(seconds: 31)
    // Told after a minute, of which the rest passes now; only then it is known that the limit passed
    // without effect.
    bench.pass(seconds: 30)
    let told = try await bench.device { $0.conditions.contains { $0.type == "SuspendedLong" } }
    #expect(told.state == .suspended)
    #expect(told.conditions.first { $0.type == "SuspendedLong" }?.reason == "ResumeProhibited")
    try await bench.change { $0.noresume = false }
    _ = try await bench.device { $0.state == .online }
    bench.end()
  }

  @Test("One request lifts noresume and resumes; all of its members hold, or none")
  func together() async throws {
    let bench = try await Bench()
    let before = try await bench.change { change in
      change.noresume = true
      change.suspended = true
    }
    let refusal = await bench.refusal { change in
      change.labels = ["k": "v"]
      change.noresume = true
      change.suspended = false
    }
    #expect(refusal?.code == .resumeProhibited)
    let same = try await bench.device()
    #expect(same.revision == before.revision && same.labels.isEmpty)
    let resumed = try await bench.change { change in
      change.noresume = false
      change.suspended = false
    }
    #expect(resumed.state == .online && !resumed.noresume)
    // Of a disk that runs, noresume is no contradiction.
    let running = try await bench.change { change in
      change.noresume = true
      change.suspended = false
    }
    #expect(running.state == .online && running.noresume)
    bench.end()
  }

  @Test("Forced, a disk is resumed whoever holds it")
  func forced() async throws {
    let bench = try await Bench()
    try await bench.change { change in
      change.noresume = true
      change.suspended = true
    }
    let resumed = try await bench.change { change in
      change.suspended = false
      change.isForced = true
      change.caller = "admin"
    }
    #expect(resumed.state == .online && !resumed.noresume && resumed.prohibition == nil)
    let wrong = [
      await bench.refusal { $0.isForced = true },
      await bench.refusal { change in
        change.suspended = true
        change.isForced = true
      },
      await bench.refusal { $0.suspendSeconds = 5 },
      await bench.refusal { change in
        change.suspended = false
        change.suspendSeconds = 5
      },
    ]
    #expect(wrong.map { $0?.code } == Array(repeating: .valueImpossible, count: 4))
    #expect(
      wrong.map { $0?.pointer }.prefix(3) == ["/force", "/force", "/suspend_timeout_seconds"])
    bench.end()
  }

  @Test("After a minute it is told, once")
  func told() async throws {
    let bench = try await Bench()
    try await bench.change { $0.suspended = true }
    bench.pass(seconds: 59)
    try await bench.change { $0.labels = ["k": "v"] }
    #expect(!(try await bench.events()).contains("device.suspended"))
    bench.pass(seconds: 2)
    let told = try await bench.device { $0.conditions.contains { $0.type == "SuspendedLong" } }
    #expect(
      told.conditions.first { $0.type == "SuspendedLong" }?.reason == "NotResumed"
        && told.state == .suspended)
    bench.pass(seconds: 100)
    try await bench.change { $0.suspended = false }
    #expect(try await bench.events().filter { $0 == "device.suspended" }.count == 1)
    #expect(try await bench.device().conditions.contains { $0.type == "SuspendedLong" } == false)
    bench.end()
  }

  @Test("A limit outlives the process, whatever has become of the host's clock")
  func afterRestart() {
    let now = Locked<UInt64>(1_000_000_000)
    let timer = SuspensionTimer { now.withLock { $0 } }
    var record = DeviceRecord(
      id: "a", uuid: "u", revision: 1, deltas: [], readonly: false, suspended: true,
      suspension: Suspension(holder: "h", since: 1_000, until: 1_300), autostart: true, labels: [:],
      sizeBytes: 0, clusterBytes: 0, version: 2, isAttached: true, createdAt: 0, updatedAt: 0)
    func due(after seconds: UInt64) -> [SuspensionTimer.Action] {
      now.withLock { $0 += seconds * 1_000_000_000 }
      return timer.take().map(\.action)
    }
    // 100 of its seconds had passed.
    timer.follow(record, wallClock: 1_100)
    #expect(due(after: 0) == [.tell])
    record.suspension?.isTold = true
    // The clock is set back; what is measured already goes on.
    timer.follow(record, wallClock: 0)
    #expect(due(after: 199) == [])
    #expect(due(after: 1) == [.resume])
    #expect(due(after: 100_000) == [])
    // The next process sees a clock that was set far back.
    timer.forget("a")
    timer.follow(record, wallClock: -1e12)
    #expect(due(after: Suspension.mostSeconds - 1) == [])
    #expect(due(after: 1) == [.resume])
  }
}
