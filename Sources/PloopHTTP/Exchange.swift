internal import PloopControl
package import PloopIO
package import PloopJSON
package import PloopTLS

/// A request as it came, before anybody has judged it.
package struct HTTPRequest: Sendable {
  package static let bodyLimitBytes = 1 << 20

  package var method: String
  /// As it was sent, in visible ASCII: any other byte stands there percent-encoded.
  package let target: String
  package var headers: [(name: String, value: String)]
  package var body: [UInt8]
  package var isBodyTooLarge = false
  /// Whose connection it came by.
  package let peer: SocketPeer
  /// What its sender has shown of himself by TLS.
  package var certificate: ClientCertificate?
  /// Who sent it, once somebody has asked.
  var caller: Result<Caller, Problem>?

  package init(
    from peer: SocketPeer, method: String, target: some Sequence<UInt8>,
    headers: [(name: String, value: String)] = [], body: [UInt8] = []
  ) {
    self.peer = peer
    self.method = method
    self.target = HTTPRequest.visible(target)
    self.headers = headers
    self.body = body
  }

  /// Most targets are as they are to be.
  private static func visible(_ target: some Sequence<UInt8>) -> String {
    let isVisible: (UInt8) -> Bool = { (0x21...0x7E).contains($0) }
    let known: String?? = target.withContiguousStorageIfAvailable { bytes in
      bytes.allSatisfy(isVisible) ? String(decoding: bytes, as: UTF8.self) : nil
    }
    return (known ?? nil) ?? PercentEncoding.encode(target, keeping: isVisible)
  }

  /// The target without its query.
  package var path: String { String(target.prefix { $0 != "?" }) }

  /// As what its sender is known, for what is written down.
  var actor: String {
    guard case .success(let caller)? = caller else { return "unknown" }
    return caller.actor
  }

  /// - Parameter header: its name, in small letters.
  package func values(of header: String) -> [String] {
    var values: [String] = []
    // Most are not the one, and nobody makes a copy of their names.
    for (name, value) in headers where name.utf8.count == header.utf8.count {
      let isSame = zip(name.utf8, header.utf8).allSatisfy { one, other in
        one == other || (0x41...0x5A).contains(one) && one | 0x20 == other
      }
      if isSame { values.append(value) }
    }
    return values
  }
}

package struct HTTPReply: Sendable {
  package var status: Int
  package var body: JSON?
  /// One value a line, instead of a body.
  package var lines: [JSON]?
  /// Bytes as they are, instead of a body.
  package var bytes: [UInt8]?
  /// Bytes too, which are sent from where they lie: to many at once, and without a copy.
  package var sharedBytes: AlignedBuffer?
  /// What these bytes are.
  package var bytesType = "application/octet-stream"
  package var headers: [(name: String, value: String)] = []
  package var isProblem = false
  /// Whether it is refused for who has asked.
  package var isDenial = false
  /// Instead of a body: one that is sent as it is made.
  var stream: ReplyStream?

  package init(_ status: Int, _ body: JSON? = nil) {
    self.status = status
    self.body = body
  }

  package var contentType: String? {
    if let stream { return stream.contentType }
    if lines != nil { return "application/x-ndjson" }
    if bytes != nil || sharedBytes != nil { return bytesType }
    guard body != nil else { return nil }
    return isProblem ? "application/problem+json" : "application/json"
  }

  /// With the text of its body instead of the value, which is many times as large.
  var encoded: HTTPReply {
    guard let body else { return self }
    var reply = self
    reply.bytes = body.encoded + [UInt8(ascii: "\n")]
    reply.bytesType = contentType ?? reply.bytesType
    reply.body = nil
    return reply
  }

  /// To be sent to many.
  var shared: HTTPReply {
    var reply = encoded
    guard let bytes = reply.bytes else { return self }
    reply.sharedBytes = AlignedBuffer(bytes)
    reply.bytes = nil
    return reply
  }

  package func with(_ name: String, _ value: String) -> HTTPReply {
    var reply = self
    reply.headers.append((name, value))
    return reply
  }
}
