internal import CGnuTLS

/// As what a server shows itself to clients, and whom it believes. It never changes, so any number of sessions use it at
/// once; who loads new files makes another one, and sessions that have begun keep theirs.
package final class TLSIdentity: @unchecked Sendable {
  let handle: OpaquePointer
  let clients: cgnutls_clients

  /// Whether clients can have names for which somebody vouches.
  package let vouchesForNames: Bool

  /// - Parameters:
  ///   - files: nil where pre-shared keys alone are to do.
  ///   - keyPath: a file of pre-shared keys (``KeyFile``).
  ///   - verifiesClients: whether only those get in for whom an authority vouches, or who have such a key.
  package init(
    _ files: CertificateFiles?, keyPath: String? = nil, verifiesClients: Bool = false
  ) throws(TLSFault) {
    if verifiesClients, files != nil, files?.authorities == nil {
      throw TLSFault("clients cannot be verified: there is no ca-cert.pem")
    }
    var fault: UnsafePointer<CChar>?
    var parts = cgnutls_files(
      certificate: files?.certificate, key: files?.key, authorities: files?.authorities,
      revoked: files?.revoked, takes_keys: keyPath == nil ? 0 : 1)
    let made = withExtendedLifetime(files) { cgnutls_identity_new(&parts, &fault) }
    guard let made else {
      let words = fault.map { String(cString: $0) } ?? "no reason"
      throw TLSFault("the certificates cannot be used: \(words)")
    }
    handle = made
    clients =
      verifiesClients
      ? CGNUTLS_VERIFIED_ONLY
      : files?.authorities == nil ? CGNUTLS_ANYBODY : CGNUTLS_KNOWN_BY_CERTIFICATE
    vouchesForNames = keyPath != nil || files?.authorities != nil
    guard let keyPath else { return }
    try KeyFile(path: keyPath).forEach { (name, key) throws(TLSFault) in
      let isAdded =
        cgnutls_add_key(made, name.baseAddress, name.count, key.baseAddress, key.count) == 0
      guard isAdded else { throw TLSFault("there is no memory for the keys") }
    }
  }

  deinit { cgnutls_identity_free(handle) }
}
