/// What HTTP forbids and the library lets through, and what keeps other web sites out.
enum RequestRules {
  private static let hosts: Set<String> = ["localhost", "127.0.0.1", "[::1]"]
  private static let withBody: Set<String> = ["POST", "PATCH", "PUT"]

  static func check(_ request: HTTPRequest) throws(Problem) {
    let host = request.values(of: "host")
    guard host.count == 1 else {
      throw Problem("bad-request", "a request has exactly one Host header")
    }
    let lengths = request.values(of: "content-length")
    guard lengths.count <= 1, lengths.isEmpty || request.values(of: "transfer-encoding").isEmpty
    else {
      throw Problem("bad-request", "Content-Length together with Transfer-Encoding")
    }
    // DNS rebinding: a page's own name resolves to this address, but stays in Host.
    guard hosts.contains(name(of: host[0])) else {
      throw Problem("wrong-host", "\(host[0]) is not a name of this service")
    }
    for origin in request.values(of: "origin")
    where origin != "http://\(host[0])" && origin != "https://\(host[0])" {
      throw Problem("cross-site-request", "requests from \(origin) are not served")
    }
    if request.values(of: "sec-fetch-site").contains("cross-site") {
      throw Problem("cross-site-request", "cross-site requests are not served")
    }
    guard !request.isBodyTooLarge else { throw Problem("body-too-large", "at most 1 MiB") }
    if withBody.contains(request.method) { try checkType(request) }
  }

  private static func checkType(_ request: HTTPRequest) throws(Problem) {
    let type =
      request.values(of: "content-type").first?.split(separator: ";").first
      .map { $0.lowercased().filter { $0 != " " } } ?? ""
    guard
      type == "application/json"
        || request.method == "PATCH" && type == "application/merge-patch+json"
    else { throw Problem("unsupported-media-type", "bodies are application/json, not \(type)") }
  }

  /// The host without its port.
  private static func name(of host: String) -> String {
    if host.hasPrefix("["), let end = host.firstIndex(of: "]") {
      return String(host[...end]).lowercased()
    }
    return host.split(separator: ":", omittingEmptySubsequences: false).first?.lowercased() ?? ""
  }
}
