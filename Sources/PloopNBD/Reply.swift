internal import PloopIO

/// A part of a READ that is answered on its own; often all of it.
struct ReadPart: Sendable {
  let request: Request
  /// Bytes of the request before it.
  let start: Int
  let count: Int

  var offset: UInt64 { request.offset + UInt64(start) }
  /// Whether the request is answered once this part is.
  var isLast: Bool { start + count == Int(request.length) }

  /// Whether it may be answered in several chunks.
  func mayBeSplit(_ format: ReplyFormat) -> Bool {
    format.structured && request.flags & CommandFlags.dontFragment == 0
  }
}

/// Lays replies out in memory that is then sent as it is.
struct ReplyFormat: Sendable {
  let structured: Bool

  /// Bytes before the data of a read.
  var readHeaderBytes: Int { structured ? Chunk.byteCount + 8 : SimpleReply.byteCount }

  static func putSimple(_ error: UInt32, _ cookie: UInt64, in out: ByteRegion) {
    out.setBigEndian(SimpleReply.magic, at: 0)
    out.setBigEndian(error, at: 4)
    out.setBigEndian(cookie, at: 8)
  }

  static func putChunk(
    _ type: UInt16, done: Bool, _ cookie: UInt64, length: Int, in out: ByteRegion
  ) {
    out.setBigEndian(Chunk.magic, at: 0)
    out.setBigEndian(done ? Chunk.done : 0, at: 4)
    out.setBigEndian(type, at: 6)
    out.setBigEndian(cookie, at: 8)
    out.setBigEndian(UInt32(clamping: length), at: 16)
  }

  /// The header before a part's data as one piece.
  func putReadHeader(_ part: ReadPart, in out: ByteRegion) {
    guard structured else { return ReplyFormat.putSimple(0, part.request.cookie, in: out) }
    ReplyFormat.putChunk(
      Chunk.offsetData, done: part.isLast, part.request.cookie, length: part.count + 8, in: out)
    out.setBigEndian(part.offset, at: Chunk.byteCount)
  }

  func success(_ request: Request) -> ByteRegion {
    let out = AlignedBuffer(unfilled: SimpleReply.byteCount).region
    ReplyFormat.putSimple(0, request.cookie, in: out)
    return out
  }

  /// A lone NONE chunk: the reply to a read of no bytes.
  func nothing(_ request: Request) -> ByteRegion {
    guard structured else { return success(request) }
    let out = AlignedBuffer(unfilled: Chunk.byteCount).region
    ReplyFormat.putChunk(Chunk.none, done: true, request.cookie, length: 0, in: out)
    return out
  }

  /// With words for a person, and the place where a read failed, if the client can take them.
  func failure(_ request: Request, _ error: NBDError) -> ByteRegion {
    guard structured else {
      let out = AlignedBuffer(unfilled: SimpleReply.byteCount).region
      ReplyFormat.putSimple(error.number(for: request), request.cookie, in: out)
      return out
    }
    let words = AlignedBuffer(error.message.wireBytes(limit: 1024)).region
    let place = request.type == Command.read ? error.offset.filter(request.contains) : nil
    let length = 6 + words.count + (place == nil ? 0 : 8)
    let out = AlignedBuffer(unfilled: Chunk.byteCount + length).region
    ReplyFormat.putChunk(
      place == nil ? Chunk.error : Chunk.errorOffset, done: true, request.cookie, length: length,
      in: out)
    out.setBigEndian(error.number(for: request), at: 20)
    out.setBigEndian(UInt16(clamping: words.count), at: 24)
    out.copy(from: words, at: 26)
    if let place { out.setBigEndian(place, at: 26 + words.count) }
    return out
  }

  /// One chunk for each context.
  func status(_ request: Request, _ statuses: [(id: UInt32, runs: [StatusRun])]) -> ByteRegion {
    let bytes = statuses.reduce(0) { $0 + ReplyFormat.statusBytes($1.runs.count) }
    let out = AlignedBuffer(unfilled: bytes).region
    var start = 0
    for (number, status) in statuses.enumerated() {
      let count = ReplyFormat.statusBytes(status.runs.count)
      let chunk = out.slice(start, count)
      start += count
      ReplyFormat.putChunk(
        Chunk.blockStatus, done: number == statuses.count - 1, request.cookie,
        length: count - Chunk.byteCount, in: chunk)
      chunk.setBigEndian(status.id, at: 20)
      for (index, run) in status.runs.enumerated() {
        chunk.setBigEndian(UInt32(clamping: run.length), at: 24 + index * 8)
        chunk.setBigEndian(run.flags, at: 28 + index * 8)
      }
    }
    return out
  }

  static func statusBytes(_ runs: Int) -> Int { Chunk.byteCount + 4 + runs * 8 }

  /// The chunks of a part with holes in it: data and holes in order; the request's last one is
  /// marked as such.
  func sparse(_ part: ReadPart, _ data: ByteRegion, _ holes: [HoleList.Run]) -> ByteRegion {
    let contentBytes = Chunk.byteCount + 8
    let holeBytes = holes.reduce(0) { $0 + $1.count }
    // At most one piece of data before each hole and one behind the last.
    let most = data.count - holeBytes + holes.count * (2 * contentBytes + 4) + contentBytes
    let out = AlignedBuffer(unfilled: most).region
    var end = 0
    func chunk(_ type: UInt16, _ start: Int, _ count: Int) {
      ReplyFormat.putChunk(
        type, done: part.isLast && start + count == data.count, part.request.cookie,
        length: type == Chunk.offsetHole ? 12 : 8 + count,
        in: out.slice(end, contentBytes))
      out.setBigEndian(part.offset + UInt64(start), at: end + Chunk.byteCount)
      end += contentBytes
    }
    var position = 0
    for hole in holes + [HoleList.Run(start: data.count, count: 0)] {
      if hole.start > position {
        chunk(Chunk.offsetData, position, hole.start - position)
        out.copy(from: data.slice(position, hole.start - position), at: end)
        end += hole.start - position
      }
      if hole.count > 0 {
        chunk(Chunk.offsetHole, hole.start, hole.count)
        out.setBigEndian(UInt32(clamping: hole.count), at: end)
        end += 4
      }
      position = hole.start + hole.count
    }
    return out.slice(0, end)
  }
}

extension Optional {
  /// The value, if it is one that `isWanted` likes.
  fileprivate func filter(_ isWanted: (Wrapped) -> Bool) -> Wrapped? {
    flatMap { isWanted($0) ? $0 : nil }
  }
}
