internal import PloopControl
internal import PloopJSON

extension Problem {
  fileprivate init(_ fault: JSONFault) {
    let code =
      switch fault.kind {
      case .malformed: "malformed-json"
      case .nestedTooDeeply: "nested-too-deeply"
      case .tooManyItems: "too-many-items"
      case .duplicateKey: "duplicate-key"
      }
    self.init(code, fault.detail, pointer: fault.path.map(ServiceError.pointer))
  }
}

extension JSON {
  /// Reads what a client has sent.
  static func read(_ bytes: [UInt8]) throws(Problem) -> JSON {
    do throws(JSONFault) { return try JSONParser.parse(bytes) } catch { throw Problem(error) }
  }
}
