internal import CLinux
internal import Glibc

/// A socket that clients connect to: a Unix one at a path, TCP, or one that virtual machines reach (man 7 vsock).
package final class ListeningSocket: Sendable {
  package enum Family: Sendable { case unix, tcp, vsock }

  private static let streamType =
    Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
  private static let backlog: Int32 = 128

  package let family: Family
  /// As people write it: a path, host:port, or vsock:port.
  package let address: String
  /// The same for clients elsewhere: the absolute path of a Unix socket, and of a vsock this machine's number and the
  /// port.
  package let absoluteAddress: String
  /// What TCP clients ask for, as people write it; empty for others.
  package let host: String
  /// 0 for others.
  package let port: UInt16
  /// Whether it is no address that a client could connect to, but all those of this host.
  package let isOfAllAddresses: Bool
  private let descriptor: OwnedDescriptor
  /// Rung once nobody is wanted any more.
  private let bell: Bell
  /// Nil where there is none, or it is not ours to remove.
  private let file: FileIdentity?
  /// Whether somebody else goes on listening when this process no longer does.
  private let isHandedOver: Bool

  package var isUnix: Bool { family == .unix }

  // MARK: Sockets of our own

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
    let fresh = socket(AF_UNIX, streamType, 0)
    guard fresh >= 0 else { throw .last("socket", path) }
    let listening = OwnedDescriptor(fresh)
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(fresh, $0, size) }
    }
    guard bound == 0 else { throw .last("bind", path) }
    guard chmod(path, mode_t(mode)) == 0 else { throw .last("chmod", path) }
    guard listen(fresh, backlog) == 0 else { throw .last("listen", path) }
    var status = stat()
    let known = stat(path, &status) == 0
    _ = consume probe
    return try ListeningSocket(
      listening, as: path,
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
    let number = socket(first.pointee.ai_family, streamType, 0)
    guard number >= 0 else { throw .last("socket", name) }
    let descriptor = OwnedDescriptor(number)
    var one: Int32 = 1
    setsockopt(number, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
    guard bind(number, first.pointee.ai_addr, first.pointee.ai_addrlen) == 0 else {
      throw .last("bind", name)
    }
    guard listen(number, backlog) == 0 else { throw .last("listen", name) }
    return try ListeningSocket(descriptor, as: host)
  }

  /// Whoever is on this machine, a guest of it, or its host may connect.
  ///
  /// - Parameter port: 0 chooses a free one.
  package static func vsock(port: UInt32) throws(IOError) -> ListeningSocket {
    let number = clinux_vsock(port)
    guard number >= 0 else { throw .last("bind", "vsock:\(port)") }
    let descriptor = OwnedDescriptor(number)
    guard listen(number, backlog) == 0 else { throw .last("listen", "vsock:\(port)") }
    return try ListeningSocket(descriptor, as: "")
  }

  // MARK: Somebody else's

  /// One that somebody else listens on already and goes on listening on: its end here closes nothing there, and removes
  /// no file.
  ///
  /// - Parameter number: of a descriptor that is closed with this object, or at once on an error.
  package convenience init(handedOver number: Int32) throws(IOError) {
    let descriptor = OwnedDescriptor(number)
    let name = "descriptor \(number)"
    guard ListeningSocket.option(SO_TYPE, of: number) == Int32(SOCK_STREAM.rawValue),
      ListeningSocket.option(SO_ACCEPTCONN, of: number) == 1
    else { throw IOError("accept", path: name, code: EINVAL) }
    // Who is in the queue may be taken by somebody else before we take him.
    guard fcntl(number, F_SETFL, O_NONBLOCK) == 0 else { throw .last("fcntl", name) }
    try self.init(descriptor, as: nil, isHandedOver: true)
  }

  private static func option(_ name: Int32, of number: Int32) -> Int32? {
    var value: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    return getsockopt(number, SOL_SOCKET, name, &value, &size) == 0 ? value : nil
  }

  // MARK: All of them

  /// - Parameter name: its path or host, as somebody has written it; nil for what the kernel says.
  private init(
    _ descriptor: consuming OwnedDescriptor, as name: String?, file: FileIdentity? = nil,
    isHandedOver: Bool = false
  ) throws(IOError) {
    let bound = try BoundAddress(of: descriptor.number, name ?? "descriptor \(descriptor.number)")
    bell = try Bell()
    let name = name ?? bound.host
    family = bound.family
    port = bound.family == .tcp ? UInt16(truncatingIfNeeded: bound.port) : 0
    isOfAllAddresses = bound.isOfAllAddresses
    host = bound.family == .tcp ? name : ""
    switch bound.family {
    case .unix:
      address = name
      absoluteAddress = ListeningSocket.absolutePath(name)
    case .tcp:
      address = "\(name.contains(":") ? "[\(name)]" : name):\(bound.port)"
      absoluteAddress = address
    case .vsock:
      address = "vsock:\(bound.port)"
      absoluteAddress = "\(clinux_vsock_own()):\(bound.port)"
    }
    self.file = file
    self.isHandedOver = isHandedOver
    self.descriptor = descriptor
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
  ///   have, and where somebody else was quicker, so call it again while the socket is wanted.
  package func accept() -> StreamSocket? {
    var polled = [descriptor.number, bell.number].map {
      pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
    }
    guard poll(&polled, 2, -1) > 0, polled[1].revents == 0 else { return nil }
    let number = clinux_accept(descriptor.number)
    guard number >= 0 else {
      // Out of descriptors: let somebody close one before the next try.
      if errno == EMFILE || errno == ENFILE { poll(nil, 0, 100) }
      return nil
    }
    return StreamSocket(OwnedDescriptor(number), isUnix: isUnix)
  }

  /// Wakes whoever waits in ``accept()``; nobody connects any more, but where somebody else goes on listening.
  package func shutDown() {
    bell.ring()
    if !isHandedOver { Glibc.shutdown(descriptor.number, Int32(SHUT_RDWR)) }
  }
}
