internal import PloopJSON

/// One request as it goes out; the only place where paths, queries and bodies are put together.
struct Request: Sendable {
  var method: String
  /// Encoded, without the query.
  var path: String
  var query: [(name: String, value: String)] = []
  /// Each as it stands in the request.
  var headers: [String] = []
  var body: JSON?

  /// - Parameters:
  ///   - names: what goes into the path, in its order.
  ///   - query: what is nil is left out.
  init(
    _ operation: Operation, _ names: [String] = [], query: KeyValuePairs<String, String?> = [:],
    headers: [String] = [], body: JSON? = nil
  ) {
    var parts = operation.route.path.split(separator: "{}", omittingEmptySubsequences: false)
      .makeIterator()
    var path = parts.next().map(String.init) ?? ""
    for name in names { path += Request.encoded(name) + (parts.next() ?? "") }
    self.init(operation.route.method, path)
    self.query = query.compactMap { pair in pair.value.map { (pair.key, $0) } }
    self.headers = headers
    self.body = body
  }

  /// - Parameter path: encoded.
  init(_ method: String, _ path: String) {
    self.method = method
    self.path = path
  }

  /// Path and query.
  var target: String {
    guard !query.isEmpty else { return path }
    let pairs = query.map { "\(Request.encoded($0.name))=\(Request.encoded($0.value))" }
    return path + "?" + pairs.joined(separator: "&")
  }

  func adding(_ name: String, _ value: String) -> Request {
    var request = self
    request.query.append((name, value))
    return request
  }

  /// As RFC 3986 wants what is no delimiter.
  private static func encoded(_ text: String) -> String {
    let digits = Array("0123456789ABCDEF")
    var out = ""
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."),
        UInt8(ascii: "_"), UInt8(ascii: "~"):
        out.unicodeScalars.append(Unicode.Scalar(byte))
      default:
        out += "%\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])"
      }
    }
    return out
  }
}
