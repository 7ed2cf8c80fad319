internal import PloopIO
internal import PloopTLS

/// A client's bytes: the socket's as they are, or what TLS makes of them. Of the connection's thread alone.
final class ClientStream {
  /// Calls to the kernel for one piece of plain text: whoever sends a record bit by bit, or what is no data, does not
  /// keep the connection's thread from looking at anything else.
  private static let mostAttempts = 64

  private let socket: StreamSocket
  private var tls: TLSSession?
  private var hasShakenHands = false
  /// Plain bytes of the last ``send(_:)-(ByteRegion)`` whose cipher text has not been sent as a whole.
  private var pending = 0
  /// Whether something of what was to be sent is not.
  private var isTorn = false
  /// Why TLS has broken off; nil where it has not.
  private(set) var failure: String?

  init(_ socket: StreamSocket) { self.socket = socket }

  /// Nil where pages cannot be lent: cipher text has none.
  var unreadLimit: UInt64? { tls == nil ? socket.unreadLimit : nil }
  var hasBeenTaken: Bool { socket.hasBeenTaken }

  // MARK: TLS

  /// Has the client shake hands; nothing of it may have been received before.
  ///
  /// - Parameter shallGoOn: asked again and again, however busy the client is.
  /// - Throws: why it has not, in time.
  func secure(
    by session: TLSSession, bell: Bell, until deadline: Deadline, while shallGoOn: () -> Bool
  ) throws(TLSFault) {
    func check() throws(TLSFault) {
      guard shallGoOn() else { throw TLSFault("the server stops") }
      guard !deadline.hasPassed else { throw TLSFault("the handshake took too long") }
    }
    func wait(_ wanted: StreamSocket.Readiness) throws(TLSFault) {
      try check()
      _ = socket.wait(wanted, with: bell, until: deadline)
    }
    tls = session
    while true {
      try check()
      let outcome = session.shakeHands()
      // Before anything else: what is said last may tell the client why it fails.
      while case .wouldBlock = sendCipherText(session) { try wait(.writable) }
      switch outcome {
      case .done:
        hasShakenHands = true
        return
      case .failed(let reason): throw TLSFault(reason)
      case .bytes, .ended: throw TLSFault("the client has ended the handshake")
      case .needsSending: continue
      case .needsInput: break
      }
      switch receiveCipherText(session, briefly: false) {
      case .bytes: continue
      case .ended: throw TLSFault("the client has hung up")
      case .wouldBlock: try wait(.readable)
      }
    }
  }

  // MARK: Receiving

  func receive(into region: ByteRegion) -> StreamSocket.Transfer {
    guard let tls else { return socket.receive(into: region) }
    return receive(into: region, tls, briefly: false)
  }

  /// Waits for bytes, at most for a tenth of a second (``StreamSocket/receiveBriefly(into:)``).
  func receiveBriefly(into region: ByteRegion) -> StreamSocket.Transfer {
    guard let tls else { return socket.receiveBriefly(into: region) }
    return receive(into: region, tls, briefly: true)
  }

  private func receive(
    into region: ByteRegion, _ tls: TLSSession, briefly: Bool
  ) -> StreamSocket.Transfer {
    var attempts = 0
    while true {
      switch tls.read(into: region) {
      case .bytes(let count): return .bytes(count)
      case .needsInput: break
      case .needsSending:
        // What is said in answer has no room behind replies that the client has not read.
        guard case .bytes = sendCipherText(tls), attempts < Self.mostAttempts else {
          return .wouldBlock
        }
        attempts += 1
        continue
      case .failed(let reason):
        failure = failure ?? reason
        return .ended
      case .done, .ended: return .ended
      }
      // Everything that has come has been looked at, so what comes next makes the socket readable.
      guard attempts < Self.mostAttempts else { return .wouldBlock }
      switch receiveCipherText(tls, briefly: briefly && attempts == 0) {
      case .bytes: attempts += 1
      case .wouldBlock: return .wouldBlock
      case .ended: return .ended
      }
    }
  }

  private func receiveCipherText(_ tls: TLSSession, briefly: Bool) -> StreamSocket.Transfer {
    guard let room = tls.room else { return .ended }
    let transfer = briefly ? socket.receiveBriefly(into: room) : socket.receive(into: room)
    if case .bytes(let count) = transfer { tls.received(count) }
    return transfer
  }

  // MARK: Sending

  /// - Parameter region: where the socket had no room for a part of it, the next call begins with what was left.
  func send(_ region: ByteRegion) -> StreamSocket.Transfer {
    guard let tls else { return socket.send(region) }
    if pending == 0 {
      let isWhole = region.count <= TLSSession.mostBytes
      let count = isWhole ? region.count : TLSSession.usualBytes
      let outcome = tls.write(region.slice(0, count))
      if case .failed(let reason) = outcome { failure = failure ?? reason }
      guard outcome == .done else { return .ended }
      pending = count
    }
    switch sendCipherText(tls, isFollowed: pending < region.count) {
    case .bytes:
      defer { pending = 0 }
      return .bytes(pending)
    case .wouldBlock: return .wouldBlock
    case .ended: return .ended
    }
  }

  /// - Returns: `.bytes` once nothing waits any more.
  private func sendCipherText(
    _ tls: TLSSession, isFollowed: Bool = false
  ) -> StreamSocket.Transfer {
    while let waiting = tls.waiting {
      switch socket.send(waiting, isFollowed: isFollowed) {
      case .bytes(let count): tls.sent(count)
      case .wouldBlock: return .wouldBlock
      case .ended: return .ended
      }
    }
    return .bytes(0)
  }

  /// Of a file's pages, as they are; only where ``unreadLimit`` is not nil.
  func send(_ piece: FilePiece) -> StreamSocket.PageTransfer { socket.send(piece) }

  // MARK: Waiting, and the end

  @discardableResult
  func wait(
    _ wanted: StreamSocket.Readiness, with bell: Bell, until deadline: Deadline
  ) -> StreamSocket.Readiness {
    socket.wait(wanted, with: bell, until: deadline)
  }

  /// Something of what was to be sent is not: that all has been is not said to the client then.
  func tear() { isTorn = true }

  /// The client reads the end of the stream behind everything that was sent, and by TLS whether that was all: a goodbye
  /// behind a part would be taken for it, and so would one behind a failure, of which an alert waits.
  func shutDownSending() {
    if let tls, hasShakenHands {
      if pending == 0, !isTorn { tls.sayGoodbye() }
      _ = sendCipherText(tls)
    }
    socket.shutDownSending()
  }

  /// What comes is dropped, until the client hangs up or the deadline has passed.
  func drop(with bell: Bell, until deadline: Deadline) {
    let scratch = AlignedBuffer(unfilled: 16 << 10).region
    while !deadline.hasPassed {
      switch socket.receive(into: scratch) {
      case .bytes: continue
      case .ended: return
      case .wouldBlock: _ = socket.wait(.readable, with: bell, until: deadline)
      }
    }
  }
}
