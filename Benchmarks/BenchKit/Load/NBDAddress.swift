internal import Glibc
internal import PloopIO

/// Where an export is: `nbd+unix:///NAME?socket=PATH` or `nbd://HOST:PORT/NAME`.
package struct NBDAddress: Sendable, Equatable {
  package enum Door: Sendable, Equatable {
    case unix(String)
    case tcp(host: String, port: String)
  }

  package let door: Door
  package let export: String

  package init(door: Door, export: String) {
    self.door = door
    self.export = export
  }

  package init(uri: String) throws(BenchFailure) {
    let unix = "nbd+unix:///"
    let query = "?socket="
    if uri.hasPrefix(unix) {
      let parts = uri.dropFirst(unix.count).split(
        separator: query, maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2 else { throw BenchFailure("no \(query)PATH in \(uri)") }
      (export, door) = (String(parts[0]), .unix(String(parts[1])))
      return
    }
    guard uri.hasPrefix("nbd://") else {
      throw BenchFailure("an address is nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME")
    }
    let rest = uri.dropFirst(6)
    let parts = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    export = parts.count > 1 ? String(parts[1]) : ""
    let colon = parts[0].lastIndex(of: ":")
    door = .tcp(
      host: String(colon.map { parts[0][..<$0] } ?? parts[0]),
      port: colon.map { String(parts[0][parts[0].index(after: $0)...]) } ?? "10809")
  }

  /// The path of a Unix socket.
  var socketPath: String {
    guard case .unix(let path) = door else { return "" }
    return path
  }

  package var uri: String {
    switch door {
    case .unix(let path): "nbd+unix:///\(export)?socket=\(path)"
    case .tcp(let host, let port): "nbd://\(host):\(port)/\(export)"
    }
  }

  /// Connects a blocking socket.
  func connect() throws(BenchFailure) -> OwnedDescriptor {
    switch door {
    case .unix(let path): try NBDAddress.connectUnix(path)
    case .tcp(let host, let port): try NBDAddress.connectTCP(host, port)
    }
  }

  private static func connectUnix(_ path: String) throws(BenchFailure) -> OwnedDescriptor {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
      throw BenchFailure("too long for a socket: \(path)")
    }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let number = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard number >= 0 else { throw BenchFailure(IOError.last("socket", path).description) }
    let descriptor = OwnedDescriptor(number)
    let size = socklen_t(MemoryLayout<sockaddr_un>.size)
    let status = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(number, $0, size) }
    }
    guard status == 0 else { throw BenchFailure(IOError.last("connect", path).description) }
    return descriptor
  }

  private static func connectTCP(
    _ host: String, _ port: String
  ) throws(BenchFailure) -> OwnedDescriptor {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, port, &hints, &found) == 0, let first = found else {
      throw BenchFailure("no address for \(host):\(port)")
    }
    defer { freeaddrinfo(found) }
    let number = socket(
      first.pointee.ai_family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard number >= 0 else { throw BenchFailure(IOError.last("socket", host).description) }
    let descriptor = OwnedDescriptor(number)
    guard Glibc.connect(number, first.pointee.ai_addr, first.pointee.ai_addrlen) == 0 else {
      throw BenchFailure(IOError.last("connect", "\(host):\(port)").description)
    }
    var one: Int32 = 1
    setsockopt(number, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
    return descriptor
  }
}
