/// A request as it came, before anybody has judged it.
package struct HTTPRequest: Sendable {
  package var method: String
  /// Percent-decoded segments of the path.
  package var segments: [String]
  package var path: String
  package var query: [(name: String, value: String)]
  package var headers: [(name: String, value: String)]
  package var body: [UInt8]
  package var isBodyTooLarge = false

  package func values(of header: String) -> [String] {
    headers.filter { $0.name.lowercased() == header }.map(\.value)
  }
}

package struct HTTPReply: Sendable {
  package var status: Int
  package var body: JSON?
  package var headers: [(name: String, value: String)] = []
  package var isProblem = false

  package init(_ status: Int, _ body: JSON? = nil) {
    self.status = status
    self.body = body
  }

  func with(_ name: String, _ value: String) -> HTTPReply {
    var reply = self
    reply.headers.append((name, value))
    return reply
  }
}
