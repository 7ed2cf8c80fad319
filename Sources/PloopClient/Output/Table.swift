internal import PloopJSON

/// One column of a table: what of each row it shows, and how.
struct Column: Sendable {
  enum Style: Sendable {
    case text, bytes, time, count, rate
    /// Of a share as `progress`.
    case percent
    /// The names of a list's members, by one of their members.
    case names(String)
  }

  let title: String
  /// As ``PloopJSON/JSON/at(_:)``.
  let path: String
  let style: Style

  init(_ title: String, _ path: String, _ style: Style = .text) {
    self.title = title
    self.path = path
    self.style = style
  }

  var isRight: Bool {
    switch style {
    case .bytes, .count, .rate, .percent: true
    case .text, .time, .names: false
    }
  }

  func cell(of row: JSON) -> String {
    guard let value = row.at(path) else { return "-" }
    switch (style, value) {
    case (.bytes, .integer(let count)): return Units.bytes(count)
    case (.rate, .integer(let count)): return Units.rate(count)
    case (.time, .string(let text)): return Terminal.safe(Units.time(text))
    case (.count, .array(let items)): return String(items.count)
    case (.names(let name), .array(let items)):
      return items.isEmpty
        ? "-" : items.map { Plain.text($0.member(name) ?? $0) }.joined(separator: ",")
    case (.percent, .object): return Progress(value).map { "\($0.percent) %" } ?? "-"
    default: return Plain.text(value)
    }
  }
}

/// Rows beneath each other, as wide as the widest cell of each column.
struct Table {
  private static let gap = 2
  private static let leastWidth = 6

  let columns: [Column]
  let rows: [JSON]

  /// - Parameter width: how many characters a line may have; nil for as many as it takes.
  func lines(width: Int?) -> [String] {
    var cells = [columns.map(\.title)]
    cells += rows.map { row in columns.map { $0.cell(of: row) } }
    var widths = columns.indices.map { column in cells.map { $0[column].count }.max() ?? 0 }
    if let width { Table.fit(&widths, into: width) }
    return cells.map { line(of: $0, widths) }
  }

  private func line(of cells: [String], _ widths: [Int]) -> String {
    var line = ""
    for (index, cell) in cells.enumerated() {
      let text = cell.count > widths[index] ? String(cell.prefix(widths[index] - 1)) + "…" : cell
      let space = String(repeating: " ", count: widths[index] - text.count)
      if index > 0 { line += String(repeating: " ", count: Table.gap) }
      line += columns[index].isRight ? space + text : text + space
    }
    while line.last == " " { line.removeLast() }
    return line
  }

  /// Takes of the widest column until all of them fit, or are short.
  private static func fit(_ widths: inout [Int], into width: Int) {
    var excess = widths.reduce(0, +) + gap * max(0, widths.count - 1) - width
    while excess > 0, let widest = widths.indices.max(by: { widths[$0] < widths[$1] }),
      widths[widest] > leastWidth
    {
      widths[widest] -= 1
      excess -= 1
    }
  }
}
