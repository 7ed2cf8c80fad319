/// A report as people read it. The same report makes the same text.
package enum Table {
  /// The goals, each with its ratio and verdict.
  package static func goals(_ report: Report) -> String {
    var lines = [
      "| what | ploopd | against | ratio | rounds | goal | |",
      "|---|---|---|---|---|---|---|",
    ]
    for row in report.rows {
      for goal in row.goals {
        guard let ratio = row.ratio(of: goal.of, against: goal.against),
          let own = Spread(row.samples(goal.of).map(\.value))
        else { continue }
        let verdict = row.isReached(goal) == true ? "pass" : "**short**"
        lines.append(
          "| \(row.title(goal)) | \(number(own.median)) \(row.unit) | \(goal.against) | \(fixed(ratio.median)) | "
            + "\(fixed(ratio.least)) … \(fixed(ratio.most)) | \(goal.atMost ? "≤" : "≥") \(fixed(goal.ratio)) | \(verdict) |"
        )
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// Everything that was measured: medians of all rounds.
  package static func everything(_ report: Report) -> String {
    var lines = [
      "| what | server | median | rounds | p50 µs | p99 µs | CPU µs/op |",
      "|---|---|---|---|---|---|---|",
    ]
    for row in report.rows {
      for contender in row.contenders {
        guard let value = Spread(contender.samples.map(\.value)) else { continue }
        func middle(_ part: (Report.Sample) -> Double?) -> String {
          Spread(contender.samples.compactMap(part)).map { number($0.median) } ?? ""
        }
        lines.append(
          "| \(row.title) | \(contender.name) | \(number(value.median)) \(row.unit) | "
            + "\(number(value.least)) … \(number(value.most)) | \(middle(\.p50)) | \(middle(\.p99)) | \(middle(\.serverMicroseconds)) |"
        )
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// The whole of docs/benchmarks.md.
  package static func document(_ report: Report) -> String {
    """
    # Benchmarks

    `make bench` measures ploopd beside other NBD servers on this machine, and writes this page with
    `--write-docs`. [Benchmarks/README.md](../Benchmarks/README.md) says what is done, and how.

    \(report.machine.map { "- \($0)" }.joined(separator: "\n"))
    \(report.settings.map { "- \($0)" }.joined(separator: "\n"))

    ## Goals

    A ratio is the median over rounds of one round's two values; the rounds' least and greatest stand
    beside it.

    ![Ratios and goals](benchmarks.svg)

    \(goals(report))
    ## All that was measured

    Medians of the rounds. `CPU` is the server's processor time.

    \(everything(report))
    """
  }

  /// Three significant digits, grouped by thousands.
  static func number(_ value: Double) -> String {
    if value >= 1000 { return grouped(Int(value + 0.5)) }
    return fixed(value, digits: value >= 100 ? 0 : value >= 10 ? 1 : 2)
  }

  private static func grouped(_ value: Int) -> String {
    value < 1000
      ? "\(value)"
      : grouped(value / 1000) + "," + String("\(1000 + value % 1000)".dropFirst())
  }

  /// Without the locale, and without Foundation's formats.
  static func fixed(_ value: Double, digits: Int = 2) -> String {
    let scale = digits == 0 ? 1 : digits == 1 ? 10 : 100
    let whole = Int(abs(value) * Double(scale) + 0.5)
    let sign = value < 0 && whole > 0 ? "-" : ""
    guard digits > 0 else { return "\(sign)\(whole)" }
    let rest = "\(scale + whole % scale)".dropFirst()
    return "\(sign)\(whole / scale).\(rest)"
  }
}
