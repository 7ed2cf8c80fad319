internal import PloopJSON

/// Why a command has not done what was asked of it, in words and as the status that it ends with.
struct ClientFault: Error, Sendable {
  let status: Outcome
  /// What went wrong, then what is known of it, a line each.
  let lines: [String]
  /// The problem as the service has said it.
  let problem: JSON?

  init(_ status: Outcome, _ text: String) {
    self.status = status
    lines = [text]
    problem = nil
  }

  /// - Parameter problem: what the service has answered (RFC 9457), or a job's `error`.
  init(_ status: Outcome, problem: JSON) {
    self.status = status
    self.problem = problem
    lines = ClientFault.lines(of: problem)
  }

  private static func lines(of problem: JSON) -> [String] {
    func text(_ name: String) -> String? { problem.member(name)?.text }
    let detail = text("detail") ?? text("title") ?? "refused"
    var lines = ["\(detail)\(text("code").map { " (\($0))" } ?? "")"]
    func add(_ name: String, _ value: String?) {
      guard let value, !value.isEmpty else { return }
      lines.append("  \(name): \(value)")
    }
    add("cause", text("cause"))
    if let holder = problem.member("holder") {
      let words = ["kind", "id"].compactMap { holder.member($0)?.text }
      add("holder", words.joined(separator: " "))
    }
    for mistake in problem.member("errors")?.items ?? [] {
      add("at", mistake.member("pointer")?.text)
    }
    for client in problem.member("clients")?.items ?? [] {
      add("client", client.member("peer")?.text)
    }
    add(
      "backups",
      problem.member("backups").map { $0.items.compactMap(\.text) }?.joined(separator: " "))
    for name in ["required_bytes", "free_bytes", "limit_bytes"] {
      add(
        name.replacing("_bytes", with: ""), problem.member(name)?.whole.map { Units.bytes($0) })
    }
    add(
      "nearest", problem.member("nearest").map { $0.items.map(Plain.text).joined(separator: " ") })
    add("scope needed", text("scope"))
    add("errno", text("errno"))
    add("remedy", text("remedy"))
    add("request", text("request_id"))
    return lines
  }
}

extension JSON {
  var whole: Int64? {
    guard case .integer(let number) = self else { return nil }
    return number
  }

  var flag: Bool? {
    guard case .bool(let flag) = self else { return nil }
    return flag
  }

  /// What is at the end of a path as `progress.phase`; nil where it is missing or null.
  func at(_ path: String) -> JSON? {
    var value = self
    for name in path.split(separator: ".") {
      guard let next = value.member(String(name)) else { return nil }
      value = next
    }
    return value == .null ? nil : value
  }
}
