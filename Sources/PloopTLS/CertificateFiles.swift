internal import PloopIO

/// Certificates in one folder, named as QEMU and libnbd name theirs: `server-cert.pem` and `server-key.pem`, `ca-cert.pem`
/// with the authorities that vouch for clients, and `ca-crl.pem` with what they have revoked.
///
/// The texts are C strings, since the libraries read them as such; they are valid as long as this object. Unchecked: they
/// are written once, and only read from then on.
package final class CertificateFiles: @unchecked Sendable {
  private static let mostBytes = 1 << 20

  package let certificate: UnsafeMutablePointer<CChar>
  private let secret: SecretFile
  package let authorities: UnsafeMutablePointer<CChar>?
  package let revoked: UnsafeMutablePointer<CChar>?

  package init(folder path: String) throws(TLSFault) {
    secret = try SecretFile(path: "\(path)/server-key.pem")
    do throws(IOError) {
      let folder = try ImageFolder(path: path)
      func text(_ name: String) throws(IOError) -> [UInt8] {
        try folder.bytes(of: name, limit: CertificateFiles.mostBytes)
      }
      func textIfThere(_ name: String) throws(IOError) -> [UInt8]? {
        folder.contains(name) ? try text(name) : nil
      }
      let texts = (
        certificate: try text("server-cert.pem"),
        authorities: try textIfThere("ca-cert.pem"), revoked: try textIfThere("ca-crl.pem")
      )
      certificate = CertificateFiles.copy(texts.certificate)
      authorities = texts.authorities.map(CertificateFiles.copy)
      revoked = texts.revoked.map(CertificateFiles.copy)
    } catch { throw TLSFault("the certificates cannot be read: \(error)") }
  }

  deinit {
    certificate.deallocate()
    authorities?.deallocate()
    revoked?.deallocate()
  }

  package var key: UnsafeMutablePointer<CChar> { secret.text }

  private static func copy(_ bytes: [UInt8]) -> UnsafeMutablePointer<CChar> {
    let text = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count + 1)
    for (index, byte) in bytes.enumerated() { text[index] = CChar(bitPattern: byte) }
    text[bytes.count] = 0
    return text
  }
}

/// Why TLS cannot be used, in words.
package struct TLSFault: Error, CustomStringConvertible {
  package let description: String
  package init(_ description: String) { self.description = description }
}
