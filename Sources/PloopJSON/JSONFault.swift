/// Why bytes are not read as JSON.
package struct JSONFault: Error, Sendable {
  package enum Kind: Sendable {
    case malformed, nestedTooDeeply, tooManyItems, duplicateKey
  }

  package let kind: Kind
  package let detail: String
  /// Member names and indices on the way to what is wrong, where that is one value.
  package let path: [String]?

  init(_ kind: Kind, _ detail: String, path: [String]? = nil) {
    self.kind = kind
    self.detail = detail
    self.path = path
  }
}
