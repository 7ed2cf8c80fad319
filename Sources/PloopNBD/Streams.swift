internal import PloopIO
internal import Synchronization

/// Received bytes that have not been looked at yet, in one piece of memory.
struct InputStream {
  private let region: ByteRegion
  private var start = 0
  private var end = 0

  init(region: ByteRegion) { self.region = region }

  var available: Int { end - start }

  /// The next bytes without taking them, or nil when they are not all there.
  func peek(_ count: Int) -> ByteRegion? {
    available >= count ? region.slice(start, count) : nil
  }

  mutating func take(_ count: Int) -> ByteRegion? {
    guard let part = peek(count) else { return nil }
    start += count
    return part
  }

  /// Drops up to `count` bytes and says how many.
  mutating func skip(_ count: Int) -> Int {
    let dropped = min(count, available)
    start += dropped
    return dropped
  }

  /// Where the next bytes may be received; moves what is there to the front when room is short.
  mutating func free() -> ByteRegion {
    if start == end {
      start = 0
      end = 0
    } else if start > 0, region.count - end < region.count / 2 {
      // The parts may overlap: copied by way of a buffer of their own, rarely and briefly.
      let rest = AlignedBuffer(region.slice(start, available).bytes)
      region.copy(from: rest.region)
      end = rest.count
      start = 0
    }
    return region.slice(end, region.count - end)
  }

  mutating func received(_ count: Int) { end += count }
}

/// Replies that wait to be sent, gathered in one piece of memory; large ones queue behind it.
struct OutputStream {
  private let region: ByteRegion
  private var start = 0
  private var end = 0
  private var queue: [[UInt8]] = []

  init(_ region: ByteRegion) { self.region = region }

  var isEmpty: Bool { start == end && queue.isEmpty }

  /// Whether requests may go on being taken: a client that does not read is not served further.
  var hasRoom: Bool { queue.isEmpty && region.count - end > region.count / 2 }

  /// Memory for a reply that is being made; it counts once it is committed.
  func reserve(_ count: Int) -> ByteRegion? {
    queue.isEmpty && region.count - end >= count ? region.slice(end, count) : nil
  }

  mutating func commit(_ count: Int) { end += count }

  mutating func append(_ reply: [UInt8]) {
    if let room = reserve(reply.count) {
      reply.withUnsafeBytes { room.buffer.copyMemory(from: $0) }
      end += reply.count
    } else {
      queue.append(reply)
    }
  }

  /// Sends what the socket takes now.
  ///
  /// - Returns: false when the client is gone.
  mutating func flush(to socket: StreamSocket, counting sent: borrowing Atomic<UInt64>) -> Bool {
    while true {
      while start < end {
        switch socket.send(region.slice(start, end - start)) {
        case .bytes(let count):
          start += count
          sent.wrappingAdd(UInt64(count), ordering: .relaxed)
        case .wouldBlock: return true
        case .ended: return false
        }
      }
      start = 0
      end = 0
      guard !queue.isEmpty else { return true }
      refill()
    }
  }

  /// Moves queued replies into the gathered part; one that is larger goes in parts.
  private mutating func refill() {
    while let first = queue.first, end < region.count {
      let count = min(first.count, region.count - end)
      first.withUnsafeBytes {
        region.slice(end, count).buffer.copyMemory(
          from: UnsafeRawBufferPointer(rebasing: $0[..<count]))
      }
      end += count
      if count == first.count {
        queue.removeFirst()
      } else {
        queue[0] = Array(first[count...])
      }
    }
  }
}
