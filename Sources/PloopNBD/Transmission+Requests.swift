internal import PloopIO

/// What each request does: at once where the export can, otherwise on the engine.
extension Transmission {
  /// No export describes smaller pieces than a sector.
  private static var leastExtentBytes: Int { 512 }

  /// - Parameter data: what a WRITE carries; its memory is used again after the call.
  /// - Returns: nil when the request has begun; otherwise nothing of it has been done.
  mutating func perform(_ request: Request, _ data: ByteRegion) -> Halt? {
    guard request.length > 0 || request.type == Command.flush else {
      append(format.nothing(request))
      return nil
    }
    switch request.type {
    case Command.read: return read(request)
    case Command.write: return write(request, data)
    case Command.blockStatus: return status(request, data)
    default: change(request)
    }
    return nil
  }

  /// What the engine does, and what is answered with its success alone.
  private func change(_ request: Request) {
    let door = self.door
    switch request.type {
    case Command.flush:
      slow(request) { () throws(NBDError) in
        try door.flush()
        return nil
      }
    case Command.trim:
      inParts(request) { (part) throws(NBDError) in
        try door.trim(
          offset: part.offset, length: part.length, durable: request.isDurable && part.isLast)
      }
    case Command.cache:
      inParts(request) { (part) throws(NBDError) in
        try door.cache(offset: part.offset, length: part.length)
      }
    default:  // WRITE_ZEROES, the only one left that a request without a fault can be
      var mode: ZeroMode = []
      if request.flags & CommandFlags.noHole != 0 { mode.insert(.keepAllocated) }
      if request.flags & CommandFlags.fastZero != 0 { mode.insert(.onlyIfFast) }
      inParts(request) { [mode] (part) throws(NBDError) in
        // Nothing is changed where the last part could not be fast.
        if part.isFirst, !part.isLast, mode.contains(.onlyIfFast) {
          try door.requireFastZero(offset: request.offset, length: request.length)
        }
        try door.writeZeroes(
          offset: part.offset, length: part.length, mode: mode,
          durable: request.isDurable && part.isLast)
      }
    }
  }

  /// Has the engine carry a request out part by part, each when requests are admitted: one for a whole disk neither
  /// keeps everybody waiting who waits for those inside, nor holds a thread while the disk is suspended.
  private func inParts(
    _ request: Request, _ body: @escaping @Sendable (RequestPart) throws(NBDError) -> Void
  ) {
    let (connection, format, door) = (self.connection, self.format, self.door)
    let (engine, party, mailbox) = (connection.engine, connection.id, connection.mailbox)
    let start = mailbox.begin()
    @Sendable func begin(_ part: RequestPart) {
      door.perform(on: engine, for: party, isChange: request.type != Command.cache) {
        let reply: ByteRegion
        do throws(NBDError) {
          try body(part)
          if let next = part.next { return begin(next) }
          reply = format.success(request)
        } catch {
          reply = connection.refusal(of: request, error, format)
        }
        mailbox.end(Reply(region: reply, charge: 0), begunAt: start)
      }
    }
    begin(RequestPart(firstOf: request))
  }

  // MARK: Reading

  private mutating func read(_ request: Request) -> Halt? {
    let whole = ReadPart(request: request, start: 0, count: Int(request.length))
    let isLarge =
      whole.count > (canBorrow ? StreamedRead.leastLentBytes - 1 : StreamedRead.chunkBytes)
    if isLarge, whole.mayBeSplit(format) {
      reading = StreamedRead(request)
      return nil
    }
    if isLarge, canBorrow, borrow(whole) != nil { return nil }
    let needed = format.readHeaderBytes + whole.count
    if needed <= output.capacity {
      guard output.room >= needed else {
        roomWanted = needed
        return .busy
      }
      roomWanted = 0
      if readNow(whole) { return nil }
    }
    return readSlowly(whole) ? nil : .memory
  }

  /// Reads into the output what the page cache holds.
  ///
  /// - Returns: false, with nothing added, when a disk would be waited for or there is no room.
  mutating func readNow(_ part: ReadPart) -> Bool {
    let header = format.readHeaderBytes
    guard let out = output.reserve(header + part.count) else { return false }
    holes.clear()
    let data = out.slice(header, part.count)
    guard door.readNow(into: data, at: part.offset, holes: &holes) else { return false }
    if holes.runs.isEmpty || !part.mayBeSplit(format) {
      format.putReadHeader(part, in: out)
      output.commit(out.count)
    } else {
      append(format.sparse(part, data, holes.runs))
    }
    return true
  }

  /// Reads into memory of the request's own, on the lane or, where that would wait, on the engine.
  ///
  /// - Returns: false, with nothing done, when there is no memory for it now.
  mutating func readSlowly(_ part: ReadPart) -> Bool {
    let format = self.format
    let header = format.readHeaderBytes
    let charge = header + part.count
    guard account.take(charge) else { return false }
    let (door, connection, mailbox) = (self.door, self.connection, self.mailbox)
    let whole = AlignedBuffer(unfilled: charge).region
    let data = whole.slice(header, part.count)
    let start = mailbox.begin()
    @Sendable func end(_ result: Result<HoleList, NBDError>) {
      let reply: ByteRegion
      switch result {
      case .success(let holes) where holes.runs.isEmpty || !part.mayBeSplit(format):
        format.putReadHeader(part, in: whole)
        reply = whole
      case .success(let holes): reply = format.sparse(part, data, holes.runs)
      case .failure(let error): reply = connection.refusal(of: part.request, error, format)
      }
      mailbox.end(Reply(region: reply, charge: charge), begunAt: start)
    }
    if door.beginRead(into: data, at: part.offset, on: lane, completion: end) { return true }
    door.perform(on: connection.engine, for: connection.id) {
      var holes = HoleList()
      do throws(NBDError) {
        try door.read(into: data, at: part.offset, holes: &holes)
        end(.success(holes))
      } catch {
        end(.failure(error))
      }
    }
    return true
  }

  // MARK: Writing

  private mutating func write(_ request: Request, _ data: ByteRegion) -> Halt? {
    if door.writeNow(data, at: request.offset) {
      written(request)
      return nil
    }
    guard account.take(data.count) else { return .memory }
    let copy = AlignedBuffer(unfilled: data.count).region
    copy.copy(from: data)
    writeSlowly(request, copy, at: request.offset)
    return nil
  }

  /// All bytes of the write are where later reads find them.
  mutating func written(_ request: Request) {
    guard request.isDurable else { return appendSuccess(request) }
    let door = self.door
    slow(request) { () throws(NBDError) in
      try door.commit()
      return nil
    }
  }

  /// - Parameters:
  ///   - memory: the bytes, granted by the account, and the request's alone.
  ///   - offset: where they belong: behind the request's own when a part has been written.
  func writeSlowly(_ request: Request, _ memory: ByteRegion, at offset: UInt64) {
    let door = self.door
    slow(request, charge: memory.count, isChange: true) { () throws(NBDError) in
      try door.write(memory, at: offset, durable: request.isDurable)
      return nil
    }
  }

  private mutating func appendSuccess(_ request: Request) {
    guard let out = output.reserve(format.successBytes) else {
      return append(format.success(request))
    }
    format.putSuccess(request, in: out)
    output.commit(out.count)
  }

  // MARK: Everything else

  /// - Parameter data: what a selective one carries.
  private mutating func status(_ request: Request, _ data: ByteRegion) -> Halt? {
    guard request.isSelective else { return status(request, session.contexts) }
    do throws(NBDError) {
      let (length, contexts) = try StatusSelection(data).resolved(session.contexts)
      let plain = request.asking(length)
      if let fault = plain.fault(session, connection.limits) { throw fault }
      return status(plain, contexts)
    } catch {
      append(format.failure(request, error))
      return nil
    }
  }

  private mutating func status(_ request: Request, _ contexts: [SelectedContext]) -> Halt? {
    let length = request.length
    let most = min(
      UInt64(connection.limits.extentsPerReply), length / UInt64(Self.leastExtentBytes) + 2)
    let limit = request.flags & CommandFlags.requireOne != 0 ? 1 : Int(most)
    if contexts.count == 1, case .allocation = contexts[0].context,
      let extents = door.extentsNow(offset: request.offset, length: length, limit: limit)
    {
      append(format.status(request, [(contexts[0].id, extents.map(Context.run))]))
      return nil
    }
    let share = max(1, limit / contexts.count)
    let charge = format.statusBytes(share) * contexts.count
    guard account.take(charge) else { return .memory }
    let door = self.door
    let format = self.format
    slow(request, charge: charge) { () throws(NBDError) in
      var statuses: [(id: UInt32, runs: [StatusRun])] = []
      for selected in contexts {
        statuses.append(
          (
            selected.id,
            try selected.context.runs(
              of: door, offset: request.offset, length: length, limit: share)
          ))
      }
      return format.status(request, statuses)
    }
    return nil
  }

  /// Has the engine do `body`; what it returns is the reply, nil stands for plain success.
  ///
  /// - Parameters:
  ///   - charge: bytes of memory that were granted for it.
  ///   - isChange: whether it changes the disk.
  private func slow(
    _ request: Request, charge: Int = 0, isChange: Bool = false,
    _ body: @escaping @Sendable () throws(NBDError) -> ByteRegion?
  ) {
    let start = mailbox.begin()
    door.perform(on: connection.engine, for: connection.id, isChange: isChange) {
      [format, connection, mailbox] in
      let reply: ByteRegion
      do throws(NBDError) {
        reply = try body() ?? format.success(request)
      } catch {
        reply = connection.refusal(of: request, error, format)
      }
      mailbox.end(Reply(region: reply, charge: charge), begunAt: start)
    }
  }
}

extension Connection {
  /// What a request is answered with that has failed: nothing where it was turned away since the disk is closed, and
  /// whoever asked is to ask another process.
  fileprivate func refusal(
    of request: Request, _ error: NBDError, _ format: ReplyFormat
  ) -> ByteRegion {
    if error.kind == .shuttingDown, leavesRest { return AlignedBuffer(unfilled: 0).region }
    return format.failure(request, error)
  }
}

/// A part of a request that may be for a whole disk.
struct RequestPart: Sendable {
  /// Parts end at multiples of it, so that no cluster is cut.
  private static let bytes: UInt64 = 1 << 30

  private let request: Request
  private let start: UInt64
  private let end: UInt64

  init(firstOf request: Request) { self.init(request, from: request.offset) }

  private init(_ request: Request, from start: UInt64) {
    self.request = request
    self.start = start
    // The request lies within the export, whose size is far from 2^64.
    end = min(request.offset + request.length, (start / RequestPart.bytes + 1) * RequestPart.bytes)
  }

  var offset: UInt64 { start }
  var length: UInt64 { end - start }
  var isFirst: Bool { start == request.offset }
  var isLast: Bool { end == request.offset + request.length }
  var next: RequestPart? { isLast ? nil : RequestPart(request, from: end) }
}
