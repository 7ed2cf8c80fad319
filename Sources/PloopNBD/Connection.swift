internal import PloopIO
internal import Synchronization

/// One client: a thread that receives as many requests as the socket holds, answers what is quick
/// in place, gathers the replies, and sends them with one call. Slow requests go to the engine and
/// are answered when they are done, in whatever order.
final class Connection<Directory: ExportDirectory>: Sendable {
  private static var inputBytes: Int { 256 << 10 }
  private static var outputBytes: Int { 1 << 20 }
  /// Larger reads go to the engine with memory of their own.
  private static var inlineReadBytes: Int { 256 << 10 }

  let id: UInt64
  let socket: StreamSocket
  let mailbox: Mailbox
  /// Wall-clock seconds since 1970.
  let since: Double
  let received = Atomic<UInt64>(0)
  let sent = Atomic<UInt64>(0)
  /// No further request is carried out; the connection ends once the others are answered.
  let isEnding = Atomic<Bool>(false)
  private let exportName = Locked<[UInt8]?>(nil)
  private let directory: Directory
  private let engine: IOEngine
  private let limits: Limits

  init(
    id: UInt64, socket: StreamSocket, directory: Directory, engine: IOEngine, limits: Limits,
    since: Double
  ) throws(IOError) {
    self.id = id
    self.socket = socket
    self.directory = directory
    self.engine = engine
    self.limits = limits
    self.since = since
    mailbox = try Mailbox()
  }

  /// The export that the client is using, once the handshake is over.
  var export: [UInt8]? { exportName.withLock { $0 } }

  func end() {
    isEnding.store(true, ordering: .sequentiallyConsistent)
    mailbox.bell.ring()
  }

  /// The connection's whole life; returns when it is over.
  func run() {
    let input = AlignedBuffer(count: Self.inputBytes)
    var stream = InputStream(region: input.region)
    if let session = shakeHands(&stream) {
      exportName.withLock { $0 = session.name }
      transmit(session, &stream)
      // What was received is carried out, whether or not anybody waits for the reply.
      mailbox.drain()
      exportName.withLock { $0 = nil }
    }
    socket.shutDown()
  }

  // MARK: Handshake

  private func shakeHands(_ stream: inout InputStream) -> Session<Directory.Door>? {
    let deadline = Deadline.after(seconds: limits.handshakeSeconds)
    var greeting = MessageWriter()
    greeting.append(Greeting.magic)
    greeting.append(Greeting.optionMagic)
    greeting.append(Greeting.fixedNewstyle | Greeting.noZeroes)
    guard send(greeting.bytes, until: deadline),
      let flags = take(4, &stream, until: deadline)?.bigEndian(at: 0, as: UInt32.self),
      Handshake<Directory>.accepts(clientFlags: flags)
    else { return nil }
    var handshake = Handshake(directory: directory, limits: limits, clientFlags: flags)
    while let header = take(16, &stream, until: deadline) {
      guard header.bigEndian(at: 0, as: UInt64.self) == Greeting.optionMagic else { return nil }
      let option = header.bigEndian(at: 8, as: UInt32.self)
      let length = Int(header.bigEndian(at: 12, as: UInt32.self))
      guard length <= limits.optionDrainBytes else { return nil }
      var data: [UInt8]?
      if length <= limits.optionBytes {
        guard let region = take(length, &stream, until: deadline) else { return nil }
        data = region.bytes
      } else {
        guard drain(length, &stream, until: deadline) else { return nil }
      }
      var out = MessageWriter()
      let outcome = handshake.receive(option: option, data: data, into: &out)
      guard send(out.bytes, until: deadline) else { return nil }
      switch outcome {
      case .again: continue
      case .close: return nil
      case .transmit(let session): return session
      }
    }
    return nil
  }

  /// The next `count` bytes, at most as many as the input holds, once they are all there.
  private func take(
    _ count: Int, _ stream: inout InputStream, until deadline: Deadline
  ) -> ByteRegion? {
    while stream.available < count {
      guard receiveMore(&stream, until: deadline) else { return nil }
    }
    return stream.take(count)
  }

  private func drain(_ count: Int, _ stream: inout InputStream, until deadline: Deadline) -> Bool {
    var left = count
    while left > 0 {
      if stream.available == 0, !receiveMore(&stream, until: deadline) { return false }
      left -= stream.skip(left)
    }
    return true
  }

  private func receiveMore(_ stream: inout InputStream, until deadline: Deadline) -> Bool {
    while true {
      guard !isEnding.load(ordering: .acquiring), !deadline.hasPassed else { return false }
      switch socket.receive(into: stream.free()) {
      case .bytes(let count):
        stream.received(count)
        received.wrappingAdd(UInt64(count), ordering: .relaxed)
        return true
      case .ended: return false
      case .wouldBlock: _ = socket.wait(.readable, with: mailbox.bell, until: deadline)
      }
    }
  }

  private func send(_ bytes: [UInt8], until deadline: Deadline) -> Bool {
    let region = AlignedBuffer(bytes).region
    var done = 0
    while done < region.count {
      switch socket.send(region.slice(done, region.count - done)) {
      case .bytes(let count):
        done += count
        sent.wrappingAdd(UInt64(count), ordering: .relaxed)
      case .ended: return false
      case .wouldBlock:
        guard !deadline.hasPassed else { return false }
        _ = socket.wait(.writable, with: mailbox.bell, until: deadline)
      }
    }
    return true
  }

  // MARK: Transmission

  private func transmit(_ session: Session<Directory.Door>, _ stream: inout InputStream) {
    let format = ReplyFormat(structured: session.structured)
    var output = OutputStream(AlignedBuffer(count: Self.outputBytes).region)
    var holes = HoleList()
    var payload: PendingPayload?
    var skipping = 0
    var endOfInput = false
    // Once ending, a client that does not read is given this long to take its last replies.
    var lastCall: Deadline?

    while true {
      for reply in mailbox.takeReplies() { output.append(reply) }
      // 1 everything that the input holds, as long as replies have room and slow work is bounded
      parsing: while output.hasRoom, !isFull {
        if skipping > 0 {
          skipping -= stream.skip(skipping)
          if skipping > 0 { break parsing }
          continue
        }
        if var pending = payload {
          pending.fill(from: &stream)
          payload = pending.isComplete ? nil : pending
          guard pending.isComplete else { break parsing }
          write(pending.request, pending.memory.region, session, format, &output)
          continue
        }
        guard let header = stream.peek(RequestHeader.byteCount) else { break }
        guard let request = Request(header) else { return finish(&output) }
        _ = stream.skip(RequestHeader.byteCount)
        if request.type == Command.disconnect { return finish(&output) }
        var fault = request.fault(session, limits)
        if fault == nil, isEnding.load(ordering: .acquiring) {
          fault = NBDError(.shuttingDown, "the export is going away")
        }
        if let fault {
          output.append(format.failure(request, fault))
          // Refused bytes are read all the same: the stream stays in step.
          skipping = request.payloadBytes
          continue
        }
        if request.type == Command.write {
          if let region = stream.peek(request.payloadBytes) {
            write(request, region, session, format, &output)
            _ = stream.skip(request.payloadBytes)
          } else {
            payload = PendingPayload(request)
          }
        } else {
          perform(request, session, format, &output, &holes)
        }
      }
      let wasStopped = !output.hasRoom || isFull
      // 2 one send for all of it
      guard output.flush(to: socket, counting: sent) else { return }
      // What the input still holds comes before what the socket holds.
      if wasStopped, output.hasRoom, !isFull { continue }
      // 3 wait for what can go on
      if isEnding.load(ordering: .acquiring) {
        lastCall = lastCall ?? .after(seconds: 2)
        if mailbox.isIdle, output.isEmpty { return }
        if lastCall?.hasPassed == true { return }
      }
      if endOfInput, mailbox.isIdle, output.isEmpty { return }
      if !output.isEmpty || !mailbox.takesMore(limits) || endOfInput {
        var wanted: StreamSocket.Readiness = output.isEmpty ? [] : .writable
        if mailbox.takesMore(limits), output.hasRoom, !endOfInput { wanted.insert(.readable) }
        let found = socket.wait(wanted, with: mailbox.bell, until: lastCall ?? .never)
        if found.contains(.gone) { return }
        if !found.contains(.readable) { continue }
      }
      guard output.hasRoom, mailbox.takesMore(limits), !endOfInput else { continue }
      let room = payload?.rest ?? stream.free()
      switch socket.receive(into: room) {
      case .bytes(let count):
        received.wrappingAdd(UInt64(count), ordering: .relaxed)
        if payload != nil { payload?.received(count) } else { stream.received(count) }
      case .ended: endOfInput = true
      case .wouldBlock:
        let found = socket.wait(
          output.isEmpty ? .readable : [.readable, .writable], with: mailbox.bell,
          until: lastCall ?? .never)
        if found.contains(.gone), !found.contains(.readable) { return }
      }
    }
  }

  private var isFull: Bool { !mailbox.takesMore(limits) }

  /// DISC, or a stream out of step: what is under way is finished, and its replies are sent.
  private func finish(_ output: inout OutputStream) {
    mailbox.drain()
    for reply in mailbox.takeReplies() { output.append(reply) }
    let deadline = Deadline.after(seconds: 2)
    while !output.isEmpty, output.flush(to: socket, counting: sent), !output.isEmpty,
      !deadline.hasPassed
    {
      _ = socket.wait(.writable, with: mailbox.bell, until: deadline)
    }
  }

  // MARK: Requests

  private func write(
    _ request: Request, _ region: ByteRegion, _ session: Session<Directory.Door>,
    _ format: ReplyFormat, _ output: inout OutputStream
  ) {
    if !request.isDurable, session.door.writeNow(region, at: request.offset) {
      return output.append(format.success(request))
    }
    // The input buffer is used again at once; slow work has its own copy.
    let copy = AlignedBuffer(count: region.count)
    copy.region.copy(from: region)
    slow(request, format, bytes: copy.count) { () throws(NBDError) in
      try session.door.write(copy.region, at: request.offset, durable: request.isDurable)
      return nil
    }
  }

  private func perform(
    _ request: Request, _ session: Session<Directory.Door>, _ format: ReplyFormat,
    _ output: inout OutputStream, _ holes: inout HoleList
  ) {
    let door = session.door
    let length = UInt64(request.length)
    switch request.type {
    case Command.read: read(request, session, format, &output, &holes)
    case Command.flush:
      slow(request, format) { () throws(NBDError) in
        try door.flush()
        return nil
      }
    case Command.trim:
      slow(request, format) { () throws(NBDError) in
        try door.trim(offset: request.offset, length: length, durable: request.isDurable)
        return nil
      }
    case Command.cache:
      slow(request, format) { () throws(NBDError) in
        try door.cache(offset: request.offset, length: length)
        return nil
      }
    case Command.writeZeroes:
      var mode: ZeroMode = []
      if request.flags & CommandFlags.noHole != 0 { mode.insert(.keepAllocated) }
      if request.flags & CommandFlags.fastZero != 0 { mode.insert(.onlyIfFast) }
      slow(request, format) { [mode] () throws(NBDError) in
        try door.writeZeroes(
          offset: request.offset, length: length, mode: mode, durable: request.isDurable)
        return nil
      }
    default:
      let limit = request.flags & CommandFlags.requireOne != 0 ? 1 : limits.extentsPerReply
      slow(request, format) { () throws(NBDError) in
        format.status(
          request, try door.extents(offset: request.offset, length: length, limit: limit))
      }
    }
  }

  private func read(
    _ request: Request, _ session: Session<Directory.Door>, _ format: ReplyFormat,
    _ output: inout OutputStream, _ holes: inout HoleList
  ) {
    let length = Int(request.length)
    guard length > 0 else { return output.append(format.nothing(request)) }
    let sparse = format.structured && request.flags & CommandFlags.dontFragment == 0
    let header = format.readHeaderBytes
    if length <= Self.inlineReadBytes, let out = output.reserve(header + length) {
      holes.clear()
      let data = out.slice(header, length)
      if session.door.readNow(into: data, at: request.offset, holes: &holes) {
        if sparse, !holes.runs.isEmpty {
          let chunks = format.sparse(request, data, holes.runs)
          output.append(chunks)
        } else {
          format.putReadHeader(request, in: out)
          output.commit(out.count)
        }
        return
      }
    }
    slow(request, format, bytes: length) { () throws(NBDError) in
      let buffer = AlignedBuffer(count: header + length)
      var holes = HoleList()
      let data = buffer.region.slice(header, length)
      try session.door.read(into: data, at: request.offset, holes: &holes)
      if sparse, !holes.runs.isEmpty { return format.sparse(request, data, holes.runs) }
      format.putReadHeader(request, in: buffer.region)
      return buffer.region.bytes
    }
  }

  /// Has the engine do `body`; what it returns is the reply, nil stands for plain success.
  private func slow(
    _ request: Request, _ format: ReplyFormat, bytes: Int = 0,
    _ body: @escaping @Sendable () throws(NBDError) -> [UInt8]?
  ) {
    mailbox.begin(bytes: bytes)
    engine.submit { [mailbox] in
      var reply: [UInt8]
      do throws(NBDError) {
        reply = try body() ?? format.success(request)
      } catch {
        reply = format.failure(request, error)
      }
      mailbox.end(reply, bytes: bytes)
    }
  }
}

extension Mailbox {
  /// Whether another request may begin.
  func takesMore(_ limits: Limits) -> Bool {
    let now = inFlight
    return now.requests < limits.requestsInFlight && now.bytes < limits.bytesInFlight
  }
}

/// A WRITE whose payload is larger than the input holds, being received into memory of its own.
private struct PendingPayload {
  let request: Request
  let memory: AlignedBuffer
  private var count = 0

  init(_ request: Request) {
    self.request = request
    memory = AlignedBuffer(count: request.payloadBytes)
  }

  var isComplete: Bool { count == memory.count }
  var rest: ByteRegion { memory.region.slice(count, memory.count - count) }

  mutating func received(_ more: Int) { count += more }

  mutating func fill(from stream: inout InputStream) {
    let more = min(stream.available, memory.count - count)
    guard more > 0, let part = stream.peek(more) else { return }
    memory.region.copy(from: part, at: count)
    _ = stream.skip(more)
    count += more
  }
}
