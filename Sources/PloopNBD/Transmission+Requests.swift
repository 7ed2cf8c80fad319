internal import PloopIO

/// What each request does: at once where the export can, otherwise on the engine.
extension Transmission {
  /// Larger reads go to the engine with memory of their own.
  private static var inlineReadBytes: Int { 256 << 10 }
  /// No export describes smaller pieces than a sector.
  private static var leastExtentBytes: Int { 512 }

  /// - Parameter data: what a WRITE carries; its memory is used again after the call.
  /// - Returns: false, with nothing done, when there is no memory for it now.
  mutating func perform(_ request: Request, _ data: ByteRegion) -> Bool {
    guard request.length > 0 || request.type == Command.flush else {
      append(format.nothing(request))
      return true
    }
    let door = session.door
    let length = UInt64(request.length)
    switch request.type {
    case Command.read: return read(request)
    case Command.write: return write(request, data)
    case Command.flush:
      slow(request) { () throws(NBDError) in
        try door.flush()
        return nil
      }
    case Command.trim:
      slow(request) { () throws(NBDError) in
        try door.trim(offset: request.offset, length: length, durable: request.isDurable)
        return nil
      }
    case Command.cache:
      slow(request) { () throws(NBDError) in
        try door.cache(offset: request.offset, length: length)
        return nil
      }
    case Command.writeZeroes:
      var mode: ZeroMode = []
      if request.flags & CommandFlags.noHole != 0 { mode.insert(.keepAllocated) }
      if request.flags & CommandFlags.fastZero != 0 { mode.insert(.onlyIfFast) }
      slow(request) { [mode] () throws(NBDError) in
        try door.writeZeroes(
          offset: request.offset, length: length, mode: mode, durable: request.isDurable)
        return nil
      }
    default: return status(request)
    }
    return true
  }

  private mutating func read(_ request: Request) -> Bool {
    let length = Int(request.length)
    let door = session.door
    let format = self.format
    let sparse = format.structured && request.flags & CommandFlags.dontFragment == 0
    let header = format.readHeaderBytes
    if length <= Self.inlineReadBytes, let out = output.reserve(header + length) {
      holes.clear()
      let data = out.slice(header, length)
      if door.readNow(into: data, at: request.offset, holes: &holes) {
        if sparse, !holes.runs.isEmpty {
          append(format.sparse(request, data, holes.runs))
        } else {
          format.putReadHeader(request, in: out)
          output.commit(out.count)
        }
        return true
      }
    }
    guard account.take(header + length) else { return false }
    slow(request, charge: header + length) { () throws(NBDError) in
      let whole = AlignedBuffer(unfilled: header + length).region
      var holes = HoleList()
      let data = whole.slice(header, length)
      try door.read(into: data, at: request.offset, holes: &holes)
      if sparse, !holes.runs.isEmpty { return format.sparse(request, data, holes.runs) }
      format.putReadHeader(request, in: whole)
      return whole
    }
    return true
  }

  private mutating func write(_ request: Request, _ data: ByteRegion) -> Bool {
    if !request.isDurable, session.door.writeNow(data, at: request.offset) {
      append(format.success(request))
      return true
    }
    guard account.take(data.count) else { return false }
    let copy = AlignedBuffer(unfilled: data.count).region
    copy.copy(from: data)
    writeSlowly(request, copy)
    return true
  }

  /// - Parameter memory: the whole payload, granted by the account, and the request's alone.
  mutating func write(_ request: Request, granted memory: ByteRegion) {
    if !request.isDurable, session.door.writeNow(memory, at: request.offset) {
      account.give(memory.count)
      return append(format.success(request))
    }
    writeSlowly(request, memory)
  }

  private func writeSlowly(_ request: Request, _ memory: ByteRegion) {
    let door = session.door
    slow(request, charge: memory.count) { () throws(NBDError) in
      try door.write(memory, at: request.offset, durable: request.isDurable)
      return nil
    }
  }

  private mutating func status(_ request: Request) -> Bool {
    let most = min(
      connection.limits.extentsPerReply, Int(request.length) / Self.leastExtentBytes + 2)
    let limit = request.flags & CommandFlags.requireOne != 0 ? 1 : most
    let charge = Chunk.byteCount + 4 + limit * 8
    guard account.take(charge) else { return false }
    let door = session.door
    let format = self.format
    slow(request, charge: charge) { () throws(NBDError) in
      format.status(
        request,
        try door.extents(offset: request.offset, length: UInt64(request.length), limit: limit))
    }
    return true
  }

  /// Has the engine do `body`; what it returns is the reply, nil stands for plain success.
  ///
  /// - Parameter charge: bytes of memory that were granted for it.
  private func slow(
    _ request: Request, charge: Int = 0,
    _ body: @escaping @Sendable () throws(NBDError) -> ByteRegion?
  ) {
    let mailbox = connection.mailbox
    mailbox.begin()
    connection.engine.submit { [format] in
      let reply: ByteRegion
      do throws(NBDError) {
        reply = try body() ?? format.success(request)
      } catch {
        reply = format.failure(request, error)
      }
      mailbox.end(Reply(region: reply, charge: charge))
    }
  }
}
