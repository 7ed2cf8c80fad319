internal import PloopIO

/// The targets that there are, as jobs and their queue need them: in memory, with what all jobs of one
/// have together.
final class TargetTable: Sendable {
  struct Entry: Sendable {
    var target: Target
    let throttle: Locked<JobThrottle>
    /// As it was found last, and since when.
    var reachable: (isTrue: Bool, since: Double)?
  }

  private let entries = Locked<[String: Entry]>([:])

  /// Adds a target, or replaces what is known of one.
  func keep(_ target: Target) {
    entries.withLock { entries in
      let now = monotonicNanoseconds()
      let throttle =
        entries[target.name]?.throttle ?? Locked(JobThrottle(target.limits, now: now))
      throttle.withLock { $0.change(target.limits, now: now) }
      entries[target.name] = Entry(
        target: target, throttle: throttle, reachable: entries[target.name]?.reachable)
    }
  }

  func remove(_ name: String) { entries.withLock { _ = $0.removeValue(forKey: name) } }

  func entry(_ name: String) -> Entry? { entries.withLock { $0[name] } }

  /// In the order of their names.
  var targets: [Target] {
    entries.withLock { $0.values.map(\.target).sorted { $0.name < $1.name } }
  }

  /// Notes whether a target could be reached.
  ///
  /// - Returns: since when that has been so, in seconds since 1970.
  func note(_ name: String, isReachable: Bool) -> Double {
    entries.withLock { entries in
      if let known = entries[name]?.reachable, known.isTrue == isReachable { return known.since }
      let now = wallClockSeconds()
      entries[name]?.reachable = (isReachable, now)
      return now
    }
  }
}
