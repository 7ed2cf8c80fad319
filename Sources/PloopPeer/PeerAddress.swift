package import PloopIO

/// Where another ploopd has its API.
package struct PeerAddress: Sendable {
  /// `http://` or `https://` with host and port, and no path.
  let base: String
  /// Finds the socket that is connected to instead of the host.
  let socket: (@Sendable () throws(PeerError) -> PathHandle)?
  /// What it is called in messages.
  let name: String

  /// An address of a host.
  ///
  /// - Returns: nil for what is no `http://` or `https://` with a host, perhaps a port, and nothing else.
  package init?(_ text: String) {
    guard let scheme = ["http://", "https://"].first(where: text.hasPrefix) else { return nil }
    var authority = text.dropFirst(scheme.count)
    if authority.hasSuffix("/") { authority = authority.dropLast() }
    let allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]"
    guard !authority.isEmpty, authority.utf8.count <= 256,
      authority.allSatisfy({ allowed.contains($0) })
    else { return nil }
    base = scheme + authority
    name = base
    socket = nil
  }

  /// A Unix socket.
  package init(
    socketNamed name: String, _ find: @escaping @Sendable () throws(PeerError) -> PathHandle
  ) {
    base = "http://localhost"
    self.name = name
    socket = find
  }
}

/// Why another service has not done what was asked of it.
package struct PeerError: Error, Sendable {
  package enum Kind: Sendable, Equatable {
    /// It cannot be reached, or says that it is coming or going: this may pass.
    case unreachable
    /// It was refused, with the code of its problem.
    case refused(status: Int, code: String)
    /// It is no service like this one, or may not be spoken to.
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
