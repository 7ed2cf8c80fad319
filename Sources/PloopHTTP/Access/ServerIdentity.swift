internal import CMicrohttpd
internal import Glibc
internal import PloopIO

/// As what the service shows itself to clients of TLS, and which authorities vouch for clients: files in
/// one folder, named as QEMU and libnbd name theirs.
///
/// The texts are C strings, since libmicrohttpd reads them as such when a daemon begins, and so that the key can be
/// wiped: an array may have left copies. Unchecked: they are written once, and only read from then on.
package final class ServerIdentity: @unchecked Sendable {
  package struct Fault: Error, CustomStringConvertible {
    package let description: String
  }

  private static let mostBytes = 1 << 20

  private let certificate: UnsafeMutablePointer<CChar>
  private let key: UnsafeMutablePointer<CChar>
  private let authorities: UnsafeMutablePointer<CChar>?

  /// Reads `server-cert.pem` and `server-key.pem`, and `ca-cert.pem` where it is there: then clients may show
  /// certificates.
  package init(folder path: String) throws(Fault) {
    let texts: (certificate: [UInt8], key: [UInt8], authorities: [UInt8]?)
    do throws(IOError) {
      let folder = try ImageFolder(path: path)
      func text(_ name: String) throws(IOError) -> [UInt8] {
        try folder.bytes(of: name, limit: ServerIdentity.mostBytes)
      }
      texts = (
        try text("server-cert.pem"), try text("server-key.pem"),
        folder.contains("ca-cert.pem") ? try text("ca-cert.pem") : nil
      )
    } catch { throw Fault(description: "the certificates cannot be read: \(error)") }
    certificate = ServerIdentity.copy(texts.certificate)
    key = ServerIdentity.copy(texts.key)
    authorities = texts.authorities.map(ServerIdentity.copy)
    var parts = self.parts
    guard let fault = cmicrohttpd_tls_fault(&parts) else { return }
    throw Fault(
      description: "the certificates in \(path) cannot be used: \(String(cString: fault))")
  }

  deinit {
    certificate.deallocate()
    // The secret does not stay in memory that somebody else gets.
    explicit_bzero(key, strlen(key))
    key.deallocate()
    authorities?.deallocate()
  }

  /// Valid as long as this object.
  var parts: cmicrohttpd_tls {
    cmicrohttpd_tls(certificate: certificate, key: key, authorities: authorities)
  }

  private static func copy(_ bytes: [UInt8]) -> UnsafeMutablePointer<CChar> {
    let text = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count + 1)
    for (index, byte) in bytes.enumerated() { text[index] = CChar(bitPattern: byte) }
    text[bytes.count] = 0
    return text
  }
}

/// What a client's certificate says of him.
package enum ClientCertificate: Sendable, Equatable {
  /// One of the authorities vouches for these names.
  case trusted(names: [String])
  /// None of them does, or not now.
  case untrusted

  /// - Returns: nil without TLS or certificate.
  init?(of connection: OpaquePointer) {
    final class Names { var names: [String] = [] }
    let found = Names()
    // Names are told by a C function while this call lasts, so what it adds them to need not be retained.
    let result = cmicrohttpd_verify_client(
      connection,
      { context, bytes, count in
        guard let context, let bytes else { return }
        let name = String(
          decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
        // A NUL in the middle would make another name of it for others.
        guard !name.utf8.contains(0) else { return }
        Unmanaged<Names>.fromOpaque(context).takeUnretainedValue().names.append(name)
      }, Unmanaged.passUnretained(found).toOpaque())
    switch result {
    case CMICROHTTPD_TRUSTED: self = .trusted(names: found.names)
    case CMICROHTTPD_UNTRUSTED: self = .untrusted
    default: return nil
    }
  }
}
