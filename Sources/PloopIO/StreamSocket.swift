internal import CLinux
internal import Glibc

/// A connected socket. No call waits, but ``wait(_:with:until:)`` and ``receiveBriefly(into:)``.
package final class StreamSocket: Sendable {
  private static let bufferBytes: Int32 = 1 << 20
  private static let unsentBytes: Int32 = 128 << 10
  private static let briefMilliseconds = 100

  private let descriptor: OwnedDescriptor
  /// Who is at the other end.
  package let identity: SocketPeer
  /// The same, for logs and lists.
  package let peer: String
  /// How many bytes there may be at most that were sent and have not been taken; nil where nobody can
  /// tell whether they have (``hasBeenTaken``).
  package let unreadLimit: UInt64?

  init(_ descriptor: consuming OwnedDescriptor, isUnix: Bool) {
    let number = descriptor.number
    if isUnix {
      // 1 MiB reads gain a little, nothing loses (docs/performance.md); TCP tunes itself.
      var bytes = StreamSocket.bufferBytes
      let size = socklen_t(MemoryLayout<Int32>.size)
      setsockopt(number, SOL_SOCKET, SO_SNDBUF, &bytes, size)
      setsockopt(number, SOL_SOCKET, SO_RCVBUF, &bytes, size)
    } else {
      StreamSocket.prepareTCP(number)
    }
    var brief = timeval(tv_sec: 0, tv_usec: StreamSocket.briefMilliseconds * 1000)
    setsockopt(
      number, SOL_SOCKET, SO_RCVTIMEO, &brief, socklen_t(MemoryLayout<timeval>.size))
    identity = SocketPeer(of: number)
    peer = identity.description
    unreadLimit = isUnix ? StreamSocket.prepareLending(number) : nil
    self.descriptor = descriptor
  }

  /// Sending a file's pages waits where there is no room, as short as can be told.
  ///
  /// - Returns: more than fits into the socket: the kernel takes more as long as the limit is not
  ///   reached, so what it has may be beyond it by what is sent at once.
  private static func prepareLending(_ number: Int32) -> UInt64? {
    var brief = timeval(tv_sec: 0, tv_usec: 1)
    setsockopt(number, SOL_SOCKET, SO_SNDTIMEO, &brief, socklen_t(MemoryLayout<timeval>.size))
    var bytes: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    // What is sent at once may go beyond a buffer that is smaller.
    guard getsockopt(number, SOL_SOCKET, SO_SNDBUF, &bytes, &size) == 0, bytes >= 128 << 10 else {
      return nil
    }
    return 2 * UInt64(bytes)
  }

  /// Nothing waits for a fuller packet, and a peer whose machine is gone is noticed within two
  /// minutes rather than never.
  private static func prepareTCP(_ number: Int32) {
    let options: [(level: Int32, name: Int32, value: Int32)] = [
      (Int32(IPPROTO_TCP), TCP_NODELAY, 1), (SOL_SOCKET, SO_KEEPALIVE, 1),
      (Int32(IPPROTO_TCP), TCP_KEEPIDLE, 60), (Int32(IPPROTO_TCP), TCP_KEEPINTVL, 10),
      (Int32(IPPROTO_TCP), TCP_KEEPCNT, 6),
      // What waits to be sent stays in the processor's cache (docs/performance.md, "TLS"); what is under way to a
      // distant peer is not part of it.
      (Int32(IPPROTO_TCP), TCP_NOTSENT_LOWAT, StreamSocket.unsentBytes),
    ]
    for option in options {
      var value = option.value
      setsockopt(
        number, option.level, option.name, &value, socklen_t(MemoryLayout<Int32>.size))
    }
  }

  package enum Transfer: Sendable {
    case bytes(Int)
    case wouldBlock
    /// The other end is gone, or has said that it sends no more.
    case ended
  }

  package func receive(into region: ByteRegion) -> Transfer {
    receive(into: region, flags: Int32(MSG_DONTWAIT))
  }

  /// Waits for bytes, at most for a tenth of a second: one system call where a wait would be
  /// followed by a second one. No bell ends it sooner.
  package func receiveBriefly(into region: ByteRegion) -> Transfer {
    receive(into: region, flags: 0)
  }

  private func receive(into region: ByteRegion, flags: Int32) -> Transfer {
    while true {
      let count = recv(descriptor.number, region.start, region.count, flags)
      if count > 0 { return .bytes(count) }
      if count == 0 { return .ended }
      if errno == EINTR { continue }
      return errno == EAGAIN ? .wouldBlock : .ended
    }
  }

  /// - Parameter isFollowed: more is sent at once, so what does not fill a packet may wait for it.
  package func send(_ region: ByteRegion, isFollowed: Bool = false) -> Transfer {
    let more = isFollowed ? Int32(MSG_MORE) : 0
    while true {
      let count = Glibc.send(
        descriptor.number, region.start, region.count,
        Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT) | more)
      if count >= 0 { return .bytes(count) }
      if errno == EINTR { continue }
      return errno == EAGAIN ? .wouldBlock : .ended
    }
  }

  /// Sends pages of a file as they are: what is written to them before they have been taken is what
  /// arrives. Where there is no room it waits, for a timer's tick.
  ///
  package func send(_ piece: FilePiece) -> PageTransfer {
    // Where nothing fits in, even a tick is too long.
    if let unreadLimit, UInt64(clamping: clinux_unread(descriptor.number)) >= unreadLimit / 2 {
      return .wouldBlock
    }
    while true {
      let count = clinux_send_file(
        descriptor.number, piece.descriptor, off_t(piece.offset),
        min(piece.count, StreamSocket.mostPagesBytes))
      if count > 0 { return .bytes(count) }
      if count == 0 { return .unreadable }
      switch errno {
      case EINTR: continue
      case EAGAIN: return .wouldBlock
      case EPIPE, ECONNRESET, ENOTCONN: return .ended
      default: return .unreadable
      }
    }
  }

  /// Of one call, which may wait for a tick for each 64 KiB.
  private static let mostPagesBytes = 256 << 10

  package enum PageTransfer: Sendable {
    case bytes(Int)
    case wouldBlock
    /// The other end is gone.
    case ended
    /// The file has ended, or its disk has failed.
    case unreadable
  }

  /// Whether the other end has taken everything that was sent; of a Unix socket only.
  package var hasBeenTaken: Bool { clinux_unread(descriptor.number) == 0 }

  package struct Readiness: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let readable = Readiness(rawValue: 1)
    package static let writable = Readiness(rawValue: 2)
    package static let woken = Readiness(rawValue: 4)
    /// The other end is gone, or has said that it sends no more: the same for all that TCP tells.
    package static let gone = Readiness(rawValue: 8)
  }

  /// POLLRDHUP of poll(2), which is hidden without _GNU_SOURCE.
  private static let peerSendsNoMore: Int16 = 0x2000

  /// Waits until the socket is as wanted or the bell is rung; for the bell alone when nothing is
  /// wanted, because a peer that is gone would end every wait at once; who wants to hear of that says ``Readiness/gone``.
  ///
  /// - Returns: what is the case; nothing when the deadline has passed.
  package func wait(_ wanted: Readiness, with bell: Bell, until deadline: Deadline) -> Readiness {
    var events: Int16 = 0
    if wanted.contains(.readable) { events |= Int16(POLLIN) }
    if wanted.contains(.writable) { events |= Int16(POLLOUT) }
    if wanted.contains(.gone) { events |= StreamSocket.peerSendsNoMore }
    var polled = [
      pollfd(fd: wanted.isEmpty ? -1 : descriptor.number, events: events, revents: 0),
      pollfd(fd: bell.number, events: Int16(POLLIN), revents: 0),
    ]
    _ = poll(
      &polled, 2, deadline.monotonic == nil ? -1 : Int32(clamping: deadline.millisecondsLeft))
    var found: Readiness = []
    if polled[0].revents & Int16(POLLIN) != 0 { found.insert(.readable) }
    if polled[0].revents & Int16(POLLOUT) != 0 { found.insert(.writable) }
    if polled[0].revents & (Int16(POLLHUP | POLLERR) | StreamSocket.peerSendsNoMore) != 0 {
      found.insert(.gone)
    }
    if polled[1].revents & Int16(POLLIN) != 0 {
      bell.silence()
      found.insert(.woken)
    }
    return found
  }

  /// The peer reads the end of the stream behind everything that was sent.
  package func shutDownSending() { Glibc.shutdown(descriptor.number, Int32(SHUT_WR)) }

  package func shutDown() { Glibc.shutdown(descriptor.number, Int32(SHUT_RDWR)) }
}

/// Wakes a thread that waits in ``StreamSocket/wait(_:with:until:)``; any thread may ring it.
package final class Bell: Sendable {
  private let descriptor: OwnedDescriptor

  package init() throws(IOError) {
    let number = clinux_bell()
    guard number >= 0 else { throw .last("eventfd", "bell") }
    descriptor = OwnedDescriptor(number)
  }

  package var number: Int32 { descriptor.number }

  package func ring() { clinux_bell_ring(descriptor.number) }

  package func silence() { clinux_bell_silence(descriptor.number) }
}
