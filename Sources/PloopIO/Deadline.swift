package import Glibc

/// A moment on the monotonic clock after which waiting ends.
package struct Deadline: Sendable {
  /// Nil means that the wait never ends by itself.
  package let monotonic: timespec?

  package static let never = Deadline(monotonic: nil)

  package static func after(milliseconds: Int) -> Deadline {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    let nanoseconds = now.tv_nsec + (milliseconds % 1000) * 1_000_000
    return Deadline(
      monotonic: timespec(
        tv_sec: now.tv_sec + milliseconds / 1000 + nanoseconds / 1_000_000_000,
        tv_nsec: nanoseconds % 1_000_000_000))
  }

  package static func after(seconds: Int) -> Deadline { after(milliseconds: seconds * 1000) }

  /// What is left, at least 0; `Int.max` for ``never``.
  package var millisecondsLeft: Int {
    guard let monotonic else { return .max }
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    let left =
      (monotonic.tv_sec - now.tv_sec) * 1000 + (monotonic.tv_nsec - now.tv_nsec) / 1_000_000
    return max(0, left)
  }

  package var hasPassed: Bool { millisecondsLeft == 0 }
}

/// Nanoseconds on the monotonic clock, for measuring how long something took.
package func monotonicNanoseconds() -> UInt64 {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}
