internal import PloopIO

/// A large WRITE whose payload goes to the export piece by piece, as it comes in: no memory is held
/// for it, and what is copied stays in the processor's cache.
struct StreamedWrite {
  /// Shorter payloads are carried out as one, from the input.
  static let leastBytes = 128 << 10
  /// What is worth a call of its own.
  private static let pieceBytes = 64 << 10
  /// Pieces end at such places of the disk, so that no page is written in two parts.
  private static let pageBytes: UInt64 = 4096

  let request: Request
  /// Whether its bytes were charged to the disk's limits.
  let isPaid: Bool
  private(set) var done = 0

  init(_ request: Request, isPaid: Bool) {
    self.request = request
    self.isPaid = isPaid
  }

  var isComplete: Bool { missingBytes == 0 }
  var missingBytes: Int { request.payloadBytes - done }
  var offset: UInt64 { request.offset + UInt64(done) }

  /// How many of the bytes that are there to write now; nil when more should come first.
  func piece(of available: Int) -> Int? {
    let left = request.payloadBytes - done
    let count = min(available, left, StreamedWrite.pieceBytes)
    guard count < left else { return left }
    guard count == StreamedWrite.pieceBytes else { return nil }
    return count - Int((offset + UInt64(count)) % StreamedWrite.pageBytes)
  }

  mutating func wrote(_ count: Int) { done += count }
}

/// The rest of a large WRITE that cannot be written as it comes, being received into memory of its
/// own. The pages of that memory come into being as they are filled, and are granted before.
struct CollectedWrite {
  private static let grantBytes = 256 << 10

  let request: Request
  let isPaid: Bool
  /// Where the rest begins on the disk.
  let offset: UInt64
  let memory: ByteRegion
  private var granted = 0
  private var count = 0

  init(restOf write: StreamedWrite) {
    request = write.request
    isPaid = write.isPaid
    offset = write.offset
    memory = AlignedBuffer(unfilled: write.request.payloadBytes - write.done).region
  }

  var isComplete: Bool { count == memory.count }
  var missingBytes: Int { memory.count - count }
  /// Where bytes may be received now.
  var room: ByteRegion { memory.slice(count, granted - count) }
  var nextGrant: Int { min(CollectedWrite.grantBytes, memory.count - granted) }

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

/// A large READ that is answered chunk by chunk as there is room.
struct StreamedRead {
  static let chunkBytes = 256 << 10
  /// Fewer bytes are copied sooner than the calls for lending them are made.
  static let leastLentBytes = 64 << 10
  private static let mostLentBytes = 1 << 20

  let request: Request
  private(set) var done = 0

  init(_ request: Request) { self.request = request }

  var isComplete: Bool { done == Int(request.length) }
  /// What may be lent next.
  var nextToLend: ReadPart {
    ReadPart(
      request: request, start: done,
      count: min(StreamedRead.mostLentBytes, Int(request.length) - done))
  }
  /// The part that comes next.
  var next: ReadPart {
    ReadPart(
      request: request, start: done, count: min(StreamedRead.chunkBytes, Int(request.length) - done)
    )
  }
  /// Everything that is left.
  var rest: ReadPart {
    ReadPart(request: request, start: done, count: Int(request.length) - done)
  }

  mutating func sent(_ count: Int) { done += count }
}

extension Transmission {
  /// - Returns: nil once the write has begun to be answered.
  mutating func goOnStreaming() -> Halt? {
    while let write = streaming, !write.isComplete {
      guard let count = write.piece(of: input.available), let piece = input.peek(count) else {
        return .input
      }
      guard door.writeNow(piece, at: write.offset) else {
        streaming = nil
        collecting = CollectedWrite(restOf: write)
        return nil
      }
      _ = input.skip(count)
      streaming?.wrote(count)
    }
    guard let request = streaming?.request else { return nil }
    streaming = nil
    written(request)
    return nil
  }

  /// Goes on with what cannot be written as it comes, as memory is granted for it.
  ///
  /// - Returns: nil once its request has begun.
  mutating func goOnCollecting() -> Halt? {
    guard var pending = collecting else { return nil }
    while !pending.isComplete {
      if pending.room.count == 0 {
        guard account.take(pending.nextGrant) else {
          collecting = pending
          return .memory
        }
        pending.grant()
      }
      guard pending.fill(from: &input) else {
        collecting = pending
        return .input
      }
    }
    collecting = nil
    stall = nil
    writeSlowly(pending.request, pending.memory, at: pending.offset)
    return nil
  }

  /// - Returns: nil once the last chunk has been read, or has begun to be.
  mutating func goOnReading() -> Halt? {
    while let read = reading, !read.isComplete {
      if canBorrow, let count = borrow(read.nextToLend) {
        reading?.sent(count)
        continue
      }
      let part = read.next
      roomWanted = format.readHeaderBytes + part.count
      guard output.gathered < Self.batchBytes, output.room >= roomWanted else { return .busy }
      guard readNow(part) else {
        guard readSlowly(read.rest) else { return .memory }
        break
      }
      reading?.sent(part.count)
    }
    roomWanted = 0
    reading = nil
    return nil
  }

  /// Of the payload of a request that is being taken, and paid for: what has not been received.
  var missingBytes: Int {
    var missing = 0
    if let streaming {
      missing = streaming.isPaid ? streaming.missingBytes : 0
    } else if let collecting {
      missing = collecting.isPaid ? collecting.missingBytes : 0
    } else if turn.hasCome, let header = input.peek(session.style.requestBytes),
      let request = Request(header, session.style)
    {
      missing = session.style.requestBytes + request.payloadBytes
    }
    return max(0, missing - input.available)
  }

  // MARK: Lent pages

  /// Whether it can be told when the client has taken them.
  var canBorrow: Bool { stream.unreadLimit != nil }

  /// Answers a part with pages that are not copied, or its beginning if it may be split.
  ///
  /// - Returns: bytes of the part that are answered so; nil, with nothing done, when they have to be copied.
  mutating func borrow(_ part: ReadPart) -> Int? {
    let least = part.mayBeSplit(format) ? StreamedRead.leastLentBytes : part.count
    guard part.count >= least, let header = output.reserve(format.readHeaderBytes),
      let loan = loan(part, least: least)
    else { return nil }
    let lent = ReadPart(request: part.request, start: part.start, count: loan.piece.count)
    format.putReadHeader(lent, in: header)
    output.commit(header.count)
    output.append(loan)
    return lent.count
  }

  private mutating func loan(_ part: ReadPart, least: Int) -> PageLoan? {
    while true {
      switch door.lendNow(
        part.count, least: least, at: part.offset, holding: output.borrowed.holding)
      {
      case .lent(let loan): return loan
      case .needs(let files): guard output.hold(files) else { return nil }
      case .nothing: return nil
      }
    }
  }
}
