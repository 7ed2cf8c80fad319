internal import Glibc
internal import PloopIO

/// Certificates in one folder, named as QEMU and libnbd name theirs: `server-cert.pem` and `server-key.pem`, `ca-cert.pem`
/// with the authorities that vouch for clients, and `ca-crl.pem` with what they have revoked.
///
/// The texts are C strings, since the libraries read them as such, and so that the key can be wiped: an array may have
/// left copies. Unchecked: they are written once, and only read from then on.
package final class CertificateFiles: @unchecked Sendable {
  private static let mostBytes = 1 << 20

  package let certificate: UnsafeMutablePointer<CChar>
  package let key: UnsafeMutablePointer<CChar>
  package let authorities: UnsafeMutablePointer<CChar>?
  package let revoked: UnsafeMutablePointer<CChar>?

  package init(folder path: String) throws(TLSFault) {
    try requireSecrecy(of: "\(path)/server-key.pem")
    do throws(IOError) {
      let folder = try ImageFolder(path: path)
      func text(_ name: String) throws(IOError) -> [UInt8] {
        try folder.bytes(of: name, limit: CertificateFiles.mostBytes)
      }
      func textIfThere(_ name: String) throws(IOError) -> [UInt8]? {
        folder.contains(name) ? try text(name) : nil
      }
      let texts = (
        certificate: try text("server-cert.pem"), key: try text("server-key.pem"),
        authorities: try textIfThere("ca-cert.pem"), revoked: try textIfThere("ca-crl.pem")
      )
      certificate = CertificateFiles.copy(texts.certificate)
      key = CertificateFiles.copy(texts.key)
      authorities = texts.authorities.map(CertificateFiles.copy)
      revoked = texts.revoked.map(CertificateFiles.copy)
    } catch { throw TLSFault("the certificates cannot be read: \(error)") }
  }

  deinit {
    certificate.deallocate()
    // The secret does not stay in memory that somebody else gets.
    explicit_bzero(key, strlen(key))
    key.deallocate()
    authorities?.deallocate()
    revoked?.deallocate()
  }

  private static func copy(_ bytes: [UInt8]) -> UnsafeMutablePointer<CChar> {
    let text = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count + 1)
    for (index, byte) in bytes.enumerated() { text[index] = CChar(bitPattern: byte) }
    text[bytes.count] = 0
    return text
  }
}

/// - Throws: where the file cannot be read, or anybody on this host can read it.
func requireSecrecy(of path: String) throws(TLSFault) {
  var facts = stat()
  guard access(path, R_OK) == 0, stat(path, &facts) == 0 else {
    throw TLSFault("\(path) cannot be read: \(IOError.text(of: errno))")
  }
  guard facts.st_mode & (S_IROTH | S_IWOTH) == 0 else {
    throw TLSFault("\(path) is open to everybody on this host; chmod o= closes it")
  }
}

/// Why TLS cannot be used, in words.
package struct TLSFault: Error, CustomStringConvertible {
  package let description: String
  package init(_ description: String) { self.description = description }
}
