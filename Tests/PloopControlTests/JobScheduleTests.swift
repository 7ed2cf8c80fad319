import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Whose turn it is")
struct JobScheduleTests {
  private static let now = 1_000_000.0

  private func job(
    _ id: String, _ device: String = "vm1", priority: Int = 50, waited: Double = 0,
    _ change: (inout JobRecord) -> Void = { _ in }
  ) -> JobSchedule.Entry {
    var record = JobRecord(
      id: id, type: "merge", device: device, parameters: [:], phases: [], priority: priority,
      after: [], limits: JobLimits(), labels: [:], createdAt: Self.now - waited)
    change(&record)
    return JobSchedule.Entry(record: record, filesystem: 7, deviceProblem: nil)
  }

  private func decide(
    _ entries: [JobSchedule.Entry], ended: [String: JobState] = [:],
    _ change: (inout QueueSettings) -> Void = { _ in }
  ) -> (start: [String], waiting: [String: [JobBlocker.Kind]]) {
    var settings = QueueSettings()
    settings.totalSlots = 10
    settings.slotsPerFilesystem = 10
    change(&settings)
    let (start, waiting) = JobSchedule(settings: settings, now: Self.now, ended: { ended[$0] })
      .decide(entries)
    return (start, waiting.mapValues { $0.map(\.kind) })
  }

  @Test("the highest priority comes first, and ten minutes are worth one step")
  func order() {
    let jobs = [
      job("a", "vm1", priority: 50), job("b", "vm2", priority: 51),
      job("c", "vm3", priority: 50, waited: 1_260), job("d", "vm4", priority: 0, waited: 36_000),
    ]
    #expect(decide(jobs).start == ["d", "c", "b", "a"])
    #expect(decide(jobs) { $0.totalSlots = 1 }.start == ["d"])
  }

  @Test("slots of a target are for the jobs that name it, whatever device they have or have not")
  func targets() {
    func entry(_ id: String, _ device: String?, on target: String?) -> JobSchedule.Entry {
      var entry = job(id)
      entry.record.device = device
      entry.filesystem = nil
      if let target { entry.record.parameters["target"] = .text(target) }
      entry.targetSlots = target == "gone" ? nil : 1
      return entry
    }
    var running = entry("r", nil, on: "nas")
    running.record.state = .running
    let entries = [
      running, entry("a", "vm1", on: "nas"), entry("b", nil, on: "other"), entry("c", nil, on: nil),
      entry("d", nil, on: "gone"), entry("e", nil, on: "other"),
    ]
    let (start, waiting) = decide(entries)
    #expect(start == ["b", "c", "d"])
    #expect(waiting == ["a": [.target], "e": [.target]])
  }

  @Test("one job on a device, slots for all and for a file system")
  func slots() {
    let running = job("r", "vm1") { $0.state = .running }
    let other = decide([running, job("a", "vm1"), job("b", "vm2")])
    #expect(other.start == ["b"])
    #expect(other.waiting == ["a": [.job]])
    let full = decide([running, job("b", "vm2")]) { $0.totalSlots = 1 }
    #expect(full.waiting == ["b": [.slot]])
    let disk = decide([running, job("b", "vm2")]) { $0.slotsPerFilesystem = 1 }
    #expect(disk.waiting == ["b": [.filesystem]])
    var elsewhere = job("b", "vm2")
    elsewhere.filesystem = 8
    #expect(decide([running, elsewhere]) { $0.slotsPerFilesystem = 1 }.start == ["b"])
    for state in [JobState.paused, .cancelling] {
      let held = job("r", "vm1") { $0.state = state }
      #expect(decide([held, job("a", "vm1")]).waiting == ["a": [.job]])
    }
  }

  @Test("what has to come first, a time, a device that is not there, and a pause are waited for")
  func blockers() {
    let after = job("a") { $0.after = ["x"] }
    #expect(decide([after]).waiting == ["a": [.job]])
    #expect(decide([after], ended: ["x": .failed]).waiting == ["a": [.job]])
    #expect(decide([after], ended: ["x": .succeeded]).start == ["a"])
    #expect(decide([job("a") { $0.notBefore = Self.now + 1 }]).waiting == ["a": [.time]])
    #expect(decide([job("a") { $0.notBefore = Self.now }]).start == ["a"])
    var gone = job("a")
    gone.deviceProblem = "it is not attached"
    #expect(decide([gone]).waiting == ["a": [.device]])
    #expect(decide([job("a") { $0.isPaused = true }]).waiting == ["a": [.queuePaused]])
    #expect(decide([job("a")]) { $0.isPaused = true }.waiting == ["a": [.queuePaused]])
  }

  @Test("a throttle lets through what it says, whatever the steps, and follows a change at once")
  func throttle() {
    let second: UInt64 = 1_000_000_000
    var now: UInt64 = 5 * second
    var throttle = Throttle(perSecond: 1_000_000, now: now)
    var moved: UInt64 = 0
    while now < 25 * second {
      throttle.take(70_000, now: now)
      moved += 70_000
      now += throttle.wait(now: now)
    }
    #expect((19_900_000...20_400_000).contains(moved))
    throttle.take(10_000_000, now: now)
    #expect(throttle.wait(now: now) > 9 * second)
    throttle.change(perSecond: 100_000_000, now: now)
    #expect(throttle.wait(now: now) <= second / 4 + 1)
    throttle.change(perSecond: 1, now: now)
    throttle.take(.max / 2, now: now)
    #expect(throttle.wait(now: now) == 1_000_000_000 * second + 1)
    throttle.change(perSecond: 0, now: now)
    throttle.take(.max / 2, now: now)
    #expect(throttle.wait(now: now) == 0)
  }

  @Test("of bytes and operations the tightest limit holds, and both are changed at once")
  func throttles() {
    let second: UInt64 = 1_000_000_000
    let now = 5 * second
    var limits = JobLimits()
    limits.bytesPerSecond = 1_000
    limits.operationsPerSecond = 10
    var throttle = JobThrottle(limits, now: now)
    throttle.take(bytes: 2_000, operations: 10, now: now)
    #expect(throttle.wait(now: now) == 2 * second + 1)
    throttle.take(bytes: 0, operations: 30, now: now)
    #expect(throttle.wait(now: now) == 4 * second + 1)
    limits.operationsPerSecond = 0
    throttle.change(limits, now: now)
    #expect(throttle.wait(now: now) == 2 * second + 1)
    throttle.take(bytes: .max / 2, operations: 1, now: now)
    #expect(throttle.wait(now: now) == 3_600 * second)
    throttle.change(JobLimits(), now: now)
    #expect(throttle.wait(now: now) == 0)
  }

  @Test("names of jobs sort by the time at which they were made")
  func names() {
    let first = ULID.make()
    let start = monotonicNanoseconds()
    while monotonicNanoseconds() - start < 3_000_000 {}
    let second = ULID.make()
    #expect(first.count == 26 && first < second)
    #expect(Set((0..<1_000).map { _ in ULID.make() }).count == 1_000)
  }
}
