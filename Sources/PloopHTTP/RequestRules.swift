/// What HTTP forbids and the library lets through, and what keeps other web sites out.
enum RequestRules {
  /// Of this machine for itself.
  static let ownHosts: Set<String> = ["localhost", "127.0.0.1", "[::1]"]
  private static let withBody: Set<String> = ["POST", "PATCH", "PUT"]

  static let mostTargetBytes = 8 << 10
  static let mostHeaderBytes = 24 << 10
  static let mostHeaders = 100

  /// What is longer than anybody needs. The library has limits of its own above these, and words of its
  /// own for them.
  static func checkHead(_ request: HTTPRequest) throws(Problem) {
    guard request.target.utf8.count <= mostTargetBytes else {
      throw Problem("target-too-long", "the target has more than \(mostTargetBytes) bytes")
    }
    guard request.headers.count <= mostHeaders else {
      throw Problem("header-too-large", "there are more than \(mostHeaders) headers")
    }
    let bytes = request.headers.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count + 4 }
    guard bytes <= mostHeaderBytes else {
      throw Problem("header-too-large", "the headers have more than \(mostHeaderBytes) bytes")
    }
  }

  /// What is refused with the body unread, because nobody can be sure where it ends, or because
  /// the client waits to hear whether it is wanted.
  static func checkFraming(_ request: HTTPRequest) throws(Problem) {
    let lengths = request.values(of: "content-length")
    let codings = request.values(of: "transfer-encoding")
    guard lengths.count + codings.count <= 1 else {
      throw Problem("bad-request", "more than one header says where the body ends")
    }
    guard codings.allSatisfy({ $0.lowercased() == "chunked" }) else {
      throw Problem("bad-request", "the only transfer coding is chunked")
    }
    if request.values(of: "expect").contains(where: { $0.lowercased() == "100-continue" }),
      let length = lengths.first, UInt64(length) ?? .max > UInt64(HTTPRequest.bodyLimitBytes)
    {
      throw Problem("body-too-large", "the body has \(length) bytes")
    }
  }

  static func check(
    _ request: HTTPRequest, authority: String?, hosts: Set<String>
  ) throws(Problem) {
    let names = request.values(of: "host")
    guard names.count == 1, let host = authority ?? names.first else {
      throw Problem("bad-request", "a request has exactly one Host header")
    }
    // DNS rebinding: a page's own name resolves to this address, but stays in Host.
    guard let name = name(of: host), hosts.contains(name) else {
      throw Problem("wrong-host", "\(host) is not a name of this service")
    }
    for origin in request.values(of: "origin")
    where origin != "http://\(host)" && origin != "https://\(host)" {
      throw Problem("cross-site-request", "requests from \(origin) are not served")
    }
    if request.values(of: "sec-fetch-site").contains("cross-site"), !isLink(request) {
      throw Problem("cross-site-request", "cross-site requests are not served")
    }
    guard !request.isBodyTooLarge else { throw Problem("body-too-large", "at most 1 MiB") }
    if withBody.contains(request.method) { try checkType(request) }
  }

  /// Somebody follows a link of another site to a page for people: they hold nothing of anybody's, and no other page
  /// sees what comes of it.
  private static func isLink(_ request: HTTPRequest) -> Bool {
    request.method == "GET" && isPage(request.path)
      && request.values(of: "sec-fetch-mode") == ["navigate"]
      && request.values(of: "sec-fetch-dest") == ["document"]
  }

  private static func isPage(_ path: String) -> Bool {
    ["/", "/docs", "/problems"].contains(path) || path.hasPrefix("/problems/")
  }

  private static func checkType(_ request: HTTPRequest) throws(Problem) {
    let types = request.values(of: "content-type").map { value in
      value.prefix { $0 != ";" }.lowercased().filter { $0 != " " && $0 != "\t" }
    }
    // Some verbs need no body, and without one there is nothing to be of a type.
    let isAccepted =
      types.isEmpty && request.body.isEmpty || types == ["application/json"]
      || request.method == "PATCH" && types == ["application/merge-patch+json"]
    guard isAccepted else {
      let type = types.isEmpty ? "of no type" : types.joined(separator: " and ")
      throw Problem("unsupported-media-type", "a body is application/json, this one is \(type)")
    }
  }

  /// The host without its port; nil when something else stands there.
  private static func name(of host: String) -> String? {
    let bytes = host.utf8
    let end =
      (bytes.first == UInt8(ascii: "[")
        ? bytes.firstIndex(of: UInt8(ascii: "]")).map(bytes.index(after:))
        : bytes.firstIndex(of: UInt8(ascii: ":"))) ?? bytes.endIndex
    let port = bytes[end...]
    let isPort =
      port.isEmpty
      || port.first == UInt8(ascii: ":")
        && port.dropFirst().allSatisfy { (0x30...0x39).contains($0) }
    guard isPort else { return nil }
    let name = String(host[..<end])
    return name.utf8.contains { (0x41...0x5A).contains($0) } ? name.lowercased() : name
  }
}

extension Character {
  /// Only 0 to 9: `isNumber` knows many more.
  var isASCIIDigit: Bool { ("0"..."9").contains(self) }
}
