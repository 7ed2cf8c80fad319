internal import PloopJSON

/// What the process knows of itself and the service does not.
package struct DiagnosticsSource: Sendable {
  /// By the names that the file of settings has for them.
  package var settings: [(name: String, value: String)]
  /// The last lines of the log, oldest first.
  package var log: @Sendable () -> [String]

  package init(
    settings: [(name: String, value: String)] = [], log: @escaping @Sendable () -> [String] = { [] }
  ) {
    self.settings = settings
    self.log = log
  }
}

/// Takes out of texts what lets somebody in: tokens of this service, and who logs in where in addresses. What is
/// handed on to others for their advice has passed here.
enum Secrets {
  private static let token = "plp_"
  private static let gap = "…"

  static func removed(from value: JSON) -> JSON {
    switch value {
    case .string(let text): .string(removed(from: text))
    case .array(let items): .array(items.map(removed))
    case .object(let members):
      .object(members.map { JSON.Member(name: $0.name, value: removed(from: $0.value)) })
    case .null, .bool, .integer, .number: value
    }
  }

  static func removed(from text: String) -> String {
    withoutLogins(withoutTokens(text))
  }

  private static func withoutTokens(_ text: String) -> String {
    let parts = text.split(separator: token, omittingEmptySubsequences: false)
    guard let first = parts.first, parts.count > 1 else { return text }
    return parts.dropFirst().reduce(into: String(first)) { result, part in
      result += token + gap
      result += part.drop { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_" || $0 == "-") }
    }
  }

  /// `nbds://me:word@host/vol` without `me:word`.
  private static func withoutLogins(_ text: String) -> String {
    let parts = text.split(separator: "://", omittingEmptySubsequences: false)
    guard let first = parts.first, parts.count > 1 else { return text }
    return parts.dropFirst().reduce(into: String(first)) { result, part in
      let place = part.prefix { !"/?# \t\n\"'".contains($0) }
      result += "://"
      if let at = place.lastIndex(of: "@") {
        result += gap + part[at...]
      } else {
        result += part
      }
    }
  }
}
