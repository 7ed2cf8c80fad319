internal import PloopJSON

/// How the answer to a request is shown to people.
enum View: Sendable {
  /// A list of the API, all parts of it.
  case table([Column])
  /// One thing with everything.
  case details
  /// The same of one member, or of all, without those that are null, empty, or of no interest now.
  case summary(of: String?, leavingOut: Set<String>)
  /// A text that is no JSON, or JSON lines, as it came.
  case raw
  /// Bytes as they are.
  case bytes
  /// That something is done, in a sentence.
  case done(String)
  case tree

  func lines(of answer: APIClient.Answer, width: Int?) -> [String] {
    switch self {
    case .table(let columns):
      return Table(columns: columns, rows: answer.json.member("items")?.items ?? [])
        .lines(width: width)
    case .details: return Details(value: answer.json).lines(width: width)
    case .summary(let name, let names):
      let value = name.flatMap { answer.json.member($0) } ?? answer.json
      guard case .object(let members) = value else {
        return Details(value: value).lines(width: width)
      }
      let told = members.filter { !names.contains($0.name) && !View.isNothing($0.value) }
      return Details(value: .object(told)).lines(width: width)
    case .done(let sentence): return [sentence]
    case .tree: return SnapshotTree(items: answer.json.member("items")?.items ?? []).lines
    case .raw, .bytes:
      var text = Substring(decoding: answer.bytes, as: UTF8.self)
      while text.last == "\n" { text.removeLast() }
      return text.isEmpty ? [] : [String(text)]
    }
  }
}

extension View {
  /// Whether there is nothing to be seen of an answer that is none.
  var needsJSON: Bool {
    switch self {
    case .raw, .bytes, .done: false
    case .table, .details, .summary, .tree: true
    }
  }

  fileprivate static func isNothing(_ value: JSON) -> Bool {
    value == .null || value == .array([]) || value == .object([])
  }
}

/// Snapshots beneath the state that each builds on.
struct SnapshotTree {
  let items: [JSON]

  var lines: [String] { items.flatMap { SnapshotTree.lines(of: $0, depth: 0) } }

  private static func lines(of item: JSON, depth: Int) -> [String] {
    let uuid = item.member("uuid").map(Plain.text) ?? "-"
    var line = String(repeating: "  ", count: depth) + uuid
    if let name = item.at("name") { line += "  \(Plain.text(name))" }
    if item.at("current")?.flag == true { line += "  (the disk builds on it)" }
    return [line]
      + (item.member("children")?.items ?? []).flatMap { lines(of: $0, depth: depth + 1) }
  }
}
