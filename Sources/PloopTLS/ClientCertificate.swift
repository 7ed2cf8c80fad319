internal import CGnuTLS

/// What a client's certificate says of him.
package enum ClientCertificate: Sendable, Equatable {
  /// A name, and what it is one of: `dns`, `uri`, `mail` or `cn`.
  package struct Name: Sendable, Equatable, CustomStringConvertible {
    package let kind: String
    package let text: String

    package var description: String { "\(kind):\(text)" }
  }

  /// One of the authorities vouches for these names.
  case trusted(names: [Name])
  /// None of them does, or not now.
  case untrusted

  /// GnuTLS is C: it tells the names by a callback while the call lasts, and gives back the pointer to where they go.
  ///
  /// - Parameters:
  ///   - session: GnuTLS's, after its handshake.
  ///   - identity: whose authorities and revocations count; nil for those that the session began with.
  /// - Returns: nil without a certificate.
  package init?(of session: OpaquePointer, to identity: TLSIdentity? = nil) {
    final class Names { var names: [Name] = [] }
    let found = Names()
    // Names are told by a C function while this call lasts, so what it adds them to need not be retained.
    let result = cgnutls_verify_client(
      session, identity?.handle,
      { context, kind, bytes, count in
        guard let context, let kind, let bytes else { return }
        let name = String(
          decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
        // A NUL in the middle would make another name of it for others.
        guard !name.utf8.contains(0) else { return }
        Unmanaged<Names>.fromOpaque(context).takeUnretainedValue().names.append(
          Name(kind: String(cString: kind), text: name))
      }, Unmanaged.passUnretained(found).toOpaque())
    withExtendedLifetime(identity) {}
    switch result {
    case CGNUTLS_TRUSTED: self = .trusted(names: found.names)
    case CGNUTLS_UNTRUSTED: self = .untrusted
    default: return nil
    }
  }
}
