internal import PloopIO

/// The targets that there are, as jobs and their queue need them: in memory, with what all jobs of one
/// have together.
///
/// Each has a thread of its own for those who ask for it: one may lie on what does not answer.
final class TargetTable: Sendable {
  struct Entry: Sendable {
    var target: Target
    let throttle: Locked<JobThrottle>
    /// How many wait for it who only look at it.
    var lookers = 0
    /// As it was found last, and since when.
    var reachable: (isTrue: Bool, since: Double)?
    /// Nanoseconds of the monotonic clock.
    var lookedAt: UInt64?
  }

  private let entries = Locked<[String: Entry]>([:])
  private let clerks = Locked<[String: Clerk]>([:])
  /// Held while it is decided whether a place is free.
  let adding = Locked(())
  /// Held while a folder is looked at for its mark, and given one.
  let marking = Locked(())

  /// Adds a target, or replaces what is known of one.
  func keep(_ target: Target) {
    entries.withLock { entries in
      let now = monotonicNanoseconds()
      let throttle =
        entries[target.name]?.throttle ?? Locked(JobThrottle(target.limits, now: now))
      throttle.withLock { $0.change(target.limits, now: now) }
      entries[target.name] = Entry(
        target: target, throttle: throttle, lookers: entries[target.name]?.lookers ?? 0,
        reachable: entries[target.name]?.reachable, lookedAt: entries[target.name]?.lookedAt)
    }
  }

  func remove(_ name: String) {
    entries.withLock { _ = $0.removeValue(forKey: name) }
    dismissClerk(of: name)
  }

  /// Looks at one target, as others look at others meanwhile.
  func clerk(of name: String) throws(ServiceError) -> Clerk {
    try clerks.withLock { clerks throws(ServiceError) in
      if let clerk = clerks[name] { return clerk }
      do throws(IOError) {
        let clerk = try Clerk(name: "ploopd-target")
        clerks[name] = clerk
        return clerk
      } catch { throw ServiceError(error) }
    }
  }

  /// For one that has not come to be a target.
  func dismissClerk(of name: String) {
    guard entry(name) == nil else { return }
    clerks.withLock { _ = $0.removeValue(forKey: name) }
  }

  func entry(_ name: String) -> Entry? { entries.withLock { $0[name] } }

  /// In the order of their names.
  var targets: [Target] {
    entries.withLock { $0.values.map(\.target).sorted { $0.name < $1.name } }
  }

  /// What was found of those that have been looked at, in the order of their names.
  var reachability: [(name: String, isReachable: Bool)] {
    entries.withLock { entries in
      entries.sorted { $0.key < $1.key }.compactMap { name, entry in
        entry.reachable.map { (name, $0.isTrue) }
      }
    }
  }

  /// Those at which nobody looks, and nobody has looked for so long, of which looking tells anything.
  func notLookedAt(since nanoseconds: UInt64) -> [String] {
    let now = monotonicNanoseconds()
    return entries.withLock { entries in
      entries.compactMap { name, entry in
        if case .nbd = entry.target.place { return nil }
        let isOld = entry.lookedAt.map { now &- $0 >= nanoseconds } ?? true
        return isOld && entry.lookers == 0 ? name : nil
      }
    }
  }

  /// - Returns: false when enough wait for it.
  func beginLook(at name: String, limit: Int) -> Bool {
    entries.withLock { entries in
      guard let lookers = entries[name]?.lookers, lookers < limit else { return false }
      entries[name]?.lookers = lookers + 1
      return true
    }
  }

  func endLook(at name: String) {
    entries.withLock { entries in
      guard let lookers = entries[name]?.lookers, lookers > 0 else { return }
      entries[name]?.lookers = lookers - 1
    }
  }

  /// Notes whether a target could be reached.
  ///
  /// - Returns: since when that has been so, in seconds since 1970.
  func note(_ name: String, isReachable: Bool) -> Double {
    entries.withLock { entries in
      entries[name]?.lookedAt = monotonicNanoseconds()
      if let known = entries[name]?.reachable, known.isTrue == isReachable { return known.since }
      let now = wallClockSeconds()
      entries[name]?.reachable = (isReachable, now)
      return now
    }
  }
}
