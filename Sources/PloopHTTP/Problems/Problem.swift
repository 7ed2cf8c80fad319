package import PloopControl
internal import PloopJSON

/// An error as RFC 9457 has it.
package struct Problem: Error, Sendable {
  package var error: ServiceError
  package var allowed: [String] = []
  /// After which it may be tried again, where somebody may.
  package var retrySeconds: Int?
  /// Where it is answered instead.
  var location: String?
  /// Of what a range was asked for that it does not have.
  var sizeBytes: UInt64?
  /// What is somebody else's is said not to be there.
  var isForeign = false

  private static let denials: Set = [
    "unauthorized", "scope-missing", "devices-limited", "peer-not-allowed", "too-many-failures",
    "cross-site-request",
  ]

  /// Whether it is a refusal for who has asked.
  var isDenial: Bool { isForeign || Problem.denials.contains(error.code.rawValue) }

  /// Something of another caller's, which is as good as not there.
  static func foreign(_ code: String, _ detail: String) -> Problem {
    var problem = Problem(code, detail)
    problem.isForeign = true
    return problem
  }

  package init(_ code: String, _ detail: String, pointer: String? = nil) {
    error = ServiceError(ServiceError.Code(rawValue: code), detail, pointer: pointer)
  }

  package init(_ error: ServiceError) { self.error = error }

  package var status: Int { ProblemCatalogue.entry(error.code.rawValue).status }

  func body(instance: String, requestID: String) -> JSON {
    let entry = ProblemCatalogue.entry(error.code.rawValue)
    let code = entry.slug
    let known: [(String, JSON?)] = [
      ("type", .string("/problems/\(code)")), ("title", .string(entry.title)),
      ("status", .integer(Int64(entry.status))), ("code", .string(code)),
      ("detail", .string(error.detail)), ("instance", .string(instance)),
      ("request_id", .string(requestID)), ("errno", error.errno.map(JSON.string)),
      ("cause", .string(error.cause ?? entry.cause)),
      ("remedy", .string(error.remedy ?? entry.remedy)),
      (
        "holder",
        error.holder.map(\.json)
      ),
      (
        "errors",
        error.pointer.map {
          .array([
            .members([
              "pointer": .string($0), "code": .string(code), "detail": .string(error.detail),
            ])
          ])
        }
      ),
    ]
    let facts = error.facts.sorted { $0.key < $1.key }.map { ($0.key, Optional(json($0.value))) }
    return .object(
      (known + facts).compactMap { pair in
        pair.1.map { JSON.Member(name: pair.0, value: $0) }
      })
  }

  private func json(_ fact: ServiceError.Fact) -> JSON {
    switch fact {
    case .number(let number): .count(number)
    case .text(let text): .string(text)
    case .clients(let clients): .array(clients.map(\.json))
    case .numbers(let numbers): .array(numbers.map(JSON.count))
    case .texts(let texts): .array(texts.map(JSON.string))
    }
  }
}
