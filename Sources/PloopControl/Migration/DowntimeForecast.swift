/// For how long writers would wait if they were stopped now: what the last rounds took, by what they copied, and what
/// it takes to write down that the disk is handed over.
struct DowntimeForecast {
  /// What copies less says nothing of how fast it goes.
  private static let leastBytes: UInt64 = 1 << 20
  private static let cautionLimit = 16.0

  private var nanosecondsPerByte = 0.0
  /// How much longer it took than was expected.
  private var caution = 1.0
  /// Of one transaction.
  private var writing: UInt64 = 0

  /// Nanoseconds behind the last byte: a transaction, and half of one for what else there is.
  var ending: UInt64 { writing + writing / 2 }

  /// A round has taken so long, without what it had to wait for.
  mutating func took(_ nanoseconds: UInt64, for bytes: UInt64) {
    nanosecondsPerByte = Double(nanoseconds) / Double(max(bytes, DowntimeForecast.leastBytes))
  }

  /// One that takes long is an exception until the next one does as well.
  mutating func wrote(in nanoseconds: UInt64) {
    writing = writing == 0 ? nanoseconds : (writing + nanoseconds) / 2
  }

  /// Writers have waited in vain.
  mutating func failed() { caution = min(DowntimeForecast.cautionLimit, caution * 1.5) }

  /// - Returns: nanoseconds.
  func downtime(for bytes: UInt64) -> UInt64 {
    let copying =
      nanosecondsPerByte * Double(max(bytes, DowntimeForecast.leastBytes)) * caution
    return ending + UInt64(min(copying, 1e18))
  }
}
