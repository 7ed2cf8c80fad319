internal import PloopControl
internal import PloopIO
internal import PloopJSON

// What is written down of a request: who, from where, what, and what became of it. Never a secret: of a
// body there is its hash, of a query nothing.

extension AuditLog {
  private static let mostPathCharacters = 1024

  /// Writes down a request that was to change something, or was refused for who has sent it.
  ///
  /// - Parameter route: nil where there is none.
  func note(_ request: HTTPRequest, _ route: Route?, _ reply: HTTPReply, requestID: String) {
    let isRead = ["GET", "HEAD", "OPTIONS"].contains(request.method)
    guard !isRead || reply.isDenial else { return }
    let code: JSON? =
      if case .object(let members)? = reply.body, reply.isProblem {
        members.first { $0.name == "code" }?.value
      } else { nil }
    let isKnown = if case .success? = request.caller { true } else { false }
    append(
      [
        .init(name: "at", value: time(wallClockSeconds())),
        .init(name: "request_id", value: .string(requestID)),
        .init(name: "actor", value: .string(request.actor)),
        .init(name: "peer", value: .string("\(request.peer)")),
        .init(name: "method", value: .string(String(request.method.prefix(32)))),
        .init(name: "route", value: route.map { .string($0.template) } ?? .null),
        .init(
          name: "path", value: .string(String(request.path.prefix(AuditLog.mostPathCharacters)))),
        .init(name: "scope", value: route?.scope.map { .string($0.rawValue) } ?? .null),
        .init(name: "status", value: .integer(Int64(reply.status))),
        .init(name: "code", value: code ?? .null),
        .init(
          name: "body_sha256",
          value: request.body.isEmpty ? .null : .string(SHA256.hexDigest(request.body))),
        .init(name: "location", value: reply.header("Location").map(JSON.string) ?? .null),
        .init(name: "revision", value: reply.revision.map(JSON.count) ?? .null),
      ], refused: isKnown ? (reply.status >= 400 ? request.actor : nil) : "")
  }
}
