internal import CCurl
internal import PloopIO

/// Asks an HTTP server, one request at a time, and waits for each answer; never longer than it may take.
struct HTTPClient: Sendable {
  struct Reply: Sendable {
    var status: Int
    var body: [UInt8]
  }

  private static let replyLimitBytes = 1 << 20

  let address: PeerAddress
  /// Until there is a connection, and for all of a request.
  var connectSeconds = 10
  var seconds = 30
  /// As ``SocketAddress/isLinkLocal``.
  var allowsLinkLocal = false

  /// - Parameter path: beginning with a slash, encoded.
  func send(
    _ method: String, _ path: String, _ body: [UInt8]? = nil
  ) throws(PeerError) -> Reply {
    let socket = try address.socket?()
    defer { withExtendedLifetime(socket) {} }
    let credentials = try address.credentials?()
    defer { withExtendedLifetime(credentials) {} }
    var text = ccurl_reply()
    defer { ccurl_free(&text) }
    let isAnswered = perform(
      method, path, socket?.path, credentials, body.map { $0 + [0] }, &text)
    guard isAnswered else {
      let words = HTTPClient.string(&text.error)
      if text.is_untrusted != 0 {
        throw PeerError(.unsuitable, "\(address.name): its certificate does not count: \(words)")
      }
      if text.is_unusable != 0 {
        throw PeerError(
          .unsuitable, "\(address.name): what is to be shown to it cannot be used: \(words)")
      }
      if text.is_refused != 0 {
        throw PeerError(.unsuitable, "\(address.name): its address is one of the local link")
      }
      if text.is_too_long != 0 {
        throw PeerError(.unsuitable, "\(address.name): the answer to \(path) is too long")
      }
      throw PeerError(.unreachable, "\(address.name): \(words)")
    }
    let bytes = text.body.map { Array(UnsafeRawBufferPointer(start: $0, count: text.length)) } ?? []
    // Its words are told to people, and written down.
    if let secret = credentials?.secret, bytes.firstRange(of: secret) != nil {
      throw PeerError(.unsuitable, "\(address.name): its answer holds the token that it was shown")
    }
    return Reply(status: text.status, body: bytes)
  }

  /// libcurl is asked through C strings and C memory, which last as long as this call; what it answers is copied
  /// before it is freed (``send(_:_:_:)``).
  private func perform(
    _ method: String, _ path: String, _ socket: String?, _ credentials: PeerCredentials?,
    _ body: [UInt8]?, _ reply: inout ccurl_reply
  ) -> Bool {
    var request = ccurl_request()
    request.connect_milliseconds = connectSeconds * 1000
    request.milliseconds = seconds * 1000
    request.limit = HTTPClient.replyLimitBytes
    request.allows_link_local = allowsLinkLocal ? 1 : 0
    return method.withCString { method in
      (address.base + path).withCString { url in
        HTTPClient.withOptionalCString(socket) { socket in
          HTTPClient.withOptionalBytes(body) { body in
            request.method = method
            request.url = url
            request.unix_socket = socket
            request.body = body
            return HTTPClient.with(credentials, of: &request) { ccurl_perform(&$0, &reply) == 0 }
          }
        }
      }
    }
  }

  private static func with(
    _ credentials: PeerCredentials?, of request: inout ccurl_request,
    _ body: (inout ccurl_request) -> Bool
  ) -> Bool {
    guard let credentials else { return body(&request) }
    let pair = credentials.hasCertificate ? credentials : nil
    return withOptionalCString(credentials.path(of: PeerCredentials.authorities)) { authorities in
      withOptionalCString(pair?.path(of: PeerCredentials.certificate)) { certificate in
        withOptionalCString(pair?.path(of: PeerCredentials.key)) { key in
          withOptionalBytes(credentials.secret.map { $0 + [0] }) { token in
            request.authorities = authorities
            request.certificate = certificate
            request.key = key
            request.token = token
            return body(&request)
          }
        }
      }
    }
  }

  private static func withOptionalCString<Result>(
    _ text: String?, _ body: (UnsafePointer<CChar>?) -> Result
  ) -> Result {
    guard let text else { return body(nil) }
    return text.withCString(body)
  }

  /// - Parameter bytes: with a zero at the end.
  private static func withOptionalBytes<Result>(
    _ bytes: [UInt8]?, _ body: (UnsafePointer<CChar>?) -> Result
  ) -> Result {
    guard let bytes else { return body(nil) }
    return bytes.withUnsafeBufferPointer { buffer in
      buffer.withMemoryRebound(to: CChar.self) { body($0.baseAddress) }
    }
  }

  private static func string<Tuple>(_ characters: inout Tuple) -> String {
    withUnsafeBytes(of: &characters) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}
