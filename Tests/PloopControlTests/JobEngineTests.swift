import Glibc
import Logging
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

/// Work that does what a test tells it to.
private struct ScriptedJob: JobWork {
  static let type = "scripted"
  static let phases = ["working"]
  static let isResumable = false
  /// Steps that a job may take, by its name; each takes one away.
  static let steps = Monitor<[String: Int]>([:])

  /// Failures that are still to come, by a job's name.
  static let failures = Locked<[String: [ServiceError]]>([:])

  private let name: String
  private let total: UInt64

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {
    var parameters = JobParameters(parameters)
    name = try parameters.text("name") ?? ""
    total = try parameters.number("total") ?? 1
    try parameters.finish()
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    ["name": .text(name), "total": .number(total)]
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    JobPlan(clusters: total, bytes: total, requiredBytes: 0)
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    control.enter(phase: "working")
    control.total(clusters: total, bytes: total)
    for _ in 0..<total {
      // A step that may be taken, or something else that ends the waiting.
      while true {
        try control.checkpoint()
        let name = name
        let taken: Bool? = Self.steps.wait(until: .after(milliseconds: 5)) { steps in
          guard let left = steps[name], left > 0 else { return nil }
          steps[name] = left - 1
          return true
        }
        if taken == true { break }
      }
      control.advance(clusters: 1, bytes: 1)
    }
    try control.commit()
    let failure = Self.failures.withLock { failures -> ServiceError? in
      guard failures[name]?.isEmpty == false else { return nil }
      return failures[name]?.removeFirst()
    }
    if let failure { throw .failed(failure) }
    return ["steps": .number(total)]
  }
}

@Suite("The queue of jobs")
struct JobEngineTests {
  private final class Bench {
    let folder: TemporaryFolder
    private var running: Service?

    init() throws {
      folder = try TemporaryFolder()
      try Tool.shell("mkdir -p '\(folder.path)/images' '\(folder.path)/state'")
      running = try Bench.start(folder.path)
    }

    private static func start(_ path: String) throws -> Service {
      let service = try Service(
        roots: Roots([("main", "\(path)/images")]), store: Store(path: "\(path)/state"),
        engine: IOEngine(threadLimit: 4),
        log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
        configuration: Service.Configuration(), registry: JobRegistry([ScriptedJob.self]))
      try service.recover()
      return service
    }

    func attach(_ id: String) async throws {
      var create = AttachRequest.CreateRequest(directory: id, sizeBytes: 1 << 20)
      create.clusterBytes = 1 << 16
      _ = try await service.attach(
        AttachRequest(id: id, source: .create(create)), keeping: nil)
    }

    /// Ends this life of the service in good order, and begins another.
    func restart(_ meanwhile: (Store) throws -> Void = { _ in }) async throws {
      #expect(try service.stop(until: .after(seconds: 600)))
      running = nil
      // Tasks and threads of the last life let go of the state folder in their own time.
      let deadline = Deadline.after(seconds: 600)
      while running == nil {
        do {
          try meanwhile(try Store(path: "\(folder.path)/state"))
          running = try Bench.start(folder.path)
        } catch let error as ServiceError {
          guard error.code == .imageInUse, !deadline.hasPassed else { throw error }
          // What is left of it may need this thread.
          await Task.yield()
        }
      }
    }

    var service: Service { get throws { try #require(running) } }

    func add(
      _ name: String, total: UInt64 = 1, on device: String = "vm",
      _ change: (inout JobRequest) -> Void = { _ in }
    ) async throws -> JobInfo {
      var request = JobRequest(type: "scripted", device: device)
      request.parameters = ["name": .text(name), "total": .number(total)]
      change(&request)
      return try await service.addJob(request, keeping: nil)
    }

    /// Waits until a job is as it is wanted.
    func job(
      _ id: String, until isWanted: (JobInfo) -> Bool
    ) async throws -> JobInfo {
      let deadline = Deadline.after(seconds: 600)
      while true {
        let changes = try service.changes
        let job = try await service.job(id)
        if isWanted(job) { return job }
        guard !deadline.hasPassed else {
          throw Tool.Failure(description: "the job stays \(job.record.state)")
        }
        _ = try await service.change(of: .job(id), since: changes, milliseconds: 100)
      }
    }
  }

  private func allow(_ name: String, _ steps: Int) {
    ScriptedJob.steps.update { $0[name, default: 0] += steps }
  }

  @Test("runs one job of a device, then the next; a pause holds it, a cancel ends it")
  func turns() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    let first = try await bench.add("turns", total: 4)
    let second = try await bench.add("turns")
    _ = try await bench.job(first.record.id) { $0.record.state == .running }
    let waiting = try await bench.job(second.record.id) { !$0.waitingFor.isEmpty }
    #expect(waiting.waitingFor.map(\.kind) == [.job])
    #expect(waiting.waitingFor[0].id == first.record.id)
    var pause = JobChange()
    pause.isPaused = true
    _ = try await bench.service.changeJob(first.record.id, pause, ifRevision: nil)
    _ = try await bench.job(first.record.id) { $0.record.state == .paused }
    allow("turns", 1)
    pause.isPaused = false
    _ = try await bench.service.changeJob(first.record.id, pause, ifRevision: nil)
    _ = try await bench.job(first.record.id) { $0.record.progress.doneClusters == 1 }
    _ = try await bench.service.cancelJob(first.record.id, ifRevision: nil)
    let ended = try await bench.job(first.record.id) { $0.record.state.isFinal }
    #expect(ended.record.state == .cancelled && ended.record.progress.doneClusters == 1)
    allow("turns", 1)
    _ = try await bench.job(second.record.id) { $0.record.state == .succeeded }
    let again = try await bench.service.retryJob(first.record.id, ifRevision: nil)
    #expect(again.record.attempt == 2)
    allow("turns", 4)
    let done = try await bench.job(first.record.id) { $0.record.state == .succeeded }
    #expect(done.record.result == ["steps": .number(4)])
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("a running job and a queued one of the same key both come back after the service ends")
  func sameKey() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    let first = try await bench.add("same", total: 2) { $0.dedupeKey = "nightly" }
    _ = try await bench.job(first.record.id) { $0.record.state == .running }
    let second = try await bench.add("same") { $0.dedupeKey = "nightly" }
    #expect(second.record.id != first.record.id)
    let third = try await bench.add("same") { $0.dedupeKey = "nightly" }
    #expect(third.record.id == second.record.id && third.isKnown)
    // Nobody keeps others' jobs away, or hears of them, by their key.
    try await bench.attach("other")
    let others = try await bench.add("same", on: "other") {
      $0.dedupeKey = "nightly"
      $0.after = [first.record.id]
    }
    #expect(others.record.id != second.record.id && !others.isKnown)
    _ = try await bench.service.cancelJob(others.record.id, ifRevision: nil)
    // It leaves its device, and has it no longer.
    try bench.service.jobs.interrupt(device: "vm", until: .after(seconds: 600))
    #expect(try bench.service.jobs.holder(of: "vm") == nil)
    try bench.service.jobs.admit(device: "vm")
    _ = try await bench.job(first.record.id) { $0.record.state == .running }
    try await bench.restart()
    allow("same", 3)
    for id in [first.record.id, second.record.id] {
      _ = try await bench.job(id) { $0.record.state == .succeeded }
    }
    let back = try await bench.service.job(first.record.id)
    #expect(back.record.interruptions == 2)
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("a job that others wait for stays, and one that is not known lets nobody wait for ever")
  func successors() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    allow("first", 1)
    let first = try await bench.add("first")
    _ = try await bench.job(first.record.id) { $0.record.state == .succeeded }
    var settings = QueueChange()
    settings.isPaused = true
    _ = try await bench.service.changeQueue(settings)
    let second = try await bench.add("second") { $0.after = [first.record.id] }
    await #expect(throws: ServiceError.self) {
      try await bench.service.removeJob(first.record.id, ifRevision: nil)
    }
    try bench.service.store.write { transaction throws(ServiceError) in
      try transaction.removeJob(first.record.id)
    }
    settings.isPaused = false
    _ = try await bench.service.changeQueue(settings)
    let orphan = try await bench.job(second.record.id) { $0.record.state.isFinal }
    #expect(orphan.record.error?.code == "dependency-failed")
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("is tried again as often as its request says, and only for what may pass")
  func retries() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    let passing = ServiceError(.ioError, "the disk is away", errno: "EIO")
    ScriptedJob.failures.withLock { failures in
      failures["passes"] = [passing, passing]
      failures["stays"] = [passing, passing, passing]
      failures["final"] = [ServiceError(.imageCorrupt, "it is broken")]
    }
    func add(_ name: String) async throws -> String {
      allow(name, 3)
      return try await bench.add(name) { request in
        var retry = JobRetry()
        retry.maxAttempts = 3
        retry.backoffSeconds = 0
        request.retry = retry
      }.record.id
    }
    let passes = try await bench.job(try await add("passes")) { $0.record.state.isFinal }.record
    #expect(passes.state == .succeeded && passes.attempt == 3 && passes.error == nil)
    #expect(passes.interruptions == 0)
    let log = try await bench.service.jobLog(passes.id, after: 0, limit: 10)
    #expect(log.count { $0.message.contains("the disk is away") } == 2)
    let stays = try await bench.job(try await add("stays")) { $0.record.state.isFinal }.record
    #expect(stays.state == .failed && stays.attempt == 3 && stays.error?.code == "io-error")
    let final = try await bench.job(try await add("final")) { $0.record.state.isFinal }.record
    #expect(final.state == .failed && final.attempt == 1)
    #expect(final.error?.code == "image-corrupt")
    // Behind its commit point it has failed; the next attempt is one that a cancel can end.
    #expect(final.isCommitted)
    var paused = QueueChange()
    paused.isPaused = true
    _ = try await bench.service.changeQueue(paused)
    #expect(
      try await bench.service.retryJob(final.id, ifRevision: nil).record.isCommitted == false)
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("waits for its next attempt over a restart, with what the last one failed of")
  func retryWaits() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    ScriptedJob.failures.withLock {
      $0["backoff"] = [ServiceError(.insufficientSpace, "full", errno: "ENOSPC")]
    }
    allow("backoff", 1)
    let id = try await bench.add("backoff") { request in
      var retry = JobRetry()
      retry.maxAttempts = 2
      retry.backoffSeconds = 3_600
      request.retry = retry
    }.record.id
    _ = try await bench.job(id) { $0.record.attempt == 2 }
    try await bench.restart()
    let job = try await bench.job(id) { !$0.waitingFor.isEmpty }
    #expect(job.record.state == .queued && job.record.phase == "retrying")
    #expect(job.record.error?.code == "insufficient-space")
    #expect(job.waitingFor.map(\.kind) == [.time])
    #expect(job.record.interruptions == 0)
    let cancelled = try await bench.service.cancelJob(id, ifRevision: nil)
    #expect(cancelled.record.state == .cancelled)
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("a plan says how long the work takes at the tightest limit")
  func plans() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    var request = JobRequest(type: "scripted", device: "vm")
    request.parameters = ["total": .number(1_001)]
    #expect(try await bench.service.planJob(request).estimatedSeconds == nil)
    request.limits.bytesPerSecond = 100
    #expect(try await bench.service.planJob(request).estimatedSeconds == 11)
    var change = QueueChange()
    change.limits.bytesPerSecond = 10
    _ = try await bench.service.changeQueue(change)
    #expect(try await bench.service.planJob(request).estimatedSeconds == 101)
    request.limits.operationsPerSecond = 2
    #expect(try await bench.service.planJob(request).estimatedSeconds == 501)
    change.limits.bytesPerSecond = nil
    change.limits.operationsPerSecond = 1
    let queue = try await bench.service.changeQueue(change)
    #expect(queue.settings.limits.bytesPerSecond == 10)
    #expect(try await bench.service.planJob(request).estimatedSeconds == 1_001)
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("a limit of operations holds while the job runs, until it is changed")
  func operations() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    let held = try await bench.add("held", total: 1_000_000) {
      $0.limits.operationsPerSecond = 1
    }.record.id
    allow("held", 100_000)
    _ = try await bench.job(held) { $0.record.progress.doneClusters > 0 }
    #expect(try await bench.service.job(held).record.progress.doneClusters < 1_000)
    var change = JobChange()
    change.limits.bytesPerSecond = 1 << 40
    let both = try await bench.service.changeJob(held, change, ifRevision: nil).record.limits
    #expect(both.operationsPerSecond == 1 && both.bytesPerSecond == 1 << 40)
    change.limits.operationsPerSecond = 0
    _ = try await bench.service.changeJob(held, change, ifRevision: nil)
    _ = try await bench.job(held) { $0.record.progress.doneClusters == 100_000 }
    _ = try await bench.service.cancelJob(held, ifRevision: nil)
    _ = try await bench.job(held) { $0.record.state.isFinal }
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("what went wrong on the way is said with the job, newest last, and once")
  func warnings() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    let refusals = [ServiceError(.ioError, "a disk failed"), ServiceError(.ioError, "again")]
    ScriptedJob.failures.withLock { $0["warned"] = refusals }
    allow("warned", 2)
    let id = try await bench.add("warned") {
      $0.retry = JobRetry()
      $0.retry?.maxAttempts = 3
      $0.retry?.backoffSeconds = 0
    }.record.id
    let attempted = try await bench.job(id) {
      $0.record.attempt == 3 && $0.record.state == .running
    }
    let said = [
      "a disk failed; attempt 2 begins in 0 s", "again; attempt 3 begins in 0 s",
    ]
    #expect(attempted.record.warnings == said)
    for _ in 0..<2 {
      // As a crash leaves it.
      try await bench.restart { store in
        try store.write { transaction throws(ServiceError) in
          guard var job = try transaction.job(id) else { return }
          job.state = .running
          try transaction.save(job)
        }
      }
    }
    let again = try await bench.service.job(id).record
    #expect(again.warnings == said + [JobRecord.interruption])
    let log = try await bench.service.jobLog(id, after: 0, limit: 100)
    #expect(log.filter { $0.level == "warning" }.count >= 3)
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("of many warnings the last are kept, and of a long one its beginning")
  func manyWarnings() {
    var record = JobRecord(
      id: ULID.make(), type: "scripted", device: "vm", parameters: [:], phases: [], priority: 1,
      after: [], limits: JobLimits(), labels: [:], createdAt: 0)
    #expect(record.warnings == nil)
    for number in 0..<25 { record.warn("\(number)") }
    record.warn(String(repeating: "x", count: 2_000))
    #expect(record.warnings?.count == 10 && record.warnings?.first == "16")
    #expect((record.warnings ?? []).last?.count == 500)
  }

  @Test("a cancel is not lost where the service ends at the same time")
  func cancelledAndInterrupted() throws {
    var record = JobRecord(
      id: ULID.make(), type: "scripted", device: "vm", parameters: [:], phases: [], priority: 1,
      after: [], limits: JobLimits(), labels: [:], createdAt: 0)
    let queue = Locked(JobThrottle(JobLimits(), now: monotonicNanoseconds()))
    let control = JobControl(record, queue: queue) { _ in }
    _ = control.cancel()
    control.interrupt()
    do throws(JobStop) {
      try control.checkpoint()
      Issue.record("it goes on")
    } catch {
      if case .cancelled = error {} else { Issue.record("\(error)") }
    }
    record.state = .cancelling
    record.comeBack()
    #expect(record.state == .cancelled)
    record.state = .cancelling
    record.isCommitted = true
    record.comeBack()
    #expect(record.state == .queued)
  }

  @Test(
    "a cancel that comes while a job is being begun reaches it, and it keeps its device until then")
  func cancelledInTheBeginning() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    let jobs = try bench.service.jobs
    jobs.interrupt(device: "vm", until: .after(milliseconds: 0))
    let id = try await bench.add("beginning").record.id
    // It runs, and who cancels it has looked for its control a moment too early.
    try jobs.update(id) { $0.state = .running }
    let job = try await bench.service.cancelJob(id, ifRevision: nil)
    #expect(job.record.state == .cancelling)
    #expect(jobs.holder(of: "vm")?.id == id)
    try jobs.update(id) { $0.finish(.cancelled) }
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("a device that goes interrupts its job also while that is being begun")
  func interruptedInTheBeginning() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    let jobs = try bench.service.jobs
    jobs.interrupt(device: "vm", until: .after(milliseconds: 0))
    let job = try await bench.add("interrupted").record
    let control = JobControl(job, queue: jobs.throttle) { _ in }
    jobs.state.update { $0.controls[job.id] = control }
    jobs.interrupt(device: "vm", until: .after(milliseconds: 0))
    #expect(control.now.isInterrupted)
    jobs.state.update { $0.controls[job.id] = nil }
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("the end of one attempt takes nothing from the next")
  func attempts() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    let jobs = try bench.service.jobs
    let job = try await bench.add("attempts").record
    _ = try await bench.job(job.id) { $0.record.state == .running }
    let next = JobControl(job, queue: jobs.throttle) { _ in }
    let first = jobs.state.update { state in
      defer { state.controls[job.id] = next }
      return state.controls[job.id]
    }
    // None begins meanwhile.
    jobs.interrupt(device: "vm", until: .after(milliseconds: 0))
    let changes = jobs.state.withLock { $0.changes }
    first?.interrupt()
    let left: Bool? = jobs.state.wait(until: .after(seconds: 600)) {
      $0.changes != changes ? $0.controls[job.id] === next : nil
    }
    #expect(left == true)
    #expect(try await bench.service.job(job.id).record.state == .queued)
    jobs.state.update { $0.controls[job.id] = nil }
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("a job whose device goes at the moment of its beginning waits for it")
  func deviceGone() async throws {
    let bench = try Bench()
    try await bench.attach("vm")
    ScriptedJob.failures.withLock {
      $0["gone"] = [ServiceError(.deviceNotFound, "there is no device vm", errno: "ENOENT")]
    }
    allow("gone", 2)
    let id = try await bench.add("gone").record.id
    let job = try await bench.job(id) { $0.record.state.isFinal }.record
    #expect(job.state == .succeeded && job.attempt == 1 && job.interruptions == 1)
    #expect(try bench.service.stop(until: .after(seconds: 600)))
  }

  @Test("who waits for something is heard in between, however soon it is said to be over")
  func heardWhileWaiting() throws {
    let record = JobRecord(
      id: ULID.make(), type: "scripted", device: "vm", parameters: [:], phases: [], priority: 1,
      after: [], limits: JobLimits(), labels: [:], createdAt: 0)
    let queue = Locked(JobThrottle(JobLimits(), now: monotonicNanoseconds()))
    let control = JobControl(record, queue: queue) { _ in }
    control.interrupt()
    let blocker = JobBlocker(kind: .space, id: nil, detail: "full")
    #expect(throws: JobStop.self) { try control.wait(for: blocker) { true } }
  }
}
