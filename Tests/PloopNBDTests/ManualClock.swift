import PloopIO

/// Nanoseconds that pass when somebody says so.
final class ManualClock: Sendable {
  private let nanoseconds = Locked<UInt64>(5_000_000_000)
  var now: UInt64 { nanoseconds.withLock { $0 } }
  func advance(_ count: UInt64) { nanoseconds.withLock { $0 += count } }
}
