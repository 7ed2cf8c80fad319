internal import FoundationEssentials

/// Times as RFC 3339 has them, in UTC with milliseconds, which are cut off.
///
/// A list of a thousand devices has many thousands of them: Foundation's own style takes ten times as long.
enum Timestamp {
  /// The first second of the year 10000, which four digits cannot say.
  private static let end = 253_402_300_800.0

  /// - Parameter seconds: since 1970.
  static func text(_ seconds: Double) -> String {
    guard seconds >= 0, seconds < end else {
      return Date(timeIntervalSince1970: seconds).formatted(
        Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }
    let whole = Int(seconds)
    let milliseconds = Int((seconds - Double(whole)) * 1_000)
    let (days, second) = whole.quotientAndRemainder(dividingBy: 86_400)
    let (year, month, day) = date(days)
    return String(unsafeUninitializedCapacity: 24) { bytes in
      func put(_ value: Int, _ digits: Int, at end: Int) {
        var rest = value
        for place in (end - digits..<end).reversed() {
          bytes[place] = UInt8(ascii: "0") + UInt8(rest % 10)
          rest /= 10
        }
      }
      _ = bytes.update(fromContentsOf: "0000-00-00T00:00:00.000Z".utf8)
      put(year, 4, at: 4)
      put(month, 2, at: 7)
      put(day, 2, at: 10)
      put(second / 3_600, 2, at: 13)
      put(second / 60 % 60, 2, at: 16)
      put(second % 60, 2, at: 19)
      put(milliseconds, 3, at: 23)
      return 24
    }
  }

  /// The civil date of a day since 1970, counted in eras of 400 years that begin with March.
  private static func date(_ days: Int) -> (year: Int, month: Int, day: Int) {
    let shifted = days + 719_468
    let era = shifted / 146_097
    let dayOfEra = shifted % 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let monthFromMarch = (5 * dayOfYear + 2) / 153
    let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
    return (
      yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month,
      dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
    )
  }
}
