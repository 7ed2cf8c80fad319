internal import PloopIO
internal import Synchronization

/// The transmission phase of one client, on the connection's thread: receives as many requests as
/// the socket holds, answers what is quick in place, gathers the replies, and sends them with one
/// call. Slow requests go to the engine and are answered when they are done, in whatever order.
struct Transmission<Directory: ExportDirectory> {
  /// Replies are sent once so much of them waits, so that the client can begin on these while the
  /// next requests are carried out (docs/performance.md, "Batches").
  static var batchBytes: Int { 32 << 10 }
  /// The longest read that is made in place as one, with its header.
  static var outputBytes: Int { (1 << 20) + (4 << 10) }

  /// How often a connection that waits looks whether its client has taken lent pages.
  private static var returnMilliseconds: Int { 100 }

  /// Why no further request is taken just now.
  enum Halt {
    /// The next one has not arrived yet.
    case input
    /// Replies have to be sent first, or slow work is at its limit.
    case busy
    /// The disk's clients are to go slower.
    case throttled
    /// The server is short of memory; the bell is rung when asking again makes sense.
    case memory
    /// DISC, a stream out of step, or a server that leaves what has not begun.
    case over
  }

  let connection: Connection<Directory>
  /// Its own reference: one by way of the connection is counted at each use.
  private let traffic: ClientTraffic
  let stream: ClientStream
  let mailbox: Mailbox
  let lane: ReadLane
  let session: Session<Directory.Door>
  let door: Directory.Door
  let format: ReplyFormat
  var output = OutputStream(capacity: outputBytes)
  var account: MemoryAccount
  var holes = HoleList()
  var input: InputStream
  /// What has begun and goes on when there is input, or room; at most one of the three.
  var streaming: StreamedWrite?
  var collecting: CollectedWrite?
  var reading: StreamedRead?
  /// Bytes of room in the output that the next request needs before it can go on.
  var roomWanted = 0
  /// Bytes of a refused payload that are still to come.
  private var skipping = 0
  private var inputEnded = false
  /// Whether the client was found to have hung up while its next request waited for its turn.
  private var hasHungUp = false
  /// Whether the disk may be somebody else's by now: nothing is answered any more.
  private var isFenced = false
  /// Requests that nobody has been told of yet.
  private var taken: UInt64 = 0
  private let throttle: RequestThrottle?
  /// Of the next request, which may be looked at more than once.
  private(set) var turn = RequestThrottle.Turn()
  /// When it comes.
  private var turnComes = Deadline.never
  /// When the connection ends although replies have not been taken.
  private var lastCall: Deadline?
  /// When holding memory without getting on counts as a stall.
  var stall: Deadline?

  init(
    _ connection: Connection<Directory>, _ stream: ClientStream,
    _ session: Session<Directory.Door>, _ input: InputStream
  ) {
    self.connection = connection
    self.stream = stream
    self.session = session
    self.input = input
    traffic = connection.traffic
    mailbox = connection.mailbox
    lane = ReadLane(connection.engine, for: connection.id, bell: connection.mailbox.bell)
    door = session.door
    throttle = session.door.throttle
    format = ReplyFormat(style: session.style)
    account = MemoryAccount(
      budget: connection.budget, id: connection.id, bell: connection.mailbox.bell,
      ownBytes: connection.limits.ownBytesInFlight)
  }

  mutating func run() {
    while true {
      collect()
      // 1 everything that the input holds
      let halt = takeRequests()
      connection.requests.wrappingAdd(taken, ordering: .relaxed)
      taken = 0
      if halt == .over { return finish() }
      // 2 one call for all the reads that need the disk, one send for all replies
      lane.submit()
      let hasReleased = flush()
      if isFenced { return }
      // What the input still holds comes before what the socket holds.
      if halt == .busy && hasRoom || halt == .memory && hasReleased { continue }
      if connection.isEnding, hasHadItsTime { return }
      // 3 more input, and when there is none wait for what can go on
      if halt == .input, !inputEnded, receive() { continue }
      let isOver = connection.isEnding || inputEnded
      if halt == .input, isOver, mailbox.isIdle, output.isEmpty { return }
      guard wait(for: halt) else { return }
    }
  }

  /// What was received is carried out, whether or not anybody waits for the reply; memory that
  /// replies hold which were never sent is given back.
  mutating func close() {
    if !mailbox.isIdle || !output.isEmpty || output.isCut { stream.tear() }
    drain()
    output.cut()
    throttle?.giveBack(missingBytes, of: &turn)
    throttle?.leave(&turn)
    if output.hasFailed { door.stopLending() }
    account.close()
  }

  private func drain() {
    lane.drain()
    mailbox.drain()
  }

  // MARK: Input

  /// Whether another request may begin.
  private var hasRoom: Bool {
    output.room >= max(roomWanted, format.readHeaderBytes) && output.gathered < Self.batchBytes
      && account.held < connection.limits.bytesInFlight
      && mailbox.requestsInFlight < connection.limits.requestsInFlight
  }

  private mutating func takeRequests() -> Halt {
    while true {
      if skipping > 0 {
        skipping -= input.skip(skipping)
        if skipping > 0 { return .input }
      }
      // 1 what has begun
      if reading != nil, let halt = goOnReading() { return halt }
      if streaming != nil, let halt = goOnStreaming() { return halt }
      if collecting != nil, let halt = goOnCollecting() { return halt }
      // 2 the next request
      guard hasRoom else { return .busy }
      guard let header = input.peek(session.style.requestBytes) else { return .input }
      guard let request = Request(header, session.style), request.type != Command.disconnect else {
        return .over
      }
      if let halt = take(request) { return halt }
      taken &+= 1
      turn.next()
    }
  }

  private mutating func take(_ request: Request) -> Halt? {
    var fault = request.fault(session, connection.limits)
    if fault == nil, connection.isEnding {
      if connection.leavesRest { return .over }
      fault = NBDError(.shuttingDown, "the export is going away")
    }
    if fault == nil, throttle?.isLimiting == true, !turn.hasCome, !hasTurn(request) {
      // Of one who is gone what he wanted changed is changed, without a limit as with one, and nobody reads a reply.
      guard hasHungUp || output.isCut else { return .throttled }
      if request.countsAsWrite {
        throttle?.skipTurn(of: request, &turn)
      } else {
        fault = NBDError(.shuttingDown, "the client has hung up before its turn came")
      }
    }
    let headerBytes = session.style.requestBytes
    let wholeBytes = headerBytes + request.payloadBytes
    if let fault {
      throttle?.giveBack(&turn)
      append(format.failure(request, fault))
      // Refused bytes are read all the same: the stream stays in step.
      skipping = wholeBytes
    } else if request.payloadBytes > StreamedWrite.leastBytes {
      streaming = StreamedWrite(request, isPaid: turn.hasCome)
      _ = input.skip(headerBytes)
    } else {
      guard let whole = input.peek(wholeBytes) else { return .input }
      if let halt = perform(
        request, whole.slice(headerBytes, request.payloadBytes))
      {
        return halt
      }
      _ = input.skip(wholeBytes)
    }
    return nil
  }

  /// Whether a request may begin as far as the disk's limits go; otherwise says when it may.
  private mutating func hasTurn(_ request: Request) -> Bool {
    guard let throttle else { return true }
    let delay = throttle.delay(of: request, &turn, bell: mailbox.bell)
    turnComes = .after(microseconds: Int(clamping: delay / 1_000 + 1))
    return delay == 0
  }

  /// Receives what there is; when nothing else is under way, waits for it a moment.
  ///
  /// - Returns: false when there is nothing to receive now.
  private mutating func receive() -> Bool {
    let target = collecting?.room ?? input.free()
    defer { giveBack() }
    let isAlone =
      collecting == nil && mailbox.isIdle && output.isEmpty && account.held == 0
      && lastCall == nil && !connection.isEnding
    switch isAlone ? stream.receiveBriefly(into: target) : stream.receive(into: target) {
    case .bytes(let count):
      traffic.received.wrappingAdd(UInt64(count), ordering: .relaxed)
      if collecting == nil { input.received(count) } else { collecting?.received(count) }
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
    guard !mailbox.isIdle else { return }
    for reply in mailbox.takeReplies(after: lane.reap) { account.give(output.append(reply)) }
  }

  /// - Returns: whether memory is free again by it.
  private mutating func flush() -> Bool {
    guard !output.isEmpty else { return false }
    guard door.mayAnswer else {
      isFenced = true
      return false
    }
    traffic.sends.wrappingAdd(1, ordering: .relaxed)
    let released = output.flush(to: stream, counting: traffic.sent)
    guard released > 0 else { return false }
    account.give(released)
    stall = nil
    return true
  }

  /// Gives pages back that the client has taken.
  private mutating func giveBack() {
    guard !output.borrowed.isEmpty, let limit = stream.unreadLimit else { return }
    giveBack(unread: stream.hasBeenTaken ? 0 : limit)
  }

  /// Waits until the client has taken what it was lent, or is gone: it may still read what its socket has. Who
  /// has to go has had time.
  mutating func linger() {
    let deadline = Deadline.after(seconds: connection.limits.stallSeconds)
    while !output.borrowed.isEmpty, !stream.hasBeenTaken, !connection.isEnding, !deadline.hasPassed
    {
      let next = Deadline.after(milliseconds: Self.returnMilliseconds)
      stream.wait([], with: mailbox.bell, until: deadline.orEarlier(next))
    }
    giveBack(unread: 0)
  }

  private mutating func giveBack(unread: UInt64) {
    while let loans = output.takeReturned(unread: unread) {
      door.takeBack(loans.ticket, count: loans.count)
    }
  }

  /// What is under way is finished, and its replies are sent.
  private mutating func finish() {
    drain()
    collect()
    _ = flush()
    let deadline = Deadline.after(seconds: connection.limits.farewellSeconds)
    while !output.isEmpty, !isFenced, !deadline.hasPassed {
      stream.wait(.writable, with: mailbox.bell, until: deadline)
      _ = flush()
    }
  }

  // MARK: Waiting

  /// Whether a client whose connection is to end, and for whom nothing is under way any more, has
  /// had the time to take its replies, however much it goes on sending.
  private var hasHadItsTime: Bool {
    mutating get {
      guard mailbox.isIdle else { return false }
      let deadline = lastCall ?? .after(seconds: connection.limits.farewellSeconds)
      lastCall = deadline
      return deadline.hasPassed
    }
  }

  /// - Returns: false when the client has stalled at the cost of others.
  private mutating func wait(for halt: Halt) -> Bool {
    // Memory that is held for a client that does not send, or does not read, is others' memory.
    let isClientsTurn =
      account.held > 0 && (halt == .input && collecting != nil || !output.isEmpty)
    if !isClientsTurn {
      stall = nil
    } else if stall == nil {
      stall = .after(seconds: connection.limits.stallSeconds)
    }
    var wanted: StreamSocket.Readiness = output.isEmpty ? [] : .writable
    if halt == .input, !inputEnded { wanted.insert(.readable) }
    // The last call is for the client; what is still being done for it is waited for by the bell.
    let call = mailbox.isIdle ? lastCall : nil
    var deadline = call ?? stall ?? .never
    if halt == .throttled {
      // Nobody reads any more, so nothing else would tell.
      if output.isCut { return true }
      // It may be days until then.
      wanted.insert(.gone)
      deadline = deadline.orEarlier(turnComes)
    }
    giveBack()
    output.letFilesGo()
    if !output.borrowed.isEmpty {
      deadline = deadline.orEarlier(.after(milliseconds: Self.returnMilliseconds))
    }
    let found = stream.wait(wanted, with: mailbox.bell, until: deadline)
    if found.contains(.gone), halt == .throttled { hasHungUp = true }
    if stall?.hasPassed == true {
      if account.othersWait { return false }
      stall = nil
    }
    return true
  }
}
