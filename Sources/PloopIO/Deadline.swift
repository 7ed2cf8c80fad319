package import Glibc

/// A moment on the monotonic clock after which waiting ends.
package struct Deadline: Sendable {
  /// Nil means that the wait never ends by itself.
  package let monotonic: timespec?

  package static let never = Deadline(monotonic: nil)

  package static func after(milliseconds: Int) -> Deadline {
    after(seconds: milliseconds / 1000, nanoseconds: milliseconds % 1000 * 1_000_000)
  }

  package static func after(microseconds: Int) -> Deadline {
    after(seconds: microseconds / 1_000_000, nanoseconds: microseconds % 1_000_000 * 1000)
  }

  private static func after(seconds: Int, nanoseconds: Int) -> Deadline {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    let nanoseconds = now.tv_nsec + nanoseconds
    return Deadline(
      monotonic: timespec(
        tv_sec: now.tv_sec + seconds + nanoseconds / 1_000_000_000,
        tv_nsec: nanoseconds % 1_000_000_000))
  }

  /// When half of what is left has passed.
  package var half: Deadline {
    monotonic == nil ? .never : .after(milliseconds: millisecondsLeft / 2)
  }

  /// The earlier of the two.
  package func orEarlier(_ other: Deadline) -> Deadline {
    guard let mine = monotonic else { return other }
    guard let its = other.monotonic else { return self }
    return (mine.tv_sec, mine.tv_nsec) < (its.tv_sec, its.tv_nsec) ? self : other
  }

  package static func after(seconds: Int) -> Deadline { after(milliseconds: seconds * 1000) }

  /// What is left, at least 0; `Int.max` for ``never``. Rounded up: who waits for so long does not have to wait again
  /// and again for the rest of a millisecond.
  package var millisecondsLeft: Int {
    guard let monotonic else { return .max }
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    let nanoseconds = monotonic.tv_nsec - now.tv_nsec
    let milliseconds = (nanoseconds > 0 ? nanoseconds + 999_999 : nanoseconds) / 1_000_000
    return max(0, (monotonic.tv_sec - now.tv_sec) * 1000 + milliseconds)
  }

  package var hasPassed: Bool { millisecondsLeft == 0 }
}

/// Nanoseconds on the monotonic clock, for measuring how long something took.
package func monotonicNanoseconds() -> UInt64 {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}

/// Nanoseconds since the machine was started, the time in which it slept among them: what another machine may have
/// waited for is over here, too. Nobody sets this clock.
package func bootNanoseconds() -> UInt64 {
  var now = timespec()
  clock_gettime(CLOCK_BOOTTIME, &now)
  return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}
