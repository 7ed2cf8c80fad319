internal import CGnuTLS

/// As what a server shows itself to clients, and whom it believes. It never changes, so any number of sessions use it at
/// once; who loads new files makes another one, and sessions that have begun keep theirs.
package final class TLSIdentity: @unchecked Sendable {
  let handle: OpaquePointer
  let clients: cgnutls_clients

  /// - Parameters:
  ///   - files: nil where pre-shared keys alone are to do.
  ///   - keyPath: a file with `user:hexadecimal key` lines, as psktool makes them; it is read at each handshake.
  ///   - verifiesClients: whether only those get in for whom an authority vouches, or who have such a key.
  package init(
    _ files: CertificateFiles?, keyPath: String? = nil, verifiesClients: Bool = false
  ) throws(TLSFault) {
    if verifiesClients, files != nil, files?.authorities == nil {
      throw TLSFault("clients cannot be verified: there is no ca-cert.pem")
    }
    if let keyPath { try requireSecrecy(of: keyPath) }
    var fault: UnsafePointer<CChar>?
    let made = (keyPath ?? "").withCString { path in
      var parts = cgnutls_files(
        certificate: files?.certificate, key: files?.key, authorities: files?.authorities,
        revoked: files?.revoked, psk_path: keyPath == nil ? nil : path)
      return cgnutls_identity_new(&parts, &fault)
    }
    guard let made else {
      let words = fault.map { String(cString: $0) } ?? "no reason"
      throw TLSFault("the certificates cannot be used: \(words)")
    }
    handle = made
    clients =
      verifiesClients
      ? CGNUTLS_VERIFIED_ONLY
      : files?.authorities == nil ? CGNUTLS_ANYBODY : CGNUTLS_KNOWN_BY_CERTIFICATE
  }

  deinit { cgnutls_identity_free(handle) }
}
