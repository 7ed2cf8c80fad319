package import PloopIO

/// Who asks for an export, as far as the server knows.
package struct Visitor: Sendable {
  package let peer: SocketPeer
  /// Whether nobody else hears what is said.
  package let isSecure: Bool
  /// Those for which an authority vouches by the client's certificate, or that of its pre-shared key.
  package let names: [String]

  package init(peer: SocketPeer, isSecure: Bool = false, names: [String] = []) {
    self.peer = peer
    self.isSecure = isSecure
    self.names = names
  }
}

/// Why somebody does not get in, in words.
package struct DoorRefusal: Error, Sendable {
  package enum Kind: Sendable {
    /// Nobody does, now or any more.
    case leaving
    /// He does not.
    case policy
    /// Not without TLS.
    case needsTLS
  }

  package let kind: Kind
  package let message: String

  package init(_ kind: Kind, _ message: String) {
    self.kind = kind
    self.message = message
  }
}
