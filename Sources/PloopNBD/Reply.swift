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
    format.style.isStructured && request.flags & CommandFlags.dontFragment == 0
  }
}

/// Lays replies out in memory that is then sent as it is.
struct ReplyFormat: Sendable {
  let style: HeaderStyle

  /// Bytes before the data of a read.
  var readHeaderBytes: Int { style.isStructured ? contentHeaderBytes : SimpleReply.byteCount }

  /// Bytes before what a chunk tells of a place.
  private var contentHeaderBytes: Int { style.chunkBytes + 8 }

  static func putSimple(_ error: UInt32, _ cookie: UInt64, in out: ByteRegion) {
    out.setBigEndian(SimpleReply.magic, at: 0)
    out.setBigEndian(error, at: 4)
    out.setBigEndian(cookie, at: 8)
  }

  private func putChunk(
    _ type: UInt16, done: Bool, _ request: Request, length: Int, in out: ByteRegion
  ) {
    out.setBigEndian(style == .extended ? Chunk.extendedMagic : Chunk.magic, at: 0)
    out.setBigEndian(done ? Chunk.done : 0, at: 4)
    out.setBigEndian(type, at: 6)
    out.setBigEndian(request.cookie, at: 8)
    guard style == .extended else { return out.setBigEndian(UInt32(clamping: length), at: 16) }
    out.setBigEndian(request.offset, at: 16)
    out.setBigEndian(UInt64(length), at: 24)
  }

  /// The header before a part's data as one piece.
  func putReadHeader(_ part: ReadPart, in out: ByteRegion) {
    guard style.isStructured else {
      return ReplyFormat.putSimple(0, part.request.cookie, in: out)
    }
    putChunk(
      Chunk.offsetData, done: part.isLast, part.request, length: part.count + 8, in: out)
    out.setBigEndian(part.offset, at: style.chunkBytes)
  }

  /// Bytes of the reply to what is answered with its success alone.
  var successBytes: Int { style == .extended ? style.chunkBytes : SimpleReply.byteCount }

  /// Simple replies are the shortest, and allowed unless headers are extended.
  func putSuccess(_ request: Request, in out: ByteRegion) {
    guard style == .extended else { return ReplyFormat.putSimple(0, request.cookie, in: out) }
    putChunk(Chunk.none, done: true, request, length: 0, in: out)
  }

  func success(_ request: Request) -> ByteRegion {
    let out = AlignedBuffer(unfilled: successBytes).region
    putSuccess(request, in: out)
    return out
  }

  /// A lone NONE chunk: the reply to a read of no bytes.
  func nothing(_ request: Request) -> ByteRegion {
    guard style.isStructured else { return success(request) }
    let out = AlignedBuffer(unfilled: style.chunkBytes).region
    putChunk(Chunk.none, done: true, request, length: 0, in: out)
    return out
  }

  /// With words for a person, and the place where a read failed, if the client can take them.
  func failure(_ request: Request, _ error: NBDError) -> ByteRegion {
    guard style.isStructured else {
      let out = AlignedBuffer(unfilled: SimpleReply.byteCount).region
      ReplyFormat.putSimple(error.number(for: request), request.cookie, in: out)
      return out
    }
    let words = AlignedBuffer(error.message.wireBytes(limit: 1024)).region
    let place = request.type == Command.read ? error.offset.filter(request.contains) : nil
    let length = 6 + words.count + (place == nil ? 0 : 8)
    let out = AlignedBuffer(unfilled: style.chunkBytes + length).region
    putChunk(
      place == nil ? Chunk.error : Chunk.errorOffset, done: true, request, length: length, in: out)
    let payload = out.slice(style.chunkBytes, length)
    payload.setBigEndian(error.number(for: request), at: 0)
    payload.setBigEndian(UInt16(clamping: words.count), at: 4)
    payload.copy(from: words, at: 6)
    if let place { payload.setBigEndian(place, at: 6 + words.count) }
    return out
  }

  /// One chunk for each context.
  func status(_ request: Request, _ statuses: [(id: UInt32, runs: [StatusRun])]) -> ByteRegion {
    let bytes = statuses.reduce(0) { $0 + statusBytes($1.runs.count) }
    let out = AlignedBuffer(unfilled: bytes).region
    var start = 0
    for (number, status) in statuses.enumerated() {
      let chunk = out.slice(start, statusBytes(status.runs.count))
      start += chunk.count
      let payload = chunk.slice(style.chunkBytes, chunk.count - style.chunkBytes)
      putChunk(
        style == .extended ? Chunk.extendedBlockStatus : Chunk.blockStatus,
        done: number == statuses.count - 1, request, length: payload.count, in: chunk)
      payload.setBigEndian(status.id, at: 0)
      put(status.runs, in: payload)
    }
    return out
  }

  /// The descriptors of a status, behind its context's number.
  private func put(_ runs: [StatusRun], in payload: ByteRegion) {
    guard style == .extended else {
      for (index, run) in runs.enumerated() {
        payload.setBigEndian(UInt32(clamping: run.length), at: 4 + index * 8)
        payload.setBigEndian(run.flags, at: 8 + index * 8)
      }
      return
    }
    payload.setBigEndian(UInt32(clamping: runs.count), at: 4)
    for (index, run) in runs.enumerated() {
      payload.setBigEndian(run.length, at: 8 + index * 16)
      payload.setBigEndian(UInt64(run.flags), at: 16 + index * 16)
    }
  }

  func statusBytes(_ runs: Int) -> Int {
    style.chunkBytes + (style == .extended ? 8 + runs * 16 : 4 + runs * 8)
  }

  /// The chunks of a part with holes in it: data and holes in order; the request's last one is
  /// marked as such.
  func sparse(_ part: ReadPart, _ data: ByteRegion, _ holes: [HoleList.Run]) -> ByteRegion {
    let contentBytes = contentHeaderBytes
    let holeBytes = holes.reduce(0) { $0 + $1.count }
    // At most one piece of data before each hole and one behind the last.
    let most = data.count - holeBytes + holes.count * (2 * contentBytes + 4) + contentBytes
    let out = AlignedBuffer(unfilled: most).region
    var end = 0
    func chunk(_ type: UInt16, _ start: Int, _ count: Int) {
      putChunk(
        type, done: part.isLast && start + count == data.count, part.request,
        length: type == Chunk.offsetHole ? 12 : 8 + count, in: out.slice(end, contentBytes))
      out.setBigEndian(part.offset + UInt64(start), at: end + style.chunkBytes)
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
