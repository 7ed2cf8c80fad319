/// A bucket of bytes, or of whatever else is counted, that fills with time: whoever takes more than is in
/// it has to wait.
package struct Throttle: Sendable {
  /// No wait is longer, so that it can be told in nanoseconds.
  private static let longestSeconds = 1e9

  package private(set) var perSecond: UInt64
  /// What flows in meanwhile may be taken at once after a rest.
  private var burstSeconds: Double
  /// May be negative: a step is taken as a whole, and waited for afterwards.
  private var left = 0.0
  private var filledAt: UInt64

  /// - Parameters:
  ///   - perSecond: 0 is no limit.
  ///   - burstSeconds: what flows in meanwhile may be taken at once after a rest.
  ///   - now: nanoseconds on the monotonic clock.
  package init(perSecond: UInt64, burstSeconds: Double = 0.25, now: UInt64) {
    self.perSecond = perSecond
    self.burstSeconds = burstSeconds
    filledAt = now
  }

  package mutating func change(perSecond: UInt64, now: UInt64) {
    guard perSecond != self.perSecond else { return }
    fill(now)
    self.perSecond = perSecond
    // A debt that was made at another rate is not waited for at this one.
    left = max(left, -Double(perSecond) * burstSeconds)
  }

  /// From now on; whatever was taken is still to be paid for, by the new rate.
  package mutating func change(perSecond: UInt64, burstSeconds: Double, now: UInt64) {
    fill(now)
    self.perSecond = perSecond
    self.burstSeconds = burstSeconds
    left = perSecond == 0 ? 0 : min(left, Double(perSecond) * burstSeconds)
  }

  package mutating func take(_ count: UInt64, now: UInt64) {
    fill(now)
    left -= Double(count)
  }

  /// What was taken and is not used after all; nothing of it beyond a burst is kept for later.
  package mutating func giveBack(_ count: UInt64, now: UInt64) {
    fill(now)
    left += Double(count)
  }

  /// Nanoseconds until somebody may go on.
  package mutating func wait(now: UInt64) -> UInt64 {
    fill(now)
    guard perSecond > 0, left < 0 else { return 0 }
    return UInt64(min(Throttle.longestSeconds, -left / Double(perSecond)) * 1e9) + 1
  }

  private mutating func fill(_ now: UInt64) {
    let rate = Double(perSecond)
    if perSecond == 0 {
      left = 0
    } else if now > filledAt {
      left = min(rate * burstSeconds, left + rate * Double(now - filledAt) / 1e9)
    }
    filledAt = max(filledAt, now)
  }
}
