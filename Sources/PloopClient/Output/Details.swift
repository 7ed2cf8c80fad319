internal import PloopJSON
internal import PloopTerminal

/// A value in one line, as it is.
enum Plain {
  static func text(_ value: JSON) -> String {
    switch value {
    case .null: "-"
    case .bool(let flag): flag ? "yes" : "no"
    case .string(let text): Terminal.safe(text)
    case .integer(let number): String(number)
    case .number(let number): String(number)
    case .array(let items): items.isEmpty ? "-" : items.map(text).joined(separator: " ")
    case .object(let members):
      members.isEmpty
        ? "-" : members.map { "\(Terminal.safe($0.name))=\(text($0.value))" }.joined(separator: " ")
    }
  }

  /// The same, with the unit that a member's name tells.
  static func text(_ value: JSON, of name: String) -> String {
    switch value {
    case .integer(let count) where isBytes(name): Units.exactBytes(count)
    case .integer(0) where name == "bps" || name == "iops": "none"
    case .integer(let count) where name.hasSuffix("bps"): "\(Units.exactBytes(count)) a second"
    case .integer(let count) where name.hasSuffix("_seconds"): Units.duration(count)
    case .string(let text): Terminal.safe(Units.time(text))
    default: text(value)
    }
  }

  static func isBytes(_ name: String) -> Bool {
    name == "size" || name == "bytes" || name == "cluster_size" || name.hasSuffix("_bytes")
      || name.hasPrefix("bytes_") || name == "granularity"
  }
}

/// One thing with all that is known of it, by the names of the API.
struct Details {
  let value: JSON

  func lines(width: Int?) -> [String] { Details.lines(of: value, indent: 0, width) }

  private static func lines(of value: JSON, indent: Int, _ width: Int?) -> [String] {
    guard case .object(let members) = value else { return [Plain.text(value)] }
    let space = String(repeating: " ", count: indent)
    let column = members.filter { !isBlock($0.value) }.map(\.name.count).max() ?? 0
    var lines: [String] = []
    for member in members {
      let name = Terminal.safe(member.name)
      guard isBlock(member.value) else {
        let gap = String(repeating: " ", count: max(0, column - name.count))
        lines.append("\(space)\(name):\(gap) \(Plain.text(member.value, of: member.name))")
        continue
      }
      lines.append("\(space)\(name):")
      if case .array(let items) = member.value {
        lines += table(of: items, width.map { $0 - indent - 2 }).map { "\(space)  \($0)" }
      } else {
        lines += Details.lines(of: member.value, indent: indent + 2, width)
      }
    }
    return lines
  }

  /// Whether it takes lines of its own.
  private static func isBlock(_ value: JSON) -> Bool {
    switch value {
    case .object(let members): !members.isEmpty
    case .array(let items): items.contains { if case .object = $0 { true } else { false } }
    default: false
    }
  }

  private static func table(of items: [JSON], _ width: Int?) -> [String] {
    var names: [String] = []
    for case .object(let members) in items {
      for member in members where !names.contains(member.name) { names.append(member.name) }
    }
    let columns = names.map { name in
      Column(
        Terminal.safe(name), name,
        Plain.isBytes(name) ? .bytes : name.hasSuffix("_at") ? .time : .text)
    }
    return Table(columns: columns, rows: items).lines(width: width)
  }
}
