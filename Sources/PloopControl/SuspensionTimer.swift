internal import PloopIO

/// Knows of each suspended disk when that is to be told, and when the disk is to be resumed: whoever
/// suspended it may be gone, and its guests wait.
///
/// Limits are in the state by the host's clock, since they outlive the process; within it they are
/// measured by one that nobody sets.
final class SuspensionTimer: Sendable {
  enum Action: Sendable, Equatable, CaseIterable { case tell, resume }

  /// What is to be done about a disk, if it is still suspended as it was then.
  struct Call: Sendable, Equatable {
    let device: String
    let suspension: Suspension
    let action: Action
  }

  private struct Watch {
    var suspension: Suspension
    /// Nobody resumes it now.
    var isProhibited: Bool
    /// Nanoseconds of the clock; nil for never, or not again.
    var tellAt: UInt64?
    var resumeAt: UInt64?

    func dueAt(_ action: Action) -> UInt64? {
      switch action {
      case .tell: tellAt
      case .resume: isProhibited ? nil : resumeAt
      }
    }

    mutating func setDue(_ action: Action, at moment: UInt64?) {
      switch action {
      case .tell: tellAt = moment
      case .resume: resumeAt = moment
      }
    }
  }

  private struct State {
    var watches: [String: Watch] = [:]
    var changes: UInt64 = 0
    var isStopping = false

    /// When the next thing is due, in nanoseconds of the clock.
    var next: UInt64? {
      watches.values.flatMap { watch in Action.allCases.compactMap(watch.dueAt) }.min()
    }

    /// What is due; it is handed out once.
    mutating func take(_ now: UInt64) -> [Call] {
      var calls: [Call] = []
      for (device, watch) in watches {
        for action in Action.allCases where watch.dueAt(action).map({ $0 <= now }) == true {
          calls.append(Call(device: device, suspension: watch.suspension, action: action))
          watches[device]?.setDue(action, at: nil)
        }
      }
      return calls
    }
  }

  private let clock: @Sendable () -> UInt64
  private let state = Monitor(State())

  /// - Parameter clock: nanoseconds; those who set it call ``lookAgain()``.
  init(clock: @escaping @Sendable () -> UInt64) { self.clock = clock }

  /// Takes up what a device's record says of it, now that it is so.
  func follow(_ record: DeviceRecord, wallClock: Double = wallClockSeconds()) {
    guard record.suspended, let suspension = record.suspension else { return forget(record.id) }
    let now = clock()
    state.update { state in
      var watch = Watch(suspension: suspension, isProhibited: record.prohibition != nil)
      if !suspension.isTold {
        watch.tellAt = SuspensionTimer.moment(
          suspension.since + Suspension.tellSeconds - wallClock, from: now)
      }
      if let until = suspension.until {
        watch.resumeAt = SuspensionTimer.moment(until - wallClock, from: now)
      }
      // What runs already goes on, whatever became of the host's clock.
      if let old = state.watches[record.id] {
        if old.suspension.since == suspension.since, !suspension.isTold {
          watch.tellAt = old.tellAt
        }
        if old.suspension.until == suspension.until { watch.resumeAt = old.resumeAt }
      }
      state.watches[record.id] = watch
      state.changes += 1
    }
  }

  private static func moment(_ seconds: Double, from now: UInt64) -> UInt64 {
    // A clock that was set must not make it last longer than any limit allows.
    let seconds = min(max(0, seconds), Double(Suspension.mostSeconds))
    return now + UInt64(seconds * 1e9)
  }

  func forget(_ device: String) {
    state.update { _ = $0.watches.removeValue(forKey: device) }
  }

  /// Tries again in some seconds what could not be done.
  func postpone(_ call: Call, seconds: UInt64 = 5) {
    let later = clock() + seconds * 1_000_000_000
    state.update { state in
      guard state.watches[call.device]?.suspension.isStill(call.suspension) == true else { return }
      state.watches[call.device]?.setDue(call.action, at: later)
      state.changes += 1
    }
  }

  /// The clock was set.
  func lookAgain() { state.update { $0.changes += 1 } }

  /// - Parameter attend: called for what is due, on a thread that must not be kept.
  func start(_ attend: @escaping @Sendable (Call) -> Void) throws(IOError) {
    let thread = try Thread(name: "ploopd-suspend") { [self] in
      while let calls = due() { calls.forEach(attend) }
    }
    thread.detach()
  }

  func stop() { state.update { $0.isStopping = true } }

  /// What is due now; it is handed out once.
  func take() -> [Call] {
    let now = clock()
    return state.withLock { $0.take(now) }
  }

  /// Waits until something is to be done.
  ///
  /// - Returns: nil when the timer stops.
  private func due() -> [Call]? {
    while true {
      let now = clock()
      let (calls, next, seen, isStopping) = state.withLock { state in
        (state.take(now), state.next, state.changes, state.isStopping)
      }
      if isStopping { return nil }
      if !calls.isEmpty { return calls }
      // Rounded up, or the last millisecond would be spent looking.
      let deadline =
        next.map {
          Deadline.after(milliseconds: Int(clamping: ($0 - min(now, $0)) / 1_000_000 + 1))
        }
        ?? .never
      let _: Void? = state.wait(until: deadline) { state in
        state.isStopping || state.changes != seen ? () : nil
      }
    }
  }
}
