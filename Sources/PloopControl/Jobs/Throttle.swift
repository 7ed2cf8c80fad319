/// A bucket of bytes, or of whatever else is counted, that fills with time: whoever takes more than is in
/// it has to wait.
struct Throttle {
  /// As much may be taken at once after a rest.
  private static let burstSeconds = 0.25

  /// Whoever waits asks again after this at the latest.
  private static let longestSeconds = 3_600.0

  private(set) var perSecond: UInt64
  /// May be negative: a step is taken as a whole, and waited for afterwards.
  private var left = 0.0
  private var filledAt: UInt64

  /// - Parameters:
  ///   - perSecond: 0 is no limit.
  ///   - now: nanoseconds on the monotonic clock.
  init(perSecond: UInt64, now: UInt64) {
    self.perSecond = perSecond
    filledAt = now
  }

  mutating func change(perSecond: UInt64, now: UInt64) {
    guard perSecond != self.perSecond else { return }
    fill(now)
    self.perSecond = perSecond
    // A debt that was made at another rate is not waited for at this one.
    left = max(left, -Double(perSecond) * Throttle.burstSeconds)
  }

  mutating func take(_ count: UInt64, now: UInt64) {
    fill(now)
    left -= Double(count)
  }

  /// Nanoseconds until somebody may go on.
  mutating func wait(now: UInt64) -> UInt64 {
    fill(now)
    guard perSecond > 0, left < 0 else { return 0 }
    return UInt64(min(Throttle.longestSeconds, -left / Double(perSecond)) * 1e9) + 1
  }

  private mutating func fill(_ now: UInt64) {
    let rate = Double(perSecond)
    if perSecond == 0 {
      left = 0
    } else if now > filledAt {
      left = min(rate * Throttle.burstSeconds, left + rate * Double(now - filledAt) / 1e9)
    }
    filledAt = max(filledAt, now)
  }
}

/// The limits of a job, or of all of them, as they are kept: the tightest holds.
struct JobThrottle {
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
  mutating func wait(now: UInt64) -> UInt64 { max(bytes.wait(now: now), operations.wait(now: now)) }
}
