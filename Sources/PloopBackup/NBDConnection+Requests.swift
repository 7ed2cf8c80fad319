internal import CNBD
internal import Glibc
internal import PloopIO

// Any thread makes requests and waits for its own. One of those that wait looks after the socket for all of
// them; whoever makes a request that is not all sent rings a bell, since then it has to be looked at anew.

extension NBDConnection {
  private static let width = 8
  /// A server that can only write zeroes has its time for them, too.
  static let zeroesAtOnceBytes: UInt64 = 16 << 20
  private static let lookMilliseconds: Int32 = 1000

  /// Who looks after the socket.
  struct Turn {
    var isTaken = false
    /// How often somebody has looked.
    var rounds = 0
    /// When a request was answered last, on the monotonic clock.
    var answeredAt: UInt64 = 0
    /// No request has had an answer in time.
    var isLate = false
    /// Why there is no connection any more, once it is known.
    var end: String?
  }

  // MARK: Requests

  func read(into region: ByteRegion, at offset: UInt64) throws(BackupError) {
    try each(offset..<offset + UInt64(region.count), by: facts.limitBytes) { part in
      let piece = region.slice(Int(part.lowerBound - offset), part.count)
      return nbd_aio_pread(
        handle.pointer, piece.start, piece.count, part.lowerBound, nbd_completion_callback(), 0)
    }
  }

  func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {
    try each(offset..<offset + UInt64(region.count), by: facts.limitBytes) { part in
      let piece = region.slice(Int(part.lowerBound - offset), part.count)
      return nbd_aio_pwrite(
        handle.pointer, piece.start, piece.count, part.lowerBound, nbd_completion_callback(), 0)
    }
  }

  func zero(_ range: Range<UInt64>) throws(BackupError) {
    guard facts.canZero else {
      let zeroes = AlignedBuffer(count: Int(min(facts.limitBytes, UInt64(range.count))))
      defer { withExtendedLifetime(zeroes) {} }
      return try each(range, by: facts.limitBytes) { part in
        nbd_aio_pwrite(
          handle.pointer, zeroes.borrowed.start, part.count, part.lowerBound,
          nbd_completion_callback(), 0)
      }
    }
    // A trim promises nothing about what is read then; this does, and makes holes as well.
    try each(range, by: NBDConnection.zeroesAtOnceBytes) { part in
      nbd_aio_zero(
        handle.pointer, UInt64(part.count), part.lowerBound, nbd_completion_callback(), 0)
    }
  }

  func flush() throws(BackupError) {
    try each(0..<1, by: 1) { _ in
      nbd_aio_flush(handle.pointer, nbd_completion_callback(), 0)
    }
  }

  func extents(in range: Range<UInt64>) throws(BackupError) -> [ExportExtent] {
    let found = NBDExtents()
    try each(range, by: .max) { part in
      nbd_aio_block_status(
        handle.pointer, UInt64(part.count), part.lowerBound, found.callback,
        nbd_completion_callback(), 0)
    }
    return found.extents
  }

  /// Makes the requests of a range, some at a time, and waits for all that were made, also when one
  /// fails: until then the library uses their memory.
  private func each(
    _ range: Range<UInt64>, by step: UInt64, _ make: (Range<UInt64>) -> Int64
  ) throws(BackupError) {
    var failure: BackupError?
    var flying: ArraySlice<UInt64> = []
    var next = range.lowerBound
    while next < range.upperBound, failure == nil {
      if flying.count == NBDConnection.width, let first = flying.popFirst() {
        failure = answer(to: first)
        continue
      }
      let part = next..<next + min(step, range.upperBound - next)
      let cookie = make(part)
      guard cookie >= 0 else {
        failure = reason()
        break
      }
      flying.append(UInt64(cookie))
      next = part.upperBound
      if isSending { bell.ring() }
    }
    for cookie in flying {
      let late = answer(to: cookie)
      failure = failure ?? late
    }
    if let failure { throw failure }
  }

  // MARK: Answers

  /// Waits for a request's answer.
  ///
  /// - Returns: why it failed, if it did.
  private func answer(to cookie: UInt64) -> BackupError? {
    let start = monotonicNanoseconds()
    while true {
      let (seen, answeredAt) = turn.withLock { ($0.rounds, $0.answeredAt) }
      switch nbd_aio_command_completed(handle.pointer, cookie) {
      case 0: break
      case 1:
        turn.withLock { $0.answeredAt = monotonicNanoseconds() }
        return nil
      default: return reason()
      }
      let now = monotonicNanoseconds()
      let silence = now - min(now, max(start, answeredAt))
      if silence > UInt64(requestSeconds) * 1_000_000_000 {
        // The library gives up what is on its way once the other side is gone.
        turn.withLock { $0.isLate = true }
        _ = shutdown(socket.number, Int32(SHUT_RDWR))
      }
      let isMine = turn.wait { turn -> Bool? in
        if turn.rounds != seen { return false }
        guard !turn.isTaken else { return nil }
        turn.isTaken = true
        return true
      }
      guard isMine == true else { continue }
      let end = look()
      turn.update { turn in
        turn.isTaken = false
        turn.rounds += 1
        turn.end = turn.end ?? end
      }
    }
  }

  /// Waits until the socket can be read or written as the library wants it, and has it do so.
  ///
  /// - Returns: why there is no connection any more, if that was seen.
  private func look() -> String? {
    let wanted = nbd_aio_get_direction(handle.pointer)
    var events: Int32 = 0
    if wanted & UInt32(LIBNBD_AIO_DIRECTION_READ) != 0 { events |= POLLIN }
    if wanted & UInt32(LIBNBD_AIO_DIRECTION_WRITE) != 0 { events |= POLLOUT }
    var polled = [
      pollfd(fd: events == 0 ? -1 : socket.number, events: Int16(events), revents: 0),
      pollfd(fd: bell.number, events: Int16(POLLIN), revents: 0),
    ]
    guard poll(&polled, 2, NBDConnection.lookMilliseconds) > 0 else { return nil }
    if polled[1].revents != 0 { bell.silence() }
    let seen = Int32(polled[0].revents)
    guard seen != 0 else { return nil }
    // A connection that is gone is found out by reading it.
    let status =
      seen & ~POLLOUT != 0 && events & POLLIN != 0
      ? nbd_aio_notify_read(handle.pointer) : nbd_aio_notify_write(handle.pointer)
    let isOver =
      nbd_aio_is_dead(handle.pointer) == 1 || nbd_aio_is_closed(handle.pointer) == 1
    guard isOver else { return nil }
    return status == 0 ? "\(name): the server has hung up" : nbdFailure(name).detail
  }

  private var isSending: Bool {
    nbd_aio_get_direction(handle.pointer) & UInt32(LIBNBD_AIO_DIRECTION_WRITE) != 0
  }

  /// Why the last call of this thread has failed.
  private func reason() -> BackupError {
    let failure = nbdFailure(name)
    let (isLate, end) = turn.withLock { ($0.isLate, $0.end) }
    if isLate {
      return BackupError(.target(code: ETIMEDOUT), "\(name): no answer for \(requestSeconds) s")
    }
    // Whoever comes after the end is told only that there is no connection.
    guard let end, failure.kind == .target(code: ENOTCONN) || failure.kind == .target(code: EINVAL)
    else { return failure }
    return BackupError(.target(code: ECONNRESET), end)
  }
}
