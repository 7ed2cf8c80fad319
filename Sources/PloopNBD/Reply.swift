internal import PloopIO

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

  /// The header before a read's data as one piece.
  func putReadHeader(_ request: Request, in out: ByteRegion) {
    guard structured else { return ReplyFormat.putSimple(0, request.cookie, in: out) }
    ReplyFormat.putChunk(
      Chunk.offsetData, done: true, request.cookie, length: Int(request.length) + 8, in: out)
    out.setBigEndian(request.offset, at: Chunk.byteCount)
  }

  func success(_ request: Request) -> [UInt8] {
    let out = AlignedBuffer(count: SimpleReply.byteCount)
    ReplyFormat.putSimple(0, request.cookie, in: out.region)
    return out.region.bytes
  }

  /// A lone NONE chunk: the reply to a read of no bytes.
  func nothing(_ request: Request) -> [UInt8] {
    guard structured else { return success(request) }
    let out = AlignedBuffer(count: Chunk.byteCount)
    ReplyFormat.putChunk(Chunk.none, done: true, request.cookie, length: 0, in: out.region)
    return out.region.bytes
  }

  /// With words for a person where the client can take them.
  func failure(_ request: Request, _ error: NBDError) -> [UInt8] {
    guard structured else {
      let out = AlignedBuffer(count: SimpleReply.byteCount)
      ReplyFormat.putSimple(error.number, request.cookie, in: out.region)
      return out.region.bytes
    }
    let words = Array(error.message.utf8.prefix(1024))
    let out = AlignedBuffer(count: Chunk.byteCount + 6 + words.count)
    ReplyFormat.putChunk(
      Chunk.error, done: true, request.cookie, length: 6 + words.count, in: out.region)
    out.region.setBigEndian(error.number, at: 20)
    out.region.setBigEndian(UInt16(clamping: words.count), at: 24)
    out.region.copy(from: AlignedBuffer(words).region, at: 26)
    return out.region.bytes
  }

  func status(_ request: Request, _ extents: [Extent]) -> [UInt8] {
    var writer = MessageWriter()
    writer.append(Chunk.magic)
    writer.append(Chunk.done)
    writer.append(Chunk.blockStatus)
    writer.append(request.cookie)
    writer.append(UInt32(clamping: 4 + extents.count * 8))
    writer.append(UInt32(1))
    for extent in extents {
      writer.append(UInt32(clamping: extent.length))
      writer.append(
        (extent.isHole ? Allocation.hole : 0) | (extent.readsZero ? Allocation.zero : 0))
    }
    return writer.bytes
  }

  /// The chunks of a read with holes in it: data and holes in order, the last one marked as such.
  func sparse(_ request: Request, _ data: ByteRegion, _ holes: [HoleList.Run]) -> [UInt8] {
    var writer = MessageWriter()
    func chunk(_ type: UInt16, _ start: Int, _ count: Int) {
      writer.append(Chunk.magic)
      writer.append(start + count == data.count ? Chunk.done : 0)
      writer.append(type)
      writer.append(request.cookie)
      writer.append(UInt32(clamping: type == Chunk.offsetHole ? 12 : 8 + count))
      writer.append(request.offset + UInt64(start))
    }
    var position = 0
    for hole in holes + [HoleList.Run(start: data.count, count: 0)] {
      if hole.start > position {
        chunk(Chunk.offsetData, position, hole.start - position)
        writer.append(data.slice(position, hole.start - position).bytes)
      }
      if hole.count > 0 {
        chunk(Chunk.offsetHole, hole.start, hole.count)
        writer.append(UInt32(clamping: hole.count))
      }
      position = hole.start + hole.count
    }
    return writer.bytes
  }
}
