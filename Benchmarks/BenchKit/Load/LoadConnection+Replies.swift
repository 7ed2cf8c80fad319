/// Replies: simple ones, and chunks of structured ones. A payload is looked at in pieces of a unit as
/// it comes, so that the receive buffer stays in the processor's cache however large requests are.
extension LoadConnection {
  mutating func takeReplies() throws(BenchFailure) {
    while true {
      if payloadSlot >= 0 {
        guard try takePayload() else { return }
      } else {
        guard try takeHeader() else { return }
      }
    }
  }

  /// - Returns: false when more has to be received first.
  private mutating func takeHeader() throws(BenchFailure) -> Bool {
    let available = inEnd - inStart
    guard available >= 16 else { return false }
    let header = UnsafeRawPointer(incoming + inStart)
    let magic = header.big32(0)
    if magic == NBDWire.simpleReply {
      let slot = try slot(header.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
      let error = header.big32(4)
      guard error == 0 else { throw failed(slot, error) }
      inStart &+= 16
      if slots[slot].reads {
        (payloadSlot, payloadLeft, payloadOffset) = (slot, job.blockBytes, slots[slot].offset)
        isLastChunk = true
      } else {
        finish(slot)
      }
      return true
    }
    guard magic == NBDWire.chunk, structuredReplies else {
      throw BenchFailure("a reply begins with \(String(magic, radix: 16))")
    }
    return try takeChunk(header, available)
  }

  /// Chunks are NONE, OFFSET_DATA and OFFSET_HOLE; everything else is an error.
  private mutating func takeChunk(
    _ header: UnsafeRawPointer, _ available: Int
  ) throws(BenchFailure) -> Bool {
    guard available >= 20 else { return false }
    let slot = try slot(header.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    let kind = header.big16(6)
    let length = Int(header.big32(16))
    isLastChunk = header.big16(4) & 1 != 0
    switch kind {
    case 0:
      inStart &+= 20
      if isLastChunk { finish(slot) }
    case 1:
      guard available >= 28 else { return false }
      let offset = header.big64(20)
      guard length > 8, offset >= slots[slot].offset,
        offset - slots[slot].offset + UInt64(length - 8) <= UInt64(job.blockBytes)
      else { throw BenchFailure("a chunk lies outside of its request") }
      inStart &+= 28
      (payloadSlot, payloadLeft, payloadOffset) = (slot, length - 8, offset)
    case 2:
      guard available >= 32 else { return false }
      guard job.accepted.contains(0) else {
        throw BenchFailure("zeroes where data was written, at byte \(header.big64(20))")
      }
      units.add(0, UInt64(header.big32(28)) / UInt64(Content.unitBytes))
      inStart &+= 32
      if isLastChunk { finish(slot) }
    default:
      throw failed(slot, available >= 24 ? header.big32(20) : 0)
    }
    return true
  }

  private mutating func takePayload() throws(BenchFailure) -> Bool {
    while payloadLeft > 0 {
      let within = Int(payloadOffset % UInt64(Content.unitBytes))
      let part = min(payloadLeft, Content.unitBytes &- within)
      guard inEnd &- inStart >= part else { return false }
      guard
        let stamp = Content.stamp(
          incoming + inStart, count: part, offset: payloadOffset,
          entirely: job.checksEntirely || operations & 63 == 0),
        job.accepted.contains(stamp)
      else { throw BenchFailure("wrong content at byte \(payloadOffset) of the disk") }
      units.add(stamp, 1)
      inStart &+= part
      payloadOffset &+= UInt64(part)
      payloadLeft &-= part
    }
    let slot = payloadSlot
    payloadSlot = -1
    if isLastChunk { finish(slot) }
    return true
  }

  private func slot(_ cookie: UInt64) throws(BenchFailure) -> Int {
    guard cookie < UInt64(job.depth) else {
      throw BenchFailure("a reply to nothing that was asked")
    }
    return Int(cookie)
  }

  private mutating func finish(_ slot: Int) {
    if !slots[slot].reads { units.noteWritten(slots[slot].offset, job) }
    latencies.record(now &- slots[slot].start)
    operations &+= 1
    slots[slot].isBusy = false
    free[freeCount] = slot
    freeCount &+= 1
  }

  private func failed(_ slot: Int, _ error: UInt32) -> BenchFailure {
    BenchFailure(
      "the server's error \(error) for \(job.kind.rawValue) of \(job.blockBytes) bytes at \(slots[slot].offset)"
    )
  }
}
