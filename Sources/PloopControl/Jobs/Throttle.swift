/// A bucket of bytes that fills with time: whoever takes more than is in it has to wait.
struct Throttle {
  /// As much may be taken at once after a rest.
  private static let burstSeconds = 0.25

  /// Whoever waits asks again after this at the latest.
  private static let longestSeconds = 3_600.0

  private(set) var bytesPerSecond: UInt64
  /// May be negative: a step is taken as a whole, and waited for afterwards.
  private var bytes = 0.0
  private var filledAt: UInt64

  /// - Parameters:
  ///   - bytesPerSecond: 0 is no limit.
  ///   - now: nanoseconds on the monotonic clock.
  init(bytesPerSecond: UInt64, now: UInt64) {
    self.bytesPerSecond = bytesPerSecond
    filledAt = now
  }

  mutating func change(bytesPerSecond: UInt64, now: UInt64) {
    guard bytesPerSecond != self.bytesPerSecond else { return }
    fill(now)
    self.bytesPerSecond = bytesPerSecond
    // A debt that was made at another rate is not waited for at this one.
    bytes = max(bytes, -Double(bytesPerSecond) * Throttle.burstSeconds)
  }

  mutating func take(_ count: UInt64, now: UInt64) {
    fill(now)
    bytes -= Double(count)
  }

  /// Nanoseconds until somebody may go on.
  mutating func wait(now: UInt64) -> UInt64 {
    fill(now)
    guard bytesPerSecond > 0, bytes < 0 else { return 0 }
    return UInt64(min(Throttle.longestSeconds, -bytes / Double(bytesPerSecond)) * 1e9) + 1
  }

  private mutating func fill(_ now: UInt64) {
    let rate = Double(bytesPerSecond)
    if bytesPerSecond == 0 {
      bytes = 0
    } else if now > filledAt {
      bytes = min(rate * Throttle.burstSeconds, bytes + rate * Double(now - filledAt) / 1e9)
    }
    filledAt = max(filledAt, now)
  }
}
