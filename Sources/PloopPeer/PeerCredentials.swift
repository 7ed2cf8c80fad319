internal import Glibc
package import PloopIO

/// As what we show ourselves to another service, and whom we take for it: files of one folder.
///
/// Whatever is shown is shown to a server alone for which `ca-cert.pem` vouches, so whoever chooses the address cannot
/// send it to somebody else.
package struct PeerCredentials: Sendable {
  private static let authorities = "ca-cert.pem"
  private static let certificate = "client-cert.pem"
  private static let key = "client-key.pem"
  private static let token = "token"
  private static let tokenBytesLimit = 4_096

  /// libcurl reads these by their descriptors: nobody leads it out of the folder, or has it wait for a pipe.
  let authorities: ImageFile
  let pair: (certificate: ImageFile, key: ImageFile)?
  /// The bytes behind `Authorization: Bearer`; nil where there is no such file.
  let secret: [UInt8]?

  /// - Throws: `.unsuitable` for a folder without authorities, with one half of a certificate and its key, or with a
  ///   token that is none.
  package init(in folder: ImageFolder) throws(PeerError) {
    guard folder.contains(PeerCredentials.authorities) else {
      throw PeerError(.unsuitable, "\(folder.path) has no \(PeerCredentials.authorities)")
    }
    let hasCertificate = folder.contains(PeerCredentials.certificate)
    guard hasCertificate == folder.contains(PeerCredentials.key) else {
      throw PeerError(
        .unsuitable,
        "\(folder.path) has one of \(PeerCredentials.certificate) and \(PeerCredentials.key) only")
    }
    func file(_ name: String) throws(PeerError) -> ImageFile {
      do throws(IOError) { return try folder.open(name, writable: false) } catch {
        throw PeerError(.unsuitable, "\(folder.path)/\(name) cannot be read: \(error.description)")
      }
    }
    authorities = try file(PeerCredentials.authorities)
    pair =
      hasCertificate
      ? (try file(PeerCredentials.certificate), try file(PeerCredentials.key)) : nil
    secret = try PeerCredentials.secret(in: folder)
  }

  private static func secret(in folder: ImageFolder) throws(PeerError) -> [UInt8]? {
    guard folder.contains(token) else { return nil }
    var bytes: [UInt8]
    do throws(IOError) { bytes = try folder.bytes(of: token, limit: tokenBytesLimit) } catch {
      throw PeerError(.unsuitable, "\(folder.path)/\(token) cannot be read: \(error.description)")
    }
    while let last = bytes.last, last == UInt8(ascii: "\n") || last == UInt8(ascii: "\r") {
      bytes.removeLast()
    }
    // One of another line would be another header of the request.
    guard !bytes.isEmpty, bytes.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw PeerError(.unsuitable, "\(folder.path)/\(token) does not hold one line with a token")
    }
    return bytes
  }

  /// Where a file is, for as long as this is there.
  static func path(of file: ImageFile) -> String {
    file.withDescriptor { "/proc/self/fd/\($0)" }
  }
}
