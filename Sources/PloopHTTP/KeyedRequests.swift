internal import PloopControl
internal import PloopIO
internal import PloopJSON

// Requests that make something, and may come with a key so that they make it only once
// (draft-ietf-httpapi-idempotency-key-header).

extension Route {
  /// A POST that makes something.
  ///
  /// - Parameters:
  ///   - answer: the reply that shows what was made. It is kept under the request's key, in the
  ///     transaction that makes it.
  ///   - finish: the reply that is given, where that is another one.
  ///   - plan: what would be made, where a request can ask for that.
  ///   - make: has the service make it, and the keeper keep it.
  init<Created: Sendable>(
    creating template: String, _ operationID: String, _ scope: Scope, reach: Reach? = nil,
    parameters: Set<String> = [],
    answer: @escaping @Sendable (Created) -> HTTPReply,
    finish: (@Sendable (Call, Created) async throws(Problem) -> HTTPReply)? = nil,
    plan: (@Sendable (Call) async throws(Problem) -> JobPlan)? = nil,
    _ make:
      @escaping @Sendable (Call, AnswerKeeper<Created>?) async throws(Problem) -> Created
  ) {
    self.init("POST", template, operationID, scope, reach: reach, parameters: parameters) {
      call throws(Problem) in
      let key = try call.key(route: "POST \(template)")
      if let plan, try call.isDryRun() { return HTTPReply(200, try await plan(call).json) }
      func reply(_ created: Created) async throws(Problem) -> HTTPReply {
        guard let finish else { return answer(created) }
        return try await finish(call, created)
      }
      guard let key else {
        return try await reply(
          try await call.patiently { () async throws(Problem) in try await make(call, nil) })
      }
      let claim = try await converting { () async throws(ServiceError) in
        try await call.service.claim(key)
      }
      switch claim {
      case .answered(let text):
        return try HTTPReply(kept: text).with("Idempotency-Replayed", "true")
      case .new:
        defer { call.service.release(key) }
        return try await reply(
          try await call.patiently { () async throws(Problem) in
            try await make(call, AnswerKeeper(key) { answer($0).kept })
          })
      }
    }
  }
}

extension Call {
  private static let longestKey = 255

  /// The request's key, if it has one, bare or as a string of RFC 8941.
  fileprivate func key(route: String) throws(Problem) -> RequestKey? {
    let values = request.values(of: "idempotency-key")
    guard let value = values.first else { return nil }
    let isQuoted = value.hasPrefix("\"") && value.hasSuffix("\"") && value.utf8.count >= 2
    let text = isQuoted ? String(value.dropFirst().dropLast()) : value
    let lowest: UInt8 = isQuoted ? 0x20 : 0x21
    let isFit = text.utf8.allSatisfy {
      (lowest...0x7E).contains($0) && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\")
    }
    guard values.count == 1, isFit, (1...Call.longestKey).contains(text.utf8.count) else {
      throw Problem(
        "invalid-value", "Idempotency-Key is one text of 1 to 255 visible characters")
    }
    let asked = Array("\(request.method) \(request.target)\n".utf8) + request.body
    return RequestKey(caller.keyPrefix + text, route: route, fingerprint: SHA256.hexDigest(asked))
  }
}

extension HTTPReply {
  /// The reply as text, to be given again.
  fileprivate var kept: String {
    let headers = headers.map { JSON.Member(name: $0.name, value: .string($0.value)) }
    let members = JSON.members([
      "status": .integer(Int64(status)), "headers": .object(headers), "body": body,
    ])
    return String(decoding: members.encoded, as: UTF8.self)
  }

  fileprivate init(kept text: String) throws(Problem) {
    var fields = try Fields(try JSON.read(Array(text.utf8)))
    guard let status = try fields.number("status"),
      case .object(let headers)? = fields.json("headers")
    else { throw Problem("internal", "a kept answer cannot be read") }
    self.init(Int(clamping: status), fields.json("body"))
    for header in headers {
      if case .string(let value) = header.value { self.headers.append((header.name, value)) }
    }
  }
}
