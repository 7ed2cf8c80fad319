internal import CCurl
internal import PloopIO

/// Asks an HTTP server, one request at a time, and waits for each answer; never longer than it may take.
package struct HTTPClient: Sendable {
  package struct Reply: Sendable {
    package var status: Int
    package var body: [UInt8]
  }

  /// As what whoever runs the program shows himself, and whom he takes for the server: files in PEM, and a token.
  package struct Identity: Sendable {
    /// Those that vouch for the server; nil for the system's.
    package var authorities: String?
    package var certificate: String?
    package var key: String?
    /// The bytes behind `Authorization: Bearer`; without TLS, too.
    package var secret: String?

    package init(
      authorities: String? = nil, certificate: String? = nil, key: String? = nil,
      secret: String? = nil
    ) {
      self.authorities = authorities
      self.certificate = certificate
      self.key = key
      self.secret = secret
    }
  }

  let address: PeerAddress
  /// Until there is a connection, and for all of a request; 0 for as long as it takes.
  package var connectSeconds = 10
  package var seconds = 30
  /// As ``SocketAddress/isLinkLocal``.
  package var allowsLinkLocal = false
  package var replyLimitBytes = 1 << 20
  /// Where the address has no credentials of its own.
  package var identity = Identity()

  package init(address: PeerAddress) { self.address = address }

  /// - Parameters:
  ///   - path: beginning with a slash, encoded.
  ///   - headers: each as it stands in the request.
  package func send(
    _ method: String, _ path: String, _ body: [UInt8]? = nil, headers: [String] = []
  ) throws(PeerError) -> Reply {
    try ask(method, path, body, headers, nil)
  }

  /// Asks for what comes bit by bit.
  ///
  /// - Parameters:
  ///   - body: what is asked for, where that is more than a path.
  ///   - receive: is given each piece of a success as it comes; false ends it. The bytes are libcurl's own, which has
  ///     them for as long as the call lasts: nobody copies what goes to a file.
  /// - Returns: when either side has ended it; the body is what an answer says that is no success.
  package func stream(
    _ path: String, headers: [String] = [], posting body: [UInt8]? = nil,
    _ receive: (UnsafeRawBufferPointer) -> Bool
  ) throws(PeerError) -> Reply {
    try withoutActuallyEscaping(receive) { receive throws(PeerError) in
      try ask(body == nil ? "GET" : "POST", path, body, headers, Receiver(receive))
    }
  }

  private final class Receiver {
    let receive: (UnsafeRawBufferPointer) -> Bool
    init(_ receive: @escaping (UnsafeRawBufferPointer) -> Bool) { self.receive = receive }
  }

  private func ask(
    _ method: String, _ path: String, _ body: [UInt8]?, _ headers: [String], _ receiver: Receiver?
  ) throws(PeerError) -> Reply {
    let socket = try address.socket?()
    let credentials = try address.credentials?()
    defer { withExtendedLifetime((socket, credentials, receiver)) {} }
    var text = ccurl_reply()
    defer { ccurl_free(&text) }
    let words = Words()
    var request = ccurl_request()
    request.method = words.keep(method)
    request.url = words.keep(address.base + path)
    request.unix_socket = words.keep(socket?.path ?? address.socketPath)
    request.body = words.keep(bytes: body)
    request.headers = words.keep(list: headers)
    let identity = credentials.map(Identity.init) ?? identity
    request.authorities = words.keep(identity.authorities)
    request.certificate = words.keep(identity.certificate)
    request.key = words.keep(identity.key)
    request.token = words.keep(identity.secret)
    request.connect_milliseconds = connectSeconds * 1000
    request.milliseconds = seconds * 1000
    request.limit = replyLimitBytes
    request.allows_link_local = allowsLinkLocal ? 1 : 0
    if let receiver {
      request.context = Unmanaged.passUnretained(receiver).toOpaque()
      request.receive = { context, bytes, count in
        guard let context else { return 1 }
        let receiver = Unmanaged<Receiver>.fromOpaque(context).takeUnretainedValue()
        return receiver.receive(UnsafeRawBufferPointer(start: bytes, count: count)) ? 0 : 1
      }
    }
    // libcurl is asked through C memory, which lasts as long as this call; what it answers is copied before it is
    // freed.
    let isAnswered = withExtendedLifetime(words) { ccurl_perform(&request, &text) == 0 }
    guard isAnswered else { throw fault(&text, path) }
    let bytes = text.body.map { Array(UnsafeRawBufferPointer(start: $0, count: text.length)) } ?? []
    // Its words are told to people, and written down.
    if let secret = credentials?.secret, bytes.firstRange(of: secret) != nil {
      throw PeerError(.unsuitable, "\(address.name): its answer holds the token that it was shown")
    }
    return Reply(status: text.status, body: bytes)
  }

  private func fault(_ text: inout ccurl_reply, _ path: String) -> PeerError {
    let words = withUnsafeBytes(of: &text.error) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
    if text.is_untrusted != 0 {
      return PeerError(.unsuitable, "\(address.name): its certificate does not count: \(words)")
    }
    if text.is_unusable != 0 {
      return PeerError(
        .unsuitable, "\(address.name): what is to be shown to it cannot be used: \(words)")
    }
    if text.is_refused != 0 {
      return PeerError(.unsuitable, "\(address.name): its address is one of the local link")
    }
    if text.is_too_long != 0 {
      return PeerError(.unsuitable, "\(address.name): the answer to \(path) is too long")
    }
    return PeerError(.unreachable, "\(address.name): \(words)")
  }
}

extension HTTPClient.Identity {
  /// What lies in a folder, by the descriptors of its files.
  fileprivate init(_ credentials: PeerCredentials) {
    self.init(
      authorities: PeerCredentials.path(of: credentials.authorities),
      certificate: credentials.pair.map { PeerCredentials.path(of: $0.certificate) },
      key: credentials.pair.map { PeerCredentials.path(of: $0.key) },
      secret: credentials.secret.map { String(decoding: $0, as: UTF8.self) })
  }
}

/// Strings in C memory, freed with this object.
private final class Words {
  private var kept: [UnsafeMutableRawPointer] = []

  deinit { kept.forEach { $0.deallocate() } }

  func keep(_ text: String?) -> UnsafePointer<CChar>? { keep(bytes: text.map { Array($0.utf8) }) }

  /// A zero is put behind them.
  func keep(bytes: [UInt8]?) -> UnsafePointer<CChar>? {
    guard let bytes else { return nil }
    let memory = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count + 1)
    for (index, byte) in bytes.enumerated() { memory[index] = CChar(bitPattern: byte) }
    memory[bytes.count] = 0
    kept.append(memory)
    return UnsafePointer(memory)
  }

  /// - Returns: nil for none.
  func keep(list texts: [String]) -> UnsafePointer<UnsafePointer<CChar>?>? {
    guard !texts.isEmpty else { return nil }
    let memory = UnsafeMutablePointer<UnsafePointer<CChar>?>.allocate(capacity: texts.count + 1)
    for (index, text) in texts.enumerated() { memory[index] = keep(text) }
    memory[texts.count] = nil
    kept.append(memory)
    return UnsafePointer(memory)
  }
}
