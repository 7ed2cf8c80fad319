package import PloopIO

/// Where another ploopd has its API.
package struct PeerAddress: Sendable {
  /// `http://` or `https://` with host and port, and no path.
  let base: String
  /// Finds the socket that is connected to instead of the host.
  let socket: (@Sendable () throws(PeerError) -> PathHandle)?
  /// The socket's path, where nobody has to find it.
  let socketPath: String?
  /// Finds what we show to it, for each request anew: it may have been renewed.
  let credentials: (@Sendable () throws(PeerError) -> PeerCredentials)?
  /// What it is called in messages.
  let name: String

  /// An address of a host.
  ///
  /// - Parameter credentials: are shown over TLS alone.
  /// - Returns: nil for what is no `http://` or `https://` with a host, perhaps a port, and nothing else; with
  ///   credentials for `http://`, too.
  package init?(
    _ text: String, _ credentials: (@Sendable () throws(PeerError) -> PeerCredentials)? = nil
  ) {
    guard let scheme = ["http://", "https://"].first(where: text.hasPrefix) else { return nil }
    var authority = text.dropFirst(scheme.count)
    if authority.hasSuffix("/") { authority = authority.dropLast() }
    let allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]"
    guard !authority.isEmpty, authority.utf8.count <= 256,
      authority.allSatisfy({ allowed.contains($0) }), credentials == nil || scheme == "https://"
    else { return nil }
    self.credentials = credentials
    base = scheme + authority
    name = base
    socket = nil
    socketPath = nil
  }

  /// A Unix socket.
  package init(
    socketNamed name: String, _ find: @escaping @Sendable () throws(PeerError) -> PathHandle
  ) {
    base = "http://localhost"
    self.name = name
    credentials = nil
    socket = find
    socketPath = nil
  }

  /// A Unix socket that whoever runs the program has named.
  package init(socket path: String) {
    base = "http://localhost"
    name = path
    credentials = nil
    socket = nil
    socketPath = path
  }

  /// - Throws: what keeps the credentials from being read, if there are any.
  package func requireCredentials() throws(PeerError) { _ = try credentials?() }
}

/// Why another service has not done what was asked of it.
package struct PeerError: Error, Sendable {
  package enum Kind: Sendable, Equatable {
    /// It cannot be reached, or says that it is coming or going: this may pass.
    case unreachable
    /// It was refused, with the code of its problem.
    case refused(status: Int, code: String)
    /// It is no service like this one, not the one that it is taken for, or may not be spoken to.
    case unsuitable
  }

  package let kind: Kind
  package let detail: String

  package init(_ kind: Kind, _ detail: String) {
    self.kind = kind
    self.detail = detail
  }

  package var isNotFound: Bool {
    guard case .refused(404, _) = kind else { return false }
    return true
  }
}
