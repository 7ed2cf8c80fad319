internal import PloopIO

/// What a running job's work is handed: the place where it says how far it is, and hears what it is
/// wanted to do.
final class JobControl: Sendable {
  struct State {
    var progress: JobProgress
    var phase: String?
    var isPaused: Bool
    var isCancelled = false
    /// It is cancelled, and that is not too late.
    var isEnding: Bool { isCancelled && !isCommitted }
    var isInterrupted = false
    /// Between two steps it is to wait until it may go on, and it does.
    var isHeld = false
    var isAtRest = false
    /// Behind its commit point a job is finished, whatever anybody wants.
    var isCommitted = false
    var throttle: JobThrottle
    var parameters: [String: JobValue]
    var blockers: [JobBlocker] = []
    /// What it has said last that it waits for.
    var saidOfWaiting: String?
    /// When the rate was looked at, and how much had been done.
    var rateSince: UInt64
    var rateBytes: UInt64 = 0
    var bytesPerSecond: UInt64?
    var lastProgress: UInt64
  }

  /// What has to be written down, by the job engine.
  enum Note {
    case progress(JobProgress)
    case phase(String)
    case log(level: String, String)
    /// It has paused, or goes on.
    case paused(Bool)
    /// Whether it is finished now, whatever anybody wants.
    case committed(Bool)
    /// Whether what lies where it makes something is known for its own.
    case owning(Bool)
    /// Whether the other side knows that a disk is its own.
    case told(Bool)
    /// It waits between two steps, since that is wanted.
    case resting
  }

  static let stallNanoseconds: UInt64 = 120 * 1_000_000_000

  let id: String
  /// Whether a life of the service before this one has got to the work itself.
  let hasProgressedBefore: Bool
  private let state: Monitor<State>
  /// What it has together with others: the queue's, and its target's.
  private let sharedThrottles: [Locked<JobThrottle>]
  private let note: @Sendable (Note) -> Void
  private let mayGoOn: @Sendable () -> Bool

  /// - Parameter mayGoOn: whether its disk is still ours.
  init(
    _ record: JobRecord, queue: Locked<JobThrottle>, target: Locked<JobThrottle>? = nil,
    mayGoOn: @escaping @Sendable () -> Bool = { true },
    note: @escaping @Sendable (Note) -> Void
  ) {
    self.mayGoOn = mayGoOn
    id = record.id
    hasProgressedBefore = record.interruptions > 0 && record.progress.totalClusters > 0
    let now = monotonicNanoseconds()
    var progress = JobProgress()
    progress.lastProgressAt = record.progress.lastProgressAt
    state = Monitor(
      State(
        progress: progress, phase: record.phase, isPaused: record.isPaused,
        throttle: JobThrottle(record.limits, now: now), parameters: record.parameters,
        rateSince: now, lastProgress: now))
    sharedThrottles = [queue] + (target.map { [$0] } ?? [])
    self.note = note
  }

  // MARK: For the work

  func enter(phase: String) {
    state.withLock { $0.phase = phase }
    note(.phase(phase))
  }

  /// Everything that there is to do, before the first of it is done.
  func total(clusters: UInt64, bytes: UInt64) {
    let progress = state.withLock { state in
      state.progress.totalClusters = clusters
      state.progress.totalBytes = bytes
      return state.progress
    }
    note(.progress(progress))
  }

  /// A step was done.
  ///
  /// - Parameter charged: what counts for the limits, where it is other than the progress.
  func advance(
    clusters: UInt64, bytes: UInt64, charging charged: (clusters: UInt64, bytes: UInt64)? = nil
  ) {
    let now = monotonicNanoseconds()
    let charged = charged ?? (clusters, bytes)
    for throttle in sharedThrottles {
      throttle.withLock { $0.take(bytes: charged.bytes, operations: charged.clusters, now: now) }
    }
    state.withLock { state in
      state.throttle.take(bytes: charged.bytes, operations: charged.clusters, now: now)
      state.progress.doneClusters += clusters
      state.progress.doneBytes += bytes
      state.progress.lastProgressAt = wallClockSeconds()
      state.lastProgress = now
      let elapsed = now - state.rateSince
      guard elapsed > 500_000_000 else { return }
      let rate = Double(state.progress.doneBytes - state.rateBytes) / (Double(elapsed) / 1e9)
      state.bytesPerSecond = UInt64(max(0, rate))
      state.rateSince = now
      state.rateBytes = state.progress.doneBytes
    }
  }

  /// Of the job, as somebody may have changed them since it was begun.
  var parameters: [String: JobValue] { state.withLock { $0.parameters } }

  /// What is not to be exceeded now; 0 is no limit.
  var rates: JobLimits {
    let all =
      [state.withLock { $0.throttle.limits }] + sharedThrottles.map { $0.withLock { $0.limits } }
    var tightest = JobLimits()
    tightest.bytesPerSecond = all.map(\.bytesPerSecond).filter { $0 > 0 }.min() ?? 0
    tightest.operationsPerSecond = all.map(\.operationsPerSecond).filter { $0 > 0 }.min() ?? 0
    return tightest
  }

  /// What was done up to a step ago is durable: it is written down how far the job is.
  func persist() { note(.progress(state.withLock { $0.progress })) }

  func log(_ message: String, level: String = "info") { note(.log(level: level, message)) }

  /// Call between steps: waits while the job is paused or too fast.
  ///
  /// - Throws: `.cancelled` and `.interrupted`, when the work has to end.
  func checkpoint() throws(JobStop) {
    var wasPaused = false
    defer { if wasPaused { note(.paused(false)) } }
    while true {
      enum Turn { case go, cancelled, interrupted, held, paused, wait(UInt64) }
      let turn: Turn = state.withLock { state in
        // What was wanted for good comes before what is only put off.
        if state.isEnding { return .cancelled }
        if state.isInterrupted || !mayGoOn() { return .interrupted }
        if state.isHeld { return .held }
        if state.isPaused { return .paused }
        let now = monotonicNanoseconds()
        let delay = sharedThrottles.reduce(state.throttle.wait(now: now)) { delay, throttle in
          max(delay, throttle.withLock { $0.wait(now: now) })
        }
        return delay == 0 ? .go : .wait(delay)
      }
      switch turn {
      case .go: return
      case .cancelled: throw .cancelled
      case .interrupted: throw .interrupted
      case .held: rest()
      case .paused:
        if !wasPaused { note(.paused(true)) }
        wasPaused = true
        _ = state.wait { state in
          state.isPaused && !state.isHeld && !state.isInterrupted && !state.isEnding
            ? nil : true
        }
      case .wait(let nanoseconds):
        // Looked at again when something changes, and often enough for a change of the limit.
        let milliseconds = min(200, Int(clamping: nanoseconds / 1_000_000) + 1)
        _ = state.wait(until: .after(milliseconds: milliseconds)) { state in
          state.isPaused || state.isHeld || state.isInterrupted || state.isEnding ? true : nil
        }
      }
    }
  }

  private func rest() {
    state.withLock { $0.isAtRest = true }
    note(.resting)
    _ = state.wait { state in
      state.isHeld && !state.isInterrupted && !state.isEnding ? nil : true
    }
    state.withLock { $0.isAtRest = false }
  }

  /// Waits until `isOver`, asking again and again, and says what for. It waits a moment in any case:
  /// whoever is back at once may have been told wrongly that it is over.
  ///
  /// - Throws: as ``checkpoint()``.
  func wait(for blocker: JobBlocker, until isOver: () -> Bool) throws(JobStop) {
    let isSaid = state.withLock { state in
      state.blockers = [blocker]
      defer { state.saidOfWaiting = blocker.detail }
      return state.saidOfWaiting == blocker.detail
    }
    if !isSaid { log("waits: \(blocker.detail)", level: "warning") }
    defer { state.withLock { $0.blockers = [] } }
    repeat {
      _ = state.wait(until: .after(milliseconds: 500)) { state in
        state.isInterrupted || state.isEnding ? true : nil
      }
      try checkpoint()
    } while !isOver()
  }

  /// From here on the job is finished, cancelled or not.
  ///
  /// - Throws: `.cancelled` or `.interrupted` when that was wanted before.
  func commit() throws(JobStop) {
    try checkpoint()
    let isCancelled = state.withLock { state -> Bool in
      if !state.isCancelled { state.isCommitted = true }
      return state.isCancelled
    }
    if isCancelled { throw .cancelled }
    note(.committed(true))
  }

  /// The same where guests wait meanwhile: nothing is waited for, and it is written down later
  /// (``tellCommitted()``).
  ///
  /// - Returns: false, with nothing committed, when anything else is wanted of the job first.
  func commitAtOnce() -> Bool {
    state.withLock { state in
      guard !state.isCancelled, !state.isInterrupted, !state.isHeld, !state.isPaused, mayGoOn()
      else { return false }
      state.isCommitted = true
      return true
    }
  }

  func tellCommitted() { note(.committed(true)) }

  /// What was done cannot be undone any more, whatever anybody wants.
  func commitForGood() {
    state.withLock { $0.isCommitted = true }
    tellCommitted()
  }

  /// Whether what lies where the work makes something is its own is written down, and stays so, whatever
  /// becomes of the commit, until the job is over.
  func own(_ isOwn: Bool) { note(.owning(isOwn)) }

  /// Whether the other side has been told that a disk is its own is written down, until the job is over.
  func tell(_ isTold: Bool) { note(.told(isTold)) }

  /// What could not be stopped is done; the rest of the job can be.
  func reopen() { withdrawCommit() }

  /// Does something that changes nothing where it finds no room, as often as it takes. Behind its commit
  /// point a job can be cancelled while it waits for that.
  ///
  /// - Throws: as ``checkpoint()``, and `.failed` with any other failure.
  func untilThereIsRoom<Result>(
    _ body: () throws(ServiceError) -> Result
  ) throws(JobStop) -> Result {
    try retrying(
      waitingFor: { error in
        error.code == .insufficientSpace
          ? JobBlocker(kind: .space, id: nil, detail: error.detail) : nil
      }, body)
  }

  /// The same for whatever passes.
  ///
  /// - Parameter blocker: what is waited for after a failure; nil for one that does not pass.
  func retrying<Result>(
    waitingFor blocker: (ServiceError) -> JobBlocker?,
    _ body: () throws(ServiceError) -> Result
  ) throws(JobStop) -> Result {
    let wasCommitted = state.withLock { $0.isCommitted }
    func attempt() -> Swift.Result<Result, ServiceError> {
      do throws(ServiceError) { return .success(try body()) } catch { return .failure(error) }
    }
    var outcome = attempt()
    while case .failure(let error) = outcome, let obstacle = blocker(error) {
      if wasCommitted { withdrawCommit() }
      try wait(for: obstacle) {
        // Who wants it to end is heard before the next look.
        if wasCommitted, (try? commit()) == nil { return false }
        outcome = attempt()
        guard case .failure(let error) = outcome, let now = blocker(error) else { return true }
        if wasCommitted { withdrawCommit() }
        // What it waits for now may be something else.
        return now != obstacle
      }
    }
    switch outcome {
    case .success(let result): return result
    case .failure(let error): throw .failed(error)
    }
  }

  private func withdrawCommit() {
    state.withLock { $0.isCommitted = false }
    note(.committed(false))
  }

  // MARK: For the engine

  func pause(_ isPaused: Bool) { state.update { $0.isPaused = isPaused } }
  func interrupt() { state.update { $0.isInterrupted = true } }
  func hold(_ isHeld: Bool) { state.update { $0.isHeld = isHeld } }

  /// - Returns: false when it is too late.
  func cancel() -> Bool {
    state.update { state in
      state.isCancelled = true
      return !state.isCommitted
    }
  }

  func change(_ parameters: [String: JobValue]) { state.update { $0.parameters = parameters } }

  func limit(_ limits: JobLimits) {
    state.update { $0.throttle.change(limits, now: monotonicNanoseconds()) }
  }

  var now: State { state.withLock { $0 } }
}
