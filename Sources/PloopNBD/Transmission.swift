internal import PloopIO
internal import Synchronization

/// The transmission phase of one client, on the connection's thread: receives as many requests as
/// the socket holds, answers what is quick in place, gathers the replies, and sends them with one
/// call. Slow requests go to the engine and are answered when they are done, in whatever order.
struct Transmission<Directory: ExportDirectory> {
  private static var outputBytes: Int { 1 << 20 }

  /// Why no further request is taken just now.
  private enum Halt {
    /// The next one has not arrived yet.
    case input
    /// Replies have no room, or slow work is at its limit.
    case busy
    /// The server is short of memory; the bell is rung when asking again makes sense.
    case memory
    /// DISC, or a stream out of step.
    case over
  }

  let connection: Connection<Directory>
  let session: Session<Directory.Door>
  let format: ReplyFormat
  var output = OutputStream(AlignedBuffer(unfilled: outputBytes).region)
  var account: MemoryAccount
  var holes = HoleList()
  private var input: InputStream
  private var payload: PendingPayload?
  /// Bytes of a refused payload that are still to come.
  private var skipping = 0
  private var inputEnded = false
  /// When the connection ends although replies have not been taken.
  private var lastCall: Deadline?
  /// When holding memory without getting on counts as a stall.
  private var stall: Deadline?

  init(
    _ connection: Connection<Directory>, _ session: Session<Directory.Door>, _ input: InputStream
  ) {
    self.connection = connection
    self.session = session
    self.input = input
    format = ReplyFormat(structured: session.structured)
    account = MemoryAccount(
      budget: connection.budget, id: connection.id, bell: connection.mailbox.bell,
      ownBytes: connection.limits.ownBytesInFlight)
  }

  mutating func run() {
    while true {
      collect()
      // 1 everything that the input holds
      let halt = takeRequests()
      if halt == .over { return finish() }
      // 2 one send for all of it
      let hasReleased = flush()
      // What the input still holds comes before what the socket holds.
      if halt == .busy && hasRoom || halt == .memory && hasReleased { continue }
      if connection.isEnding, hasHadItsTime { return }
      // 3 more input, and when there is none wait for what can go on
      if halt == .input, !inputEnded, receive() { continue }
      let isOver = connection.isEnding || inputEnded
      if halt == .input, isOver, connection.mailbox.isIdle, output.isEmpty { return }
      guard wait(for: halt) else { return }
    }
  }

  /// Gives the memory back that replies held which were never sent.
  mutating func close() { account.close() }

  // MARK: Input

  /// Whether another request may begin.
  private var hasRoom: Bool {
    output.hasRoom && account.held < connection.limits.bytesInFlight
      && connection.mailbox.requestsInFlight < connection.limits.requestsInFlight
  }

  private mutating func takeRequests() -> Halt {
    while true {
      if skipping > 0 {
        skipping -= input.skip(skipping)
        if skipping > 0 { return .input }
      }
      if payload != nil, let halt = takePayload() { return halt }
      guard hasRoom else { return .busy }
      guard let header = input.peek(RequestHeader.byteCount) else { return .input }
      guard let request = Request(header), request.type != Command.disconnect else { return .over }
      var fault = request.fault(session, connection.limits)
      if fault == nil, connection.isEnding {
        fault = NBDError(.shuttingDown, "the export is going away")
      }
      let wholeBytes = RequestHeader.byteCount + request.payloadBytes
      if let fault {
        append(format.failure(request, fault))
        // Refused bytes are read all the same: the stream stays in step.
        skipping = wholeBytes
      } else if let whole = input.peek(wholeBytes) {
        let data = whole.slice(RequestHeader.byteCount, request.payloadBytes)
        guard perform(request, data) else { return .memory }
        _ = input.skip(wholeBytes)
      } else {
        payload = PendingPayload(request)
        _ = input.skip(RequestHeader.byteCount)
      }
    }
  }

  /// Goes on with a payload that is larger than the input, as memory is granted for it.
  ///
  /// - Returns: nil once its request has begun.
  private mutating func takePayload() -> Halt? {
    guard var pending = payload else { return nil }
    while !pending.isComplete {
      if pending.room.count == 0 {
        guard account.take(pending.nextGrant) else {
          payload = pending
          return .memory
        }
        pending.grant()
      }
      guard pending.fill(from: &input) else {
        payload = pending
        return .input
      }
    }
    payload = nil
    stall = nil
    write(pending.request, granted: pending.memory)
    return nil
  }

  /// - Returns: false when there is nothing to receive now.
  private mutating func receive() -> Bool {
    switch connection.socket.receive(into: payload?.room ?? input.free()) {
    case .bytes(let count):
      connection.received.wrappingAdd(UInt64(count), ordering: .relaxed)
      if payload == nil { input.received(count) } else { payload?.received(count) }
      return true
    case .ended:
      inputEnded = true
      return true
    case .wouldBlock:
      // Nobody reads, and what had been sent by then has been taken.
      if output.isCut { inputEnded = true }
      return false
    }
  }

  // MARK: Output

  mutating func append(_ reply: ByteRegion) {
    _ = output.append(Reply(region: reply, charge: 0))
  }

  private mutating func collect() {
    for reply in connection.mailbox.takeReplies() { account.give(output.append(reply)) }
  }

  /// - Returns: whether memory is free again by it.
  private mutating func flush() -> Bool {
    let released = output.flush(to: connection.socket, counting: connection.sent)
    guard released > 0 else { return false }
    account.give(released)
    stall = nil
    return true
  }

  /// What is under way is finished, and its replies are sent.
  private mutating func finish() {
    connection.mailbox.drain()
    collect()
    _ = flush()
    let deadline = Deadline.after(seconds: connection.limits.farewellSeconds)
    while !output.isEmpty, !deadline.hasPassed {
      _ = connection.socket.wait(.writable, with: connection.mailbox.bell, until: deadline)
      _ = flush()
    }
  }

  // MARK: Waiting

  /// Whether a client whose connection is to end, and for whom nothing is under way any more, has
  /// had the time to take its replies, however much it goes on sending.
  private var hasHadItsTime: Bool {
    mutating get {
      guard connection.mailbox.isIdle else { return false }
      let deadline = lastCall ?? .after(seconds: connection.limits.farewellSeconds)
      lastCall = deadline
      return deadline.hasPassed
    }
  }

  /// - Returns: false when the client has stalled at the cost of others.
  private mutating func wait(for halt: Halt) -> Bool {
    // Memory that is held for a client that does not send, or does not read, is others' memory.
    let isClientsTurn = account.held > 0 && (halt == .input && payload != nil || !output.isEmpty)
    if !isClientsTurn {
      stall = nil
    } else if stall == nil {
      stall = .after(seconds: connection.limits.stallSeconds)
    }
    var wanted: StreamSocket.Readiness = output.isEmpty ? [] : .writable
    if halt == .input, !inputEnded { wanted.insert(.readable) }
    _ = connection.socket.wait(
      wanted, with: connection.mailbox.bell, until: lastCall ?? stall ?? .never)
    if stall?.hasPassed == true {
      if account.othersWait { return false }
      stall = nil
    }
    return true
  }
}

/// A WRITE whose payload is larger than the input holds, being received into memory of its own. The
/// pages of that memory come into being as they are filled, and are granted before.
private struct PendingPayload {
  private static let grantBytes = 256 << 10

  let request: Request
  let memory: ByteRegion
  private var granted = 0
  private var count = 0

  init(_ request: Request) {
    self.request = request
    memory = AlignedBuffer(unfilled: request.payloadBytes).region
  }

  var isComplete: Bool { count == memory.count }
  /// Where bytes may be received now.
  var room: ByteRegion { memory.slice(count, granted - count) }
  var nextGrant: Int { min(PendingPayload.grantBytes, memory.count - granted) }

  mutating func grant() { granted += nextGrant }

  mutating func received(_ more: Int) { count += more }

  /// - Returns: whether there was anything to take.
  mutating func fill(from stream: inout InputStream) -> Bool {
    let more = min(stream.available, granted - count)
    guard more > 0, let part = stream.take(more) else { return false }
    memory.copy(from: part, at: count)
    count += more
    return true
  }
}
