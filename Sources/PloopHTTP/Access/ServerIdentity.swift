internal import CMicrohttpd
package import PloopTLS

/// As what the service shows itself to clients of HTTPS, and which authorities vouch for clients.
package final class ServerIdentity: Sendable {
  private let files: CertificateFiles
  /// Whose authorities and revocations count: libmicrohttpd knows no revocations.
  let trust: TLSIdentity

  /// Reads `server-cert.pem` and `server-key.pem`, and `ca-cert.pem` where it is there: then clients may show
  /// certificates, but not those of `ca-crl.pem`.
  package init(folder path: String) throws(TLSFault) {
    files = try CertificateFiles(folder: path)
    guard cmicrohttpd_has_tls() != 0 else { throw TLSFault("libmicrohttpd was built without TLS") }
    do throws(TLSFault) { trust = try TLSIdentity(files) } catch {
      throw TLSFault("\(path): \(error)")
    }
  }

  /// Valid as long as this object.
  var parts: cmicrohttpd_tls {
    cmicrohttpd_tls(
      certificate: files.certificate, key: files.key, authorities: files.authorities)
  }
}
