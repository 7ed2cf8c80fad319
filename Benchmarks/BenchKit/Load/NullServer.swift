internal import Glibc
internal import PloopIO

/// The ceiling: a server like the real one in everything but that it has no disk.
///
/// One thread for each connection, as many requests as a receive brings, one send for their replies.
/// What it would have read is made up by ``Content``, so that its clients can check it like any
/// other's; what is written to it is forgotten.
package final class NullServer: Sendable {
  private let socket: ListeningSocket
  private let sizeBytes: UInt64
  private let stamp: UInt8

  /// Listens at a Unix socket; ``serve()`` then answers.
  package init(path: String, sizeBytes: UInt64, stamp: UInt8) throws(BenchFailure) {
    do { socket = try ListeningSocket.unix(path: path) } catch {
      throw BenchFailure(error.description)
    }
    self.sizeBytes = sizeBytes
    self.stamp = stamp
  }

  /// Takes clients until the process ends, or until ``stop()``.
  package func serve() {
    while true {
      // The socket does not wait, and does not say that it was shut down.
      var polled = pollfd(fd: socket.descriptorNumber, events: Int16(POLLIN), revents: 0)
      guard poll(&polled, 1, -1) < 0 || polled.revents & Int16(POLLHUP) == 0 else { return }
      let number = accept(socket.descriptorNumber, nil, nil)
      guard number >= 0 else {
        if [EINTR, ECONNABORTED, EAGAIN].contains(errno) { continue }
        return
      }
      let (sizeBytes, stamp) = (sizeBytes, stamp)
      let thread = try? Thread(name: "null") {
        let owned = OwnedDescriptor(number)
        var session = NullSession(owned.number, stamp: stamp)
        do throws(BenchFailure) {
          if try NullSession.enter(owned.number, sizeBytes) { try session.run() }
        } catch {
          // Whatever a client did wrong, only its own connection ends.
        }
      }
      if let thread { thread.detach() } else { close(number) }
    }
  }

  package func stop() { socket.shutDown() }
}

/// One client of the null server.
private struct NullSession: ~Copyable {
  private static let bufferBytes = 256 << 10
  private let socket: Int32
  private let stamp: UInt8
  private let incoming = UnsafeMutableRawPointer.allocate(
    byteCount: bufferBytes, alignment: 4096)
  private let out = UnsafeMutableRawPointer.allocate(byteCount: bufferBytes, alignment: 4096)
  private var outEnd = 0
  /// Whose payload is being received.
  private var writeCookie: UInt64 = 0

  init(_ socket: Int32, stamp: UInt8) {
    self.socket = socket
    self.stamp = stamp
    var room: Int32 = 1 << 20
    for option in [SO_SNDBUF, SO_RCVBUF] {
      setsockopt(socket, SOL_SOCKET, option, &room, socklen_t(MemoryLayout<Int32>.size))
    }
  }

  deinit {
    incoming.deallocate()
    out.deallocate()
  }

  /// The handshake: GO and INFO for any name, everything else is unknown.
  ///
  /// - Returns: whether the client has entered.
  static func enter(_ socket: Int32, _ sizeBytes: UInt64) throws(BenchFailure) -> Bool {
    let stream = HandshakeStream(number: socket)
    try stream.send(
      bigEndianBytes(NBDWire.greeting) + bigEndianBytes(NBDWire.option)
        + bigEndianBytes(UInt16(3)))
    _ = try stream.number(UInt32.self)
    while true {
      guard try stream.number(UInt64.self) == NBDWire.option else { return false }
      let option = try stream.number(UInt32.self)
      _ = try stream.bytes(Int(try stream.number(UInt32.self)))
      let reply: (UInt32, [UInt8]) throws(BenchFailure) -> Void = {
        (kind, data) throws(BenchFailure) in
        try stream.send(
          bigEndianBytes(NBDWire.optionReply) + bigEndianBytes(option) + bigEndianBytes(kind)
            + bigEndianBytes(UInt32(data.count)) + data)
      }
      switch option {
      case 6, 7:
        // Flush, FUA, trim, write zeroes, several connections.
        let flags: UInt16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8
        try reply(3, bigEndianBytes(UInt16(0)) + bigEndianBytes(sizeBytes) + bigEndianBytes(flags))
        try reply(1, [])
        if option == 7 { return true }
      case 2:
        try reply(1, [])
        return false
      default: try reply(1 << 31 + 1, [])
      }
    }
  }

  mutating func run() throws(BenchFailure) {
    var (start, end, payloadLeft) = (0, 0, 0)
    while true {
      let count = recv(socket, incoming + end, NullSession.bufferBytes - end, 0)
      guard count > 0 else { return }
      end &+= count
      while start < end {
        if payloadLeft > 0 {
          let part = min(payloadLeft, end &- start)
          start &+= part
          payloadLeft &-= part
          if payloadLeft > 0 { break }
          try putReply(writeCookie)
          continue
        }
        guard end &- start >= NBDWire.requestBytes else { break }
        let request = UnsafeRawPointer(incoming + start)
        guard request.big32(0) == NBDWire.request else { return }
        start &+= NBDWire.requestBytes
        guard try begin(request, &payloadLeft) else { return }
      }
      memmove(incoming, incoming + start, end &- start)
      (start, end) = (0, end &- start)
      try flush()
    }
  }

  private mutating func putReply(_ cookie: UInt64) throws(BenchFailure) {
    if outEnd &+ 16 > NullSession.bufferBytes { try flush() }
    let header = out + outEnd
    header.storeBytes(of: NBDWire.simpleReply.bigEndian, as: UInt32.self)
    header.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
    header.storeBytes(of: cookie, toByteOffset: 8, as: UInt64.self)
    outEnd &+= 16
  }

  /// Answers a request, but for a write, whose payload is to come.
  private mutating func begin(
    _ request: UnsafeRawPointer, _ payloadLeft: inout Int
  ) throws(BenchFailure) -> Bool {
    let command = request.big16(6)
    guard command != NBDWire.Command.disconnect else { return false }
    let length = Int(request.big32(24))
    let cookie = request.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    if command == NBDWire.Command.write, length > 0 {
      (payloadLeft, writeCookie) = (length, cookie)
      return true
    }
    try putReply(cookie)
    guard command == NBDWire.Command.read else { return true }
    var (offset, left) = (request.big64(16), length)
    while left > 0 {
      if outEnd == NullSession.bufferBytes { try flush() }
      let part = min(left, NullSession.bufferBytes &- outEnd)
      Content.fill(out + outEnd, count: part, offset: offset, stamp: stamp)
      outEnd &+= part
      offset &+= UInt64(part)
      left &-= part
    }
    return true
  }

  private mutating func flush() throws(BenchFailure) {
    var done = 0
    while done < outEnd {
      let count = send(socket, out + done, outEnd &- done, Int32(MSG_NOSIGNAL))
      guard count > 0 else { throw BenchFailure(IOError.last("send", "socket").description) }
      done &+= count
    }
    outEnd = 0
  }
}
