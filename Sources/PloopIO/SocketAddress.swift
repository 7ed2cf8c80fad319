internal import Glibc

/// The internet address of a socket's peer.
package struct SocketAddress: Sendable, Equatable {
  /// 4 or 16, in the network's order.
  let bytes: [UInt8]

  package init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// - Returns: nil while there is no peer, or when it has no such address.
  package init?(peerOf number: Int32) {
    var storage = sockaddr_storage()
    var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let isKnown = withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(number, $0, &size) == 0 }
    }
    guard isKnown else { return nil }
    let place: Range<Int>
    switch Int32(storage.ss_family) {
    case AF_INET: place = 4..<8
    case AF_INET6: place = 8..<24
    default: return nil
    }
    bytes = withUnsafeBytes(of: &storage) { [UInt8]($0[place]) }
  }

  /// Whether it is of the local link (RFC 3927, RFC 4291 2.5.6), where clouds keep the credentials of their
  /// machines; fd00:ec2::/32 is such a place, too.
  package var isLinkLocal: Bool {
    guard bytes.count == 16 else { return bytes.starts(with: [169, 254]) }
    // IPv4 within IPv6 (RFC 4291 2.5.5.2).
    if bytes.starts(with: [UInt8](repeating: 0, count: 10) + [0xFF, 0xFF]) {
      return bytes[12...].starts(with: [169, 254])
    }
    return bytes[0] == 0xFE && bytes[1] & 0xC0 == 0x80
      || bytes.starts(with: [0xFD, 0x00, 0x0E, 0xC2])
  }
}
