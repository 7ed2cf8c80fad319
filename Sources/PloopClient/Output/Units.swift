internal import PloopTerminal

/// Figures for people.
enum Units {
  static func bytes(_ count: Int64) -> String { ByteSize(bytes: UInt64(clamping: count)).rounded }

  /// `1.5 GiB (1610612736 bytes)`.
  static func exactBytes(_ count: Int64) -> String {
    ByteSize(bytes: UInt64(clamping: count)).exact
  }

  static func rate(_ bytesPerSecond: Int64) -> String { "\(bytes(bytesPerSecond))/s" }

  /// The two largest units: `2 d 3 h`, `4 min 5 s`, `6 s`.
  static func duration(_ seconds: Int64) -> String {
    let seconds = max(0, seconds)
    let parts = [
      (seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"),
      (seconds % 60, "s"),
    ]
    guard let first = parts.firstIndex(where: { $0.0 > 0 }) else { return "0 s" }
    return parts[first...].prefix(2).filter { $0.0 > 0 }.map { "\($0.0) \($0.1)" }
      .joined(separator: " ")
  }

  /// `2026-11-26 12:00:00Z` of a time as the service writes it, anything else as it is.
  static func time(_ text: String) -> String {
    guard text.wholeMatch(of: #/\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z/#) != nil else { return text }
    return text.prefix(19).replacing("T", with: " ") + "Z"
  }

  static func percent(_ done: Int64, of total: Int64) -> Int {
    total <= 0 ? 0 : Int(min(100, max(0, Double(done) / Double(total) * 100)))
  }
}
