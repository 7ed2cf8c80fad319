internal import PloopIO

/// The limits of a job, or of all of them, as they are kept: the tightest holds.
struct JobThrottle {
  /// Whoever waits asks again after this at the latest, in nanoseconds.
  private static let longestWait: UInt64 = 3_600_000_000_000

  private var bytes: Throttle
  private var operations: Throttle

  init(_ limits: JobLimits, now: UInt64) {
    bytes = Throttle(perSecond: limits.bytesPerSecond, now: now)
    operations = Throttle(perSecond: limits.operationsPerSecond, now: now)
  }

  var limits: JobLimits {
    var limits = JobLimits()
    limits.bytesPerSecond = bytes.perSecond
    limits.operationsPerSecond = operations.perSecond
    return limits
  }

  mutating func change(_ limits: JobLimits, now: UInt64) {
    bytes.change(perSecond: limits.bytesPerSecond, now: now)
    operations.change(perSecond: limits.operationsPerSecond, now: now)
  }

  mutating func take(bytes byteCount: UInt64, operations count: UInt64, now: UInt64) {
    bytes.take(byteCount, now: now)
    operations.take(count, now: now)
  }

  /// Nanoseconds until somebody may go on.
  mutating func wait(now: UInt64) -> UInt64 {
    min(JobThrottle.longestWait, max(bytes.wait(now: now), operations.wait(now: now)))
  }
}
