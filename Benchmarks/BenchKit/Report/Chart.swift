internal import Glibc

/// The goals as a picture: a bar for each ratio, a mark where its goal is. Ratios are on a scale of
/// powers of two, so that twice as fast is as far to the right as half as fast to the left.
package enum Chart {
  private static let width = 1000.0
  private static let labels = 500.0
  private static let line = 22.0

  package static func svg(_ report: Report) -> String {
    var bars: [(label: String, ratio: Double, goal: Report.Goal, isReached: Bool)] = []
    for row in report.rows {
      for goal in row.goals {
        guard let ratio = row.ratio(of: goal.of, against: goal.against), ratio.median > 0 else {
          continue
        }
        bars.append(
          ("\(row.title(goal)) / \(goal.against)", ratio.median, goal, row.isReached(goal) == true))
      }
    }
    let height = line * Double(bars.count) + 50
    var parts = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(text(width))\" height=\"\(text(height))\" font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
    ]
    for power in -2...5 {
      let x = place(exp2(Double(power)))
      parts.append(
        "<line x1=\"\(text(x))\" y1=\"24\" x2=\"\(text(x))\" y2=\"\(text(height - 14))\" stroke=\"\(power == 0 ? "black" : "#ddd")\"/>"
      )
      parts.append(
        "<text x=\"\(text(x))\" y=\"16\" text-anchor=\"middle\">\(power < 0 ? "1/\(1 << -power)" : "\(1 << power)")</text>"
      )
    }
    for (index, bar) in bars.enumerated() {
      let y = 30 + line * Double(index)
      let (from, to) = (min(place(1), place(bar.ratio)), max(place(1), place(bar.ratio)))
      parts.append(
        "<text x=\"\(text(labels - 8))\" y=\"\(text(y + 13))\" text-anchor=\"end\">\(escaped(bar.label))</text>"
      )
      parts.append(
        "<rect x=\"\(text(from))\" y=\"\(text(y))\" width=\"\(text(max(1, to - from)))\" height=\"16\" fill=\"\(bar.isReached ? "#3a8f5b" : "#c8553d")\"/>"
      )
      let goal = place(bar.goal.ratio)
      parts.append(
        "<line x1=\"\(text(goal))\" y1=\"\(text(y - 2))\" x2=\"\(text(goal))\" y2=\"\(text(y + 18))\" stroke=\"black\" stroke-width=\"2\"/>"
      )
    }
    return (parts + ["</svg>"]).joined(separator: "\n") + "\n"
  }

  /// From a quarter to 32 times.
  private static func place(_ ratio: Double) -> Double {
    let power = min(5, max(-2, log2(ratio)))
    return labels + 10 + (power + 2) / 7 * (width - labels - 30)
  }

  private static func text(_ value: Double) -> String { Table.fixed(value, digits: 1) }

  private static func escaped(_ text: String) -> String {
    text.split(separator: "&", omittingEmptySubsequences: false).joined(separator: "&amp;")
      .split(separator: "<", omittingEmptySubsequences: false).joined(separator: "&lt;")
  }
}
