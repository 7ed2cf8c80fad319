internal import PloopIO

/// How often wrong credentials may come from one address: a few at once, then one in a while. Right ones
/// are never kept waiting for what others at the same address do.
final class FailureThrottle: Sendable {
  private struct Bucket {
    var left: Double
    /// Nanoseconds of the monotonic clock.
    var at: UInt64
  }

  static let burst = 10.0
  static let secondsForOne = 8.0
  /// Addresses that are remembered; those that have failed longest ago are forgotten first.
  private static let mostAddresses = 4096

  private let buckets = Locked<[String: Bucket]>([:])

  /// Notes a failure.
  ///
  /// - Parameters:
  ///   - address: of the client (``Network/party(of:)``).
  ///   - now: nanoseconds of the monotonic clock.
  /// - Returns: nil where it may fail again, else the seconds until it may.
  func failed(_ address: String, now: UInt64 = monotonicNanoseconds()) -> Int? {
    buckets.withLock { buckets in
      let key = Network.party(of: address)
      var bucket = buckets[key] ?? Bucket(left: FailureThrottle.burst, at: now)
      bucket.left = FailureThrottle.left(of: bucket, now)
      bucket.at = max(bucket.at, now)
      defer {
        buckets[key] = bucket
        if buckets.count > FailureThrottle.mostAddresses { FailureThrottle.forget(&buckets, now) }
      }
      guard bucket.left < 1 else {
        bucket.left -= 1
        return nil
      }
      return max(1, Int(((1 - bucket.left) * FailureThrottle.secondsForOne).rounded(.up)))
    }
  }

  private static func left(of bucket: Bucket, _ now: UInt64) -> Double {
    let seconds = Double(now > bucket.at ? now - bucket.at : 0) / 1e9
    return min(burst, bucket.left + seconds / secondsForOne)
  }

  /// A quarter at a time, so that the search is rare.
  private static func forget(_ buckets: inout [String: Bucket], _ now: UInt64) {
    let oldest = buckets.sorted { $0.value.at < $1.value.at }.prefix(mostAddresses / 4)
    for (key, _) in oldest { buckets[key] = nil }
  }
}
