internal import CGnuTLS

/// What a client's certificate says of him.
package enum ClientCertificate: Sendable, Equatable {
  /// One of the authorities vouches for these names.
  case trusted(names: [String])
  /// None of them does, or not now.
  case untrusted

  /// - Parameter session: GnuTLS's, after its handshake.
  /// - Returns: nil without a certificate.
  package init?(of session: OpaquePointer) {
    final class Names { var names: [String] = [] }
    let found = Names()
    // Names are told by a C function while this call lasts, so what it adds them to need not be retained.
    let result = cgnutls_verify_client(
      session,
      { context, bytes, count in
        guard let context, let bytes else { return }
        let name = String(
          decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
        // A NUL in the middle would make another name of it for others.
        guard !name.utf8.contains(0) else { return }
        Unmanaged<Names>.fromOpaque(context).takeUnretainedValue().names.append(name)
      }, Unmanaged.passUnretained(found).toOpaque())
    switch result {
    case CGNUTLS_TRUSTED: self = .trusted(names: found.names)
    case CGNUTLS_UNTRUSTED: self = .untrusted
    default: return nil
    }
  }
}
