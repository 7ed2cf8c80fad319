/// Where a request goes. It is split before it is decoded, so that an encoded slash is a part of
/// its segment.
struct RequestTarget: Sendable {
  /// The host of a target in absolute form, which wins over the header.
  let authority: String?
  /// Percent-decoded; `/a/` has an empty one at its end.
  let segments: [String]
  let query: [(name: String, value: String)]

  init(_ text: String) throws(Problem) {
    var rest = Substring(text)
    var authority: Substring?
    if let scheme = ["http://", "https://"].first(where: { rest.lowercased().hasPrefix($0) }) {
      rest = rest.dropFirst(scheme.count)
      authority = rest.prefix { $0 != "/" && $0 != "?" }
      rest = rest.drop { $0 != "/" && $0 != "?" }
    }
    let path = rest.prefix { $0 != "?" }
    guard path.hasPrefix("/") || authority != nil && path.isEmpty else {
      throw Problem("bad-request", "the request target is no path")
    }
    var segments: [String] = []
    for segment in path.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
      segments.append(try RequestTarget.decoded(segment))
    }
    var query: [(name: String, value: String)] = []
    for pair in rest.dropFirst(path.count + 1).split(separator: "&") {
      // Forms and most libraries send a space as a plus.
      let pair = pair.replacing("+", with: "%20")
      let name = pair.prefix { $0 != "=" }
      query.append(
        (
          try RequestTarget.decoded(name),
          try RequestTarget.decoded(pair.dropFirst(name.count + 1))
        ))
    }
    self.authority = authority.map(String.init)
    self.segments = segments
    self.query = query
  }

  private static func decoded(_ text: Substring) throws(Problem) -> String {
    var bytes: [UInt8] = []
    var rest = text.utf8
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      let digits = rest.prefix(2)
      guard digits.count == 2, digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
        let value = UInt8(String(Substring(digits)), radix: 16), value != 0
      else { throw Problem("bad-request", "an escape in the target is not %01 to %FF") }
      bytes.append(value)
      rest = rest.dropFirst(2)
    }
    guard let decoded = String(validating: bytes, as: UTF8.self) else {
      throw Problem("bad-request", "the target is not UTF-8")
    }
    return decoded
  }
}
