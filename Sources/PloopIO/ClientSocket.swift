internal import Glibc

/// A connection to somebody who listens. One thread at a time sends, and one receives; no call waits beyond its
/// deadline.
package final class ClientSocket: Sendable {
  private let descriptor: OwnedDescriptor
  private let name: String

  private init(_ descriptor: consuming OwnedDescriptor, _ name: String) {
    self.descriptor = descriptor
    self.name = name
  }

  /// Nil for a socket that has no address of the internet.
  package var peer: SocketAddress? { SocketAddress(peerOf: descriptor.number) }

  package static func unix(
    path: String, name: String, until deadline: Deadline
  ) throws(IOError) -> ClientSocket {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
      throw IOError("connect", path: name, code: ENAMETOOLONG)
    }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    return try withUnsafePointer(to: &address) { pointer throws(IOError) in
      try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        (pointer) throws(IOError) in
        try connect(
          to: pointer, socklen_t(MemoryLayout<sockaddr_un>.size), AF_UNIX, name, until: deadline)
      }
    }
  }

  /// - Parameter host: a name or an address.
  package static func tcp(
    host: String, port: UInt16, name: String, until deadline: Deadline
  ) throws(IOError) -> ClientSocket {
    var hints = addrinfo()
    hints.ai_flags = AI_NUMERICSERV
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, String(port), &hints, &found) == 0 else {
      throw IOError("getaddrinfo", path: name, code: EHOSTUNREACH)
    }
    defer { freeaddrinfo(found) }
    var failure = IOError("connect", path: name, code: EHOSTUNREACH)
    var next = found
    while let entry = next {
      next = entry.pointee.ai_next
      guard let address = entry.pointee.ai_addr else { continue }
      do throws(IOError) {
        return try connect(
          to: address, entry.pointee.ai_addrlen, entry.pointee.ai_family, name, until: deadline)
      } catch { failure = error }
    }
    throw failure
  }

  private static func connect(
    to address: UnsafePointer<sockaddr>, _ size: socklen_t, _ family: Int32, _ name: String,
    until deadline: Deadline
  ) throws(IOError) -> ClientSocket {
    let kind = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
    let number = socket(family, Int32(kind), 0)
    guard number >= 0 else { throw .last("socket", name) }
    let made = ClientSocket(OwnedDescriptor(number), name)
    if Glibc.connect(number, address, size) != 0 {
      guard errno == EINPROGRESS || errno == EAGAIN else { throw .last("connect", name) }
      try made.await(POLLOUT, until: deadline)
    }
    var code: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    guard getsockopt(number, SOL_SOCKET, SO_ERROR, &code, &length) == 0 else {
      throw .last("getsockopt", name)
    }
    guard code == 0 else { throw IOError("connect", path: name, code: code) }
    return made
  }

  /// - Throws: `ETIMEDOUT` when the deadline has passed.
  private func await(_ events: Int32, until deadline: Deadline) throws(IOError) {
    while true {
      var polled = pollfd(fd: descriptor.number, events: Int16(events), revents: 0)
      let left = deadline.millisecondsLeft
      let count = poll(&polled, 1, Int32(clamping: left))
      if count > 0 { return }
      if count < 0, errno != EINTR { throw .last("poll", name) }
      guard left > 0 else { throw IOError("poll", path: name, code: ETIMEDOUT) }
    }
  }

  /// Sends all of it.
  ///
  /// - Parameter seconds: for how long nothing may be taken.
  package func send(_ region: ByteRegion, patience seconds: Int) throws(IOError) {
    var sent = 0
    while sent < region.count {
      let count = Glibc.send(
        descriptor.number, region.start + sent, region.count - sent,
        Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
      if count >= 0 {
        sent += count
      } else if errno == EAGAIN {
        try self.await(POLLOUT, until: .after(seconds: seconds))
      } else if errno != EINTR {
        throw .last("send", name)
      }
    }
  }

  /// - Returns: false when the other end sends no more.
  package func receive(into region: ByteRegion, until deadline: Deadline) throws(IOError) -> Bool {
    var received = 0
    while received < region.count {
      let count = recv(
        descriptor.number, region.start + received, region.count - received, Int32(MSG_DONTWAIT))
      if count == 0 { return false }
      if count > 0 {
        received += count
      } else if errno == EAGAIN {
        try self.await(POLLIN, until: deadline)
      } else if errno != EINTR {
        throw .last("recv", name)
      }
    }
    return true
  }
}
