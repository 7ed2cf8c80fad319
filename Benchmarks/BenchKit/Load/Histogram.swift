/// Latencies in nanoseconds, in buckets that are at most 1/32 wide: an addition for each request.
package struct Histogram: Sendable {
  private static let fineBits = 5
  private var counts = [UInt64](repeating: 0, count: 64 << fineBits)
  package private(set) var count: UInt64 = 0

  package init() {}

  static func bucket(_ value: UInt64) -> Int {
    guard value >= 2 << UInt64(fineBits) else { return Int(value) }
    let shift = 63 - value.leadingZeroBitCount - fineBits
    return (shift << fineBits) + Int(value >> UInt64(shift))
  }

  /// The middle of a bucket.
  static func value(_ bucket: Int) -> UInt64 {
    guard bucket >= 2 << fineBits else { return UInt64(bucket) }
    let shift = UInt64((bucket >> fineBits) - 1)
    let base = UInt64(bucket - (Int(shift) << fineBits)) << shift
    return base + (1 << shift) / 2
  }

  package mutating func record(_ nanoseconds: UInt64) {
    counts[Histogram.bucket(nanoseconds)] += 1
    count += 1
  }

  package mutating func add(_ other: Histogram) {
    for (bucket, more) in other.counts.enumerated() { counts[bucket] += more }
    count += other.count
  }

  /// Nanoseconds that `share` (0...1) of all requests did not exceed; 0 when there were none.
  package func quantile(_ share: Double) -> UInt64 {
    let wanted = max(1, UInt64(Double(count) * share))
    var seen: UInt64 = 0
    for (bucket, here) in counts.enumerated() where here > 0 {
      seen += here
      if seen >= wanted { return Histogram.value(bucket) }
    }
    return 0
  }
}
