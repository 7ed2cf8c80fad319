// Requests that depend on the revision of what they are about (RFC 9110, section 13).

extension Call {
  /// The revision in If-Match, if there is one.
  func ifRevision() throws(Problem) -> UInt64? {
    let values = request.values(of: "if-match")
    guard let value = values.first, values != ["*"] else { return nil }
    // Shells take quotes away: bare digits are a revision too.
    if values.count == 1, let first = value.first, first.isASCIIDigit,
      value.allSatisfy(\.isASCIIDigit)
    {
      guard let revision = UInt64(value) else {
        throw Problem("precondition-failed", "no revision is \(value)")
      }
      return revision
    }
    // The comparison is the strong one, in which a weak tag equals nothing.
    let isWeak = value.hasPrefix("W/")
    let tag = isWeak ? value.dropFirst(2) : value[...]
    guard values.count == 1, tag.utf8.count >= 2, tag.hasPrefix("\""), tag.hasSuffix("\""),
      !tag.dropFirst().dropLast().contains("\"")
    else { throw Problem("invalid-value", "If-Match is one revision in quotes, or *") }
    let digits = tag.dropFirst().dropLast()
    guard !isWeak, digits.allSatisfy(\.isASCIIDigit), let revision = UInt64(digits) else {
      throw Problem("precondition-failed", "no revision is \(value)")
    }
    return revision
  }
}

extension HTTPReply {
  /// What a resource's revision is as an entity tag.
  func with(revision: UInt64) -> HTTPReply { with("ETag", "\"\(revision)\"") }

  func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }

  /// The revision that the reply shows.
  var revision: UInt64? {
    guard let tag = header("ETag") else { return nil }
    return UInt64(tag.dropFirst().dropLast())
  }

  /// The same without its body, for who has that already.
  var unchanged: HTTPReply {
    var reply = HTTPReply(304)
    reply.headers = headers
    return reply
  }

  /// Leaves the body out where the request's `If-None-Match` names what the reply shows.
  func unlessKnown(to request: HTTPRequest) -> HTTPReply {
    let conditions = request.values(of: "if-none-match")
    guard !conditions.isEmpty, request.method == "GET" || request.method == "HEAD", status == 200,
      let own = header("ETag")
    else { return self }
    // The comparison is the weak one.
    let known: Set<String> = ["*", own, "W/" + own]
    for tag in conditions.flatMap({ $0.split(separator: ",") }) {
      let bare = String(tag.drop { $0 == " " }.prefix { $0 != " " })
      if known.contains(bare) { return unchanged }
    }
    return self
  }
}
