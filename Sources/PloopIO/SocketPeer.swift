internal import CLinux
internal import Glibc

/// Who is at the other end of a connection, as the kernel knows them.
package enum SocketPeer: Sendable, Equatable {
  /// A process of this host: its ids as they were when it connected.
  ///
  /// - Parameter groups: all that it was in then, its own first.
  case unix(process: Int32, user: UInt32, groups: [UInt32])
  /// An address in numbers.
  case tcp(host: String, port: String)
  /// A virtual machine, this one, or the host, by its number.
  case vsock(machine: UInt32, port: UInt32)
  /// A connection that is over, or a socket of another kind.
  case unknown

  /// More groups than that are not looked at (man 7 credentials: NGROUPS_MAX is 65,536).
  private static let mostGroups = 65_536
  /// SO_PEERGROUPS (asm-generic/socket.h), which the headers show to newer programs only.
  private static let peerGroups: Int32 = 59

  /// Asks about a socket that may be anybody's.
  package init(of descriptor: Int32) {
    var credentials = clinux_peer()
    if clinux_peer_credentials(descriptor, &credentials) == 0 {
      self = .unix(
        process: credentials.pid, user: credentials.uid,
        groups: [credentials.gid] + SocketPeer.groups(of: descriptor))
    } else {
      self = errno == ENOTSUP ? SocketPeer.address(of: descriptor) : .unknown
    }
  }

  /// The further groups of a Unix socket's peer; none where the kernel cannot tell.
  private static func groups(of descriptor: Int32) -> [UInt32] {
    var groups = [UInt32](repeating: 0, count: 64)
    while true {
      var size = socklen_t(groups.count * MemoryLayout<UInt32>.stride)
      if getsockopt(descriptor, SOL_SOCKET, peerGroups, &groups, &size) == 0 {
        return Array(groups.prefix(Int(size) / MemoryLayout<UInt32>.stride))
      }
      let needed = Int(size) / MemoryLayout<UInt32>.stride
      guard errno == ERANGE, needed > groups.count, needed <= mostGroups else { return [] }
      groups = [UInt32](repeating: 0, count: needed)
    }
  }

  private static func address(of descriptor: Int32) -> SocketPeer {
    var machine = clinux_vsock()
    if clinux_vsock_peer(descriptor, &machine) == 0 {
      return .vsock(machine: machine.machine, port: machine.port)
    }
    var storage = sockaddr_storage()
    var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    var port = [CChar](repeating: 0, count: Int(NI_MAXSERV))
    let known = withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        getpeername(descriptor, address, &size) == 0
          && getnameinfo(
            address, size, &host, socklen_t(host.count), &port, socklen_t(port.count),
            NI_NUMERICHOST | NI_NUMERICSERV) == 0
      }
    }
    func text(_ characters: [CChar]) -> String {
      String(
        decoding: characters.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
    return known ? .tcp(host: text(host), port: text(port)) : .unknown
  }
}

extension SocketPeer: CustomStringConvertible {
  /// For logs and lists.
  package var description: String {
    switch self {
    case .unix(let process, let user, _): "unix:pid=\(process),uid=\(user)"
    case .tcp(let host, let port): "tcp:\(host):\(port)"
    case .vsock(let machine, let port): "vsock:\(machine):\(port)"
    case .unknown: "unknown"
    }
  }
}
