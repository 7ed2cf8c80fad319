/// Which of many moments are worth keeping: the newest ones, and the newest of each of the newest hours, days,
/// weeks, months and years in which there are any. Values only.
///
/// Hours and all else are those of UTC, and weeks begin on Monday: what is kept does not depend on where it is
/// decided. Each rule looks at all of them, so one may be kept by several.
struct Retention: Equatable, Sendable {
  enum Rule: String, CaseIterable, Sendable {
    case last = "keep_last"
    case hourly, daily, weekly, monthly, yearly

    /// The same number for all moments of one hour, day, and so on; nil where each counts by itself.
    ///
    /// - Parameter seconds: since 1970.
    fileprivate func period(of seconds: Double) -> Int64? {
      let day = Int64((seconds / 86_400).rounded(.down))
      switch self {
      case .last: return nil
      case .hourly: return Int64((seconds / 3_600).rounded(.down))
      case .daily: return day
      // 1970 began on a Thursday.
      case .weekly: return Retention.floor(day + 3, by: 7)
      case .monthly: return Retention.month(of: day)
      case .yearly: return Retention.floor(Retention.month(of: day), by: 12)
      }
    }
  }

  /// How many each rule keeps; 0 for none.
  var counts: [Rule: UInt64]

  /// Why each moment is kept; nothing for one that is not.
  ///
  /// - Parameter moments: seconds since 1970; the order does not matter.
  /// - Returns: in the order of the moments.
  func reasons(for moments: [Double]) -> [[Rule]] {
    var reasons = [[Rule]](repeating: [], count: moments.count)
    let newestFirst = moments.indices.sorted { (moments[$0], $0) > (moments[$1], $1) }
    for rule in Rule.allCases {
      var left = counts[rule] ?? 0
      var seen: Int64?
      for index in newestFirst where left > 0 {
        if let period = rule.period(of: moments[index]) {
          guard period != seen else { continue }
          seen = period
        }
        reasons[index].append(rule)
        left -= 1
      }
    }
    return reasons
  }

  private static func floor(_ number: Int64, by divisor: Int64) -> Int64 {
    let quotient = number / divisor
    return number % divisor < 0 ? quotient - 1 : quotient
  }

  /// Months since the year 0 of the civil calendar, of a day since 1970: a year that begins in March ends with
  /// the day that some years have and others have not.
  private static func month(of day: Int64) -> Int64 {
    let shifted = day + 719_468
    let era = floor(shifted, by: 146_097)
    let dayOfEra = shifted - era * 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    // From March on.
    let month = (5 * dayOfYear + 2) / 153
    return (era * 400 + yearOfEra) * 12 + month + 2
  }
}

extension JobParameters {
  /// Takes the members that are called as the rules are.
  ///
  /// - Throws: `value-impossible` where none keeps anything: nobody means that.
  mutating func retention() throws(ServiceError) -> Retention {
    var counts: [Retention.Rule: UInt64] = [:]
    for rule in Retention.Rule.allCases { counts[rule] = try number(rule.rawValue) }
    guard counts.values.contains(where: { $0 > 0 }) else {
      let name = Retention.Rule.last.rawValue
      throw impossible(name, "one of the rules has to keep something")
    }
    return Retention(counts: counts)
  }
}

extension Retention {
  /// The parameters that say the same.
  var values: [String: JobValue] {
    Dictionary(
      counts.map { ($0.key.rawValue, JobValue.number($0.value)) },
      uniquingKeysWith: { first, _ in first })
  }
}
