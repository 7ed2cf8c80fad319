internal import CLinux
internal import Glibc

/// Where a socket listens, as the kernel knows it.
struct BoundAddress {
  let family: ListeningSocket.Family
  /// The path of a Unix socket, or the address in numbers; empty for a vsock.
  let host: String
  /// 0 for a Unix socket.
  let port: UInt32
  /// Whether it is no address that a client could connect to, but all those of this host.
  let isOfAllAddresses: Bool

  /// - Parameter name: of the socket, for the error.
  init(of number: Int32, _ name: String) throws(IOError) {
    var machine = clinux_vsock()
    if clinux_vsock_bound(number, &machine) == 0 {
      self.init(family: .vsock, host: "", port: machine.port, isOfAllAddresses: true)
      return
    }
    var storage = sockaddr_storage()
    var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let isKnown = withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(number, $0, &size) == 0 }
    }
    guard isKnown else { throw .last("getsockname", name) }
    let bytes = withUnsafeBytes(of: &storage) { [UInt8]($0.prefix(Int(size))) }
    // man 7 unix, man 7 ip, man 7 ipv6: where the address lies; the port is at the same place in both families.
    switch Int32(storage.ss_family) {
    case AF_UNIX:
      let path = bytes.dropFirst(2).prefix { $0 != 0 }
      // One of the abstract namespace has no file, and clients no way to name it in a URI.
      guard !path.isEmpty else { throw IOError("getsockname", path: name, code: EADDRNOTAVAIL) }
      self.init(
        family: .unix, host: String(decoding: path, as: UTF8.self), port: 0,
        isOfAllAddresses: false)
    case AF_INET, AF_INET6:
      let place = Int32(storage.ss_family) == AF_INET6 ? 8..<24 : 4..<8
      self.init(
        family: .tcp, host: try BoundAddress.numbers(&storage, size, name),
        port: UInt32(bytes[2]) << 8 | UInt32(bytes[3]),
        isOfAllAddresses: bytes[place].allSatisfy { $0 == 0 })
    default: throw IOError("getsockname", path: name, code: EAFNOSUPPORT)
    }
  }

  private init(
    family: ListeningSocket.Family, host: String, port: UInt32, isOfAllAddresses: Bool
  ) {
    self.family = family
    self.host = host
    self.port = port
    self.isOfAllAddresses = isOfAllAddresses
  }

  private static func numbers(
    _ storage: inout sockaddr_storage, _ size: socklen_t, _ name: String
  ) throws(IOError) -> String {
    var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    let isKnown = withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        getnameinfo($0, size, &host, socklen_t(host.count), nil, 0, NI_NUMERICHOST) == 0
      }
    }
    guard isKnown else { throw IOError("getnameinfo", path: name, code: EADDRNOTAVAIL) }
    return String(
      decoding: host.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}
