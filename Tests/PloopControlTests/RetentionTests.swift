import Foundation
import Testing

@testable import PloopControl

@Suite("What a prune keeps")
struct RetentionTests {
  private static func time(_ text: String) throws -> Double {
    try Date.ISO8601FormatStyle().parse(text).timeIntervalSince1970
  }

  /// The moments that are kept by each rule, as they were written.
  private static func kept(
    _ counts: [Retention.Rule: UInt64], of moments: [String]
  ) throws -> [String: [String]] {
    let reasons = Retention(counts: counts).reasons(for: try moments.map(time))
    var kept: [String: [String]] = [:]
    for (moment, rules) in zip(moments, reasons) where !rules.isEmpty {
      kept[moment] = rules.map(\.rawValue)
    }
    return kept
  }

  @Test("the newest ones, whatever their order")
  func last() throws {
    let moments = [
      "2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z", "2026-01-01T00:00:00Z",
      "2026-01-03T00:00:00Z",
    ]
    #expect(
      try Self.kept([.last: 2], of: moments) == [
        "2026-01-03T00:00:00Z": ["keep_last"], "2026-01-04T00:00:00Z": ["keep_last"],
      ])
    #expect(try Self.kept([.last: 9], of: moments).count == 4)
  }

  @Test(
    "the newest of each period, at the very borders of UTC's",
    arguments: [
      // rule, last moment of a period, first one of the next
      (Retention.Rule.hourly, "2026-01-01T00:59:59Z", "2026-01-01T01:00:00Z"),
      (.daily, "2026-01-01T23:59:59Z", "2026-01-02T00:00:00Z"),
      // A Sunday and a Monday.
      (.weekly, "2026-11-22T23:59:59Z", "2026-11-23T00:00:00Z"),
      (.weekly, "1969-12-28T23:59:59Z", "1969-12-29T00:00:00Z"),
      (.monthly, "2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"),
      (.monthly, "2100-02-28T23:59:59Z", "2100-03-01T00:00:00Z"),
      (.monthly, "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
      (.yearly, "1999-12-31T23:59:59Z", "2000-01-01T00:00:00Z"),
      (.yearly, "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z"),
    ])
  func borders(rule: Retention.Rule, last: String, first: String) throws {
    let gap = 59.0
    let (end, start) = (try Self.time(last), try Self.time(first))
    #expect(start - end == 1)
    let reasons = Retention(counts: [rule: 5]).reasons(for: [end - gap, end, start, start + gap])
    #expect(reasons == [[], [rule], [], [rule]])
    #expect(Retention(counts: [rule: 1]).reasons(for: [end, start]) == [[], [rule]])
  }

  @Test("periods in which there is nothing do not count")
  func gaps() throws {
    let moments = ["2020-05-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z"]
    #expect(try Self.kept([.yearly: 2], of: moments).keys.sorted() == [moments[0], moments[2]])
    #expect(try Self.kept([.monthly: 3], of: moments).count == 3)
  }

  @Test("one by several rules, each of which looks at all of them")
  func several() throws {
    let moments = (1...20).map { "2026-01-\($0 < 10 ? "0" : "")\($0)T12:00:00Z" }
    let kept = try Self.kept([.last: 2, .daily: 3, .weekly: 2], of: moments)
    #expect(
      kept == [
        "2026-01-20T12:00:00Z": ["keep_last", "daily", "weekly"],
        "2026-01-19T12:00:00Z": ["keep_last", "daily"],
        "2026-01-18T12:00:00Z": ["daily", "weekly"],
      ])
  }

  @Test("months are those of the calendar for four centuries")
  func calendar() throws {
    var calendar = Calendar(identifier: .gregorian)
    calendar.timeZone = .gmt
    var previous: (Date, DateComponents)?
    for day in stride(from: -40_000, to: 110_000, by: 1) {
      let date = Date(timeIntervalSince1970: Double(day) * 86_400 + 43_200)
      let parts = calendar.dateComponents([.year, .month], from: date)
      defer { previous = (date, parts) }
      guard let (before, old) = previous else { continue }
      for (rule, isNew) in [
        (Retention.Rule.monthly, parts.month != old.month), (.yearly, parts.year != old.year),
      ] {
        let reasons = Retention(counts: [rule: 2]).reasons(
          for: [before.timeIntervalSince1970, date.timeIntervalSince1970])
        guard reasons == [isNew ? [rule] : [], [rule]] else {
          Issue.record("\(rule) at \(date)")
          return
        }
      }
    }
  }
}
