internal import FoundationEssentials
internal import Logging
internal import PloopIO

/// The queue of jobs: keeps them, starts each when it is its turn, and writes down what becomes of
/// them. A job that was accepted is in the database; it goes on whatever happens to the process.
///
/// A running job has a thread, and its device: that it has is nothing but its state, so no claim
/// outlives its job.
final class JobEngine: Sendable {
  struct State {
    /// Jobs that are not over.
    var jobs: [String: JobRecord] = [:]
    var controls: [String: JobControl] = [:]
    var waitingFor: [String: [JobBlocker]] = [:]
    /// Devices that are being detached: no job begins on them.
    var leaving: Set<String> = []
    var settings = QueueSettings()
    /// Jobs that were being cancelled when an earlier life ended, until what they left is removed.
    var discarding: [String] = []
    /// Of how many what they left is being removed.
    var discards = 0
    var hasStarted = false
    var isStopping = false
    /// How often something has changed that may let a job begin.
    var changes: UInt64 = 0
  }

  /// An end that a job can come to.
  struct JobEnd: Hashable, Comparable {
    let type: String
    let outcome: JobState

    static func < (left: JobEnd, right: JobEnd) -> Bool {
      (left.type, left.outcome.rawValue) < (right.type, right.outcome.rawValue)
    }
  }

  let store: Store
  let log: Logger
  let state = Monitor(State())
  let throttle: Locked<JobThrottle>
  let registry: JobRegistry
  /// Knows of jobs what another node needs that gets their devices; nil where there is no other.
  private let fleet: Fleet?
  let changed: @Sendable (_ job: String) -> Void
  let progressed: @Sendable (JobRecord) -> Void
  /// How many have ended, and how.
  let finished = Locked<[JobEnd: UInt64]>([:])
  /// How long those took that had begun, by type.
  let durations = Locked<[String: Metric.Histogram]>([:])
  /// Held while a job is changed: its record in memory and on the disk are the same.
  private let writing = Locked(())

  /// - Parameters:
  ///   - changed: told, with its id, about each job that has changed.
  ///   - progressed: told about each job that has come further, once that is durable.
  init(
    store: Store, log: Logger, registry: JobRegistry, fleet: Fleet? = nil, openLimit: Int,
    changed: @escaping @Sendable (_ job: String) -> Void,
    progressed: @escaping @Sendable (JobRecord) -> Void
  ) {
    self.store = store
    self.log = log
    self.registry = registry
    self.fleet = fleet
    self.openLimit = openLimit
    self.changed = changed
    self.progressed = progressed
    throttle = Locked(JobThrottle(JobLimits(), now: monotonicNanoseconds()))
  }

  // MARK: Beginning and end

  /// Takes up the jobs of an earlier life; none begins before ``start(_:)``.
  ///
  /// - Parameter isHandedOver: whether a device's disk is not ours any more, since a job has handed it over: it
  ///   cannot be cancelled, whether it came to saying so or not.
  func load(
    isHandedOver: (_ device: String, _ job: String) -> Bool = { _, _ in false },
    isElsewhere: (JobRecord) -> Bool = { _ in false }
  ) throws(ServiceError) {
    let (jobs, discarding, settings) = try store.write { transaction throws(ServiceError) in
      var jobs: [JobRecord] = []
      var discarding: [String] = []
      for var job in try transaction.openJobs() {
        // Of a fleet's device: they come with it, to whoever has it.
        if isElsewhere(job) {
          try transaction.removeJob(job.id)
          continue
        }
        if endsWithoutDisk(job.type), let device = job.device, isHandedOver(device, job.id) {
          job.isCommitted = true
        }
        // What it has left is removed first.
        if job.isCancelled {
          discarding.append(job.id)
        } else if job.state.isActive {
          try transaction.log(job.id, "warning", JobRecord.interruption)
          job.warn(JobRecord.interruption)
          job.comeBack()
          job.revision = try transaction.nextRevision()
          try transaction.note(
            .jobState, job.id, device: job.device, at: job.revision, for: job.actor)
          try transaction.save(job)
        }
        jobs.append(job)
      }
      try transaction.removeOldJobs(keeping: JobEngine.awaited(by: jobs))
      return (jobs, discarding, try transaction.queueSettings())
    }
    throttle.withLock { $0.change(settings.limits, now: monotonicNanoseconds()) }
    state.update { state in
      state.settings = settings
      state.discarding = discarding
      for job in jobs where !job.state.isFinal { state.jobs[job.id] = job }
    }
  }

  /// Begins jobs from now on.
  func start(_ service: Service) throws(IOError) {
    let discarding = state.update { state in
      state.hasStarted = true
      return state.discarding
    }
    for id in discarding { discard(id, service) }
    let thread = try Thread(name: "ploopd-queue") { [weak self, weak service] in
      var seen: UInt64?
      while true {
        guard let changes = self?.await(since: seen) else { return }
        seen = changes
        guard let self, let service else { return }
        self.dispatch(service)
      }
    }
    thread.detach()
  }

  /// Waits until something has changed, and a moment at most while jobs wait for something outside.
  ///
  /// - Returns: nil when the engine stops.
  private func await(since seen: UInt64?) -> UInt64? {
    let outcome = state.wait(until: .after(milliseconds: 1_000)) { state -> UInt64?? in
      if state.isStopping { return .some(nil) }
      return state.changes == seen ? nil : .some(state.changes)
    }
    return outcome ?? state.withLock { $0.changes }
  }

  /// Has every running job end at its next step, and waits for that; each goes on in the next life.
  func stop(until deadline: Deadline) {
    beginStop()
    _ = state.wait(until: deadline) { $0.controls.isEmpty && $0.discards == 0 ? true : nil }
  }

  /// From now on none begins, and those that run are to end.
  func beginStop() {
    let controls = state.update { state in
      state.isStopping = true
      return Array(state.controls.values)
    }
    controls.forEach { $0.interrupt() }
  }

  /// Devices whose jobs run.
  var heldDevices: Set<String> {
    state.withLock { state in Set(state.controls.keys.compactMap { state.jobs[$0]?.device }) }
  }

  /// Something has changed outside that jobs may wait for.
  func lookAgain() { state.update { $0.changes += 1 } }

  /// Jobs that others come after.
  static func awaited(by jobs: some Sequence<JobRecord>) -> Set<String> {
    Set(jobs.flatMap(\.after))
  }

  /// The job, if any, that waits for the success of another one.
  func successor(of id: String) -> JobRecord? {
    state.withLock { $0.jobs.values.first { $0.after.contains(id) } }
  }

  // MARK: Changing a job

  /// Changes a job in memory and on the disk, under a new revision if that is to be seen.
  @discardableResult
  func update(
    _ id: String, event isEvent: Bool = true, _ change: (inout JobRecord) -> Void
  ) throws(ServiceError) -> JobRecord {
    let job = try writing.withLock { _ throws(ServiceError) in
      guard var job = state.withLock({ $0.jobs[id] }) else {
        throw ServiceError(.jobFinished, "the job \(id) is over")
      }
      change(&job)
      return try store.write { [job] transaction throws(ServiceError) in
        var job = job
        if isEvent {
          job.revision = try transaction.nextRevision()
          try transaction.note(
            .jobState, id, device: job.device, at: job.revision, for: job.actor)
        }
        try transaction.save(job)
        return job
      } show: { saved in
        state.withLock { $0.jobs[id] = saved.state.isFinal ? nil : saved }
      }
    }
    if isEvent { fleet?.note(job, isOver: job.state.isFinal) }
    if job.state.isFinal { count(job) }
    if isEvent { changed(id) }
    return job
  }

  private func count(_ job: JobRecord) {
    finished.withLock { $0[JobEnd(type: job.type, outcome: job.state), default: 0] += 1 }
    guard let start = job.startedAt, let end = job.finishedAt else { return }
    durations.withLock {
      $0[job.type, default: Metric.Histogram(JobEngine.durationSeconds)]
        .count(seconds: max(0, end - start))
    }
  }

  /// Upper edges for ``durations``.
  private static let durationSeconds: [Double] = [1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400]

  /// Writes down that a job is to end. One that was never begun is over at once.
  ///
  /// - Returns: whether it does not run.
  func cancel(_ id: String) throws(ServiceError) -> (wasQueued: Bool, job: JobRecord) {
    var wasQueued = false
    let job = try update(id) { job in
      wasQueued = job.state == .queued
      if wasQueued, job.startedAt == nil { job.finish(.cancelled) } else { job.state = .cancelling }
    }
    return (wasQueued, job)
  }

  /// Jobs that are not over; so many there may be.
  private let openLimit: Int

  /// Puts a job into the queue; it is durable when this returns, and so is what `more` writes.
  ///
  /// - Returns: the job, or the one that waits under the same key already, of the same type and the same device:
  ///   a key is no way to hear of, or to keep away, what somebody else does.
  func add(
    _ job: JobRecord, _ more: (JobRecord, StateTransaction) throws(ServiceError) -> Void
  ) throws(ServiceError) -> JobRecord {
    // Nobody else's job waits for the other nodes.
    try fleet?.keep(job)
    let saved: JobRecord
    do throws(ServiceError) { saved = try put(job, more) } catch {
      fleet?.note(job, isOver: true)
      throw error
    }
    if saved.id != job.id { fleet?.note(job, isOver: true) }
    changed(saved.id)
    return saved
  }

  private func put(
    _ job: JobRecord, _ more: (JobRecord, StateTransaction) throws(ServiceError) -> Void
  ) throws(ServiceError) -> JobRecord {
    try writing.withLock { _ throws(ServiceError) in
      let (other, count) = state.withLock { state in
        let other = state.jobs.values.first {
          $0.id != job.id && $0.dedupeKey != nil && $0.dedupeKey == job.dedupeKey
            && $0.type == job.type && $0.device == job.device && $0.state == .queued
        }
        return (other, state.jobs.count)
      }
      if let other {
        try store.write { transaction throws(ServiceError) in try more(other, transaction) }
        return other
      }
      guard count < openLimit else {
        throw ServiceError(.tooManyJobs, "\(count) jobs are not over; that is the limit")
      }
      let saved = try store.write { transaction throws(ServiceError) in
        var job = job
        job.revision = try transaction.nextRevision()
        try transaction.save(job)
        try transaction.note(.jobCreated, job.id, device: job.device, at: job.revision)
        try more(job, transaction)
        return job
      } show: { saved in
        state.update { state in
          state.jobs[saved.id] = saved
          state.changes += 1
        }
      }
      return saved
    }
  }

  func work(
    _ type: String, _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> any QueuedWork {
    try registry.type(type).make(parameters, device: device)
  }

  /// Whether a job works on a device that is attached, where one is named.
  func hasDevice(_ job: JobRecord) -> Bool {
    (try? registry.type(job.type).device(with: job.parameters)) != JobDevice.none
  }

  /// Whether a job of a type can be refused since it has no room.
  func canLackRoom(_ type: String) -> Bool { (try? registry.type(type).canLackRoom) ?? true }

  func endsWithoutDisk(_ type: String) -> Bool {
    (try? registry.type(type).endsWithoutDisk) ?? false
  }

  func phases(of type: String) -> [String] { (try? registry.type(type).phases) ?? [] }

  func isResumable(_ job: JobRecord) -> Bool {
    (try? registry.type(job.type).isResumable(with: job.parameters)) ?? false
  }

  /// Whether no job of a device waits or runs; of none, always.
  func isIdle(device: String?) -> Bool {
    guard let device else { return true }
    return state.withLock { $0.jobs.values.allSatisfy { $0.device != device } }
  }

  /// The job that has a device.
  func holder(of device: String) -> JobRecord? {
    state.withLock { $0.jobs.values.first { $0.device == device && $0.state.isActive } }
  }

  /// The job, waiting or not, that is to make a device of this id.
  func maker(of device: String) -> JobRecord? {
    makers().first { (try? work($0.type, $0.parameters, device: $0.device))?.newDevice == device }
  }

  /// Jobs, waiting or not, that are to make something.
  func makers() -> [JobRecord] {
    state.withLock { $0.jobs.values.filter { $0.parameters["to"] != nil } }
  }

  /// A job, waiting or not, that has this among its parameters.
  func first(_ type: String, where name: String, is value: JobValue) -> JobRecord? {
    state.withLock { state in
      state.jobs.values.filter { $0.type == type && $0.parameters[name] == value }
        .min { $0.id < $1.id }
    }
  }

  /// A job, waiting or not, that works with a target.
  func user(of target: String) -> JobRecord? {
    state.withLock { $0.jobs.values.filter { $0.target == target }.min { $0.id < $1.id } }
  }
}

extension JobRecord {
  /// Somebody wants it to end, and that is not too late.
  var isCancelled: Bool { state == .cancelling && !isCommitted }

  /// It ran, and whoever carried it out is gone.
  mutating func comeBack() {
    guard !isCancelled else { return finish(.cancelled) }
    state = .queued
    phase = "resuming"
    interruptions += 1
  }

  /// Warnings that are kept, and characters of each; all of them are in its log.
  private static let warningsKept = 10
  private static let warningLength = 500

  static let interruption = "the service ended while the job ran"

  /// What is said twice in a row is said once.
  mutating func warn(_ message: String) {
    let message = String(message.prefix(JobRecord.warningLength))
    guard warnings?.last != message else { return }
    warnings = ((warnings ?? []) + [message]).suffix(JobRecord.warningsKept)
  }

  mutating func finish(_ final: JobState) {
    state = final
    ownsWhatItMakes = nil
    hasTold = nil
    finishedAt = wallClockSeconds()
  }
}

extension ServiceError {
  /// Its device comes or goes, which it may do at any time, or the service does: the job that meets it is
  /// begun again.
  var isInterruption: Bool {
    code == .deviceNotFound || code == .deviceBusy && holder == nil || code == .shuttingDown
      || code == .fleetUnreachable
  }
}

/// A refusal of the service is the failure of the job that meets it.
func failing<Result>(
  _ body: () throws(ServiceError) -> Result
) throws(JobStop) -> Result {
  do throws(ServiceError) { return try body() } catch { throw .failed(error) }
}
