internal import CLinux
internal import Glibc

/// A socket that clients connect to: a Unix one at a path, or TCP.
package final class ListeningSocket: Sendable {
  /// As people write it: a path, or host:port.
  package let address: String
  /// The same, the path of a Unix socket made absolute, for clients in other folders.
  package let absoluteAddress: String
  /// 0 for a Unix socket.
  package let port: UInt16
  package let isUnix: Bool
  /// Whether it is no address that a client could connect to, but all those of this host.
  package let isOfAllAddresses: Bool
  private let descriptor: OwnedDescriptor
  private let file: FileIdentity?

  /// - Parameters:
  ///   - path: at most 107 bytes. A socket file that nobody answers at is replaced; one that is
  ///     answered at is an error.
  ///   - mode: permissions of the socket file.
  package static func unix(path: String, mode: UInt32 = 0o660) throws(IOError) -> ListeningSocket {
    let number = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard number >= 0 else { throw .last("socket", path) }
    let probe = OwnedDescriptor(number)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
      throw IOError("bind", path: path, code: ENAMETOOLONG)
    }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let size = socklen_t(MemoryLayout<sockaddr_un>.size)
    let answered = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(number, $0, size) } == 0
    }
    if answered { throw IOError("bind", path: path, code: EADDRINUSE) }
    // Nobody listens there any more (connect refused): the file is what a killed process left. The
    // answer is the same where there is no socket at all, and that file is somebody's.
    if errno == ECONNREFUSED, isSocket(path) { Glibc.unlink(path) }
    let fresh = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard fresh >= 0 else { throw .last("socket", path) }
    let listening = OwnedDescriptor(fresh)
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(fresh, $0, size) }
    }
    guard bound == 0 else { throw .last("bind", path) }
    guard chmod(path, mode_t(mode)) == 0 else { throw .last("chmod", path) }
    guard listen(fresh, 128) == 0 else { throw .last("listen", path) }
    var status = stat()
    let known = stat(path, &status) == 0
    _ = consume probe
    return ListeningSocket(
      listening, address: path, port: 0, isUnix: true,
      file: known
        ? FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino)) : nil)
  }

  private static func isSocket(_ path: String) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
  }

  /// - Parameters:
  ///   - host: an IPv4 or IPv6 address, or `localhost`.
  ///   - port: 0 chooses a free one.
  package static func tcp(host: String, port: UInt16) throws(IOError) -> ListeningSocket {
    let name = "\(host):\(port)"
    var hints = addrinfo()
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, String(port), &hints, &found) == 0, let first = found else {
      throw IOError("getaddrinfo", path: name, code: EADDRNOTAVAIL)
    }
    defer { freeaddrinfo(found) }
    let number = socket(
      first.pointee.ai_family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard number >= 0 else { throw .last("socket", name) }
    let descriptor = OwnedDescriptor(number)
    var one: Int32 = 1
    setsockopt(number, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
    guard bind(number, first.pointee.ai_addr, first.pointee.ai_addrlen) == 0 else {
      throw .last("bind", name)
    }
    guard listen(number, 128) == 0 else { throw .last("listen", name) }
    var storage = sockaddr_storage()
    var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let chosen = withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(number, $0, &size) }
    }
    guard chosen == 0 else { throw .last("getsockname", name) }
    // The port lies at the same place in both families.
    let real = withUnsafeBytes(of: &storage) {
      UInt16(bigEndian: $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
    }
    let isOfAll = withUnsafeBytes(of: &storage) { bytes in
      // man 7 ip, man 7 ipv6: where the address lies in either.
      Int32(first.pointee.ai_family) == AF_INET6
        ? bytes[8..<24].allSatisfy { $0 == 0 } : bytes[4..<8].allSatisfy { $0 == 0 }
    }
    return ListeningSocket(
      descriptor, address: "\(host.contains(":") ? "[\(host)]" : host):\(real)", port: real,
      isUnix: false, isOfAllAddresses: isOfAll, file: nil)
  }

  private init(
    _ descriptor: consuming OwnedDescriptor, address: String, port: UInt16, isUnix: Bool,
    isOfAllAddresses: Bool = false, file: FileIdentity?
  ) {
    self.descriptor = descriptor
    self.address = address
    absoluteAddress = isUnix ? ListeningSocket.absolutePath(address) : address
    self.port = port
    self.isUnix = isUnix
    self.isOfAllAddresses = isOfAllAddresses
    self.file = file
  }

  deinit { removeFile() }

  private static func absolutePath(_ path: String) -> String {
    guard let real = realpath(path, nil) else { return path }
    defer { free(real) }
    return String(cString: real)
  }

  /// Removes the socket file, if it is still this socket's.
  package func removeFile() {
    guard let file else { return }
    var status = stat()
    guard stat(address, &status) == 0,
      file == FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    else { return }
    Glibc.unlink(address)
  }

  package var descriptorNumber: Int32 { descriptor.number }

  /// Waits for a client.
  ///
  /// - Returns: nil once ``shutDown()`` was called; also after an error that another try may not
  ///   have, so call it again while the socket is wanted.
  package func accept() -> StreamSocket? {
    let number = clinux_accept(descriptor.number)
    guard number >= 0 else {
      // Out of descriptors: let somebody close one before the next try.
      if errno == EMFILE || errno == ENFILE { poll(nil, 0, 100) }
      return nil
    }
    return StreamSocket(OwnedDescriptor(number), isUnix: isUnix)
  }

  /// Wakes whoever waits in ``accept()``; nobody connects any more.
  package func shutDown() { Glibc.shutdown(descriptor.number, Int32(SHUT_RDWR)) }
}
