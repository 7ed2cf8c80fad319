internal import PloopIO
internal import Synchronization

/// Received bytes that have not been looked at yet, in one piece of memory.
///
/// What it hands out is valid until more is received; requests are carried out from it in place.
struct InputStream {
  private let buffer: AlignedBuffer
  private let region: ByteRegion
  private var start = 0
  private var end = 0

  init(capacity: Int) {
    buffer = AlignedBuffer(unfilled: capacity)
    region = buffer.borrowed
  }

  var capacity: Int { region.count }
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
      region.move(from: start, to: 0, count: available)
      end = available
      start = 0
    }
    return region.slice(end, region.count - end)
  }

  mutating func received(_ count: Int) { end += count }
}

/// Replies that wait to be sent: small ones gathered in one piece of memory, large ones behind it as
/// they are.
struct OutputStream {
  private let buffer: AlignedBuffer
  private let region: ByteRegion
  private var start = 0
  private var end = 0
  private var queue: [Reply] = []
  private var sentOfFirst = 0
  /// Set once nobody reads any more: what is appended is dropped.
  private(set) var isCut = false

  init(capacity: Int) {
    buffer = AlignedBuffer(unfilled: capacity)
    region = buffer.borrowed
  }

  var isEmpty: Bool { start == end && queue.isEmpty }

  /// Bytes that wait in the gathered part.
  var gathered: Int { end - start }

  /// What ``reserve(_:)`` can give once everything has been sent.
  var capacity: Int { region.count }

  /// What ``reserve(_:)`` can give now.
  var room: Int { queue.isEmpty ? region.count - end : 0 }

  /// Memory for a reply that is being made; it counts once it is committed.
  func reserve(_ count: Int) -> ByteRegion? {
    room >= count ? region.slice(end, count) : nil
  }

  mutating func commit(_ count: Int) { end += count }

  /// - Returns: how much of the reply's memory is free again at once.
  mutating func append(_ reply: Reply) -> Int {
    if let room = reserve(reply.region.count) {
      room.copy(from: reply.region)
      end += reply.region.count
      return reply.charge
    }
    // The request's own memory is gone when the reply is there; the reply's stays until it is sent.
    let kept = min(reply.charge, reply.region.count)
    queue.append(Reply(region: reply.region, charge: kept))
    return reply.charge - kept
  }

  /// Sends what the socket takes now; when the client is gone, the stream is cut.
  ///
  /// - Returns: how much of the replies' memory is free again.
  mutating func flush(to socket: StreamSocket, counting sent: borrowing Atomic<UInt64>) -> Int {
    var released = 0
    while !isCut, !isEmpty {
      let isGathered = start < end
      let next =
        isGathered
        ? region.slice(start, end - start)
        : queue[0].region.slice(sentOfFirst, queue[0].region.count - sentOfFirst)
      switch socket.send(next) {
      case .bytes(let count):
        sent.wrappingAdd(UInt64(count), ordering: .relaxed)
        if isGathered {
          start += count
        } else {
          sentOfFirst += count
          guard sentOfFirst == queue[0].region.count else { continue }
          released += queue.removeFirst().charge
          sentOfFirst = 0
        }
      case .wouldBlock: return released
      case .ended: isCut = true
      }
      if start == end {
        start = 0
        end = 0
      }
    }
    guard isCut else { return released }
    released += queue.reduce(0) { $0 + $1.charge }
    queue = []
    start = 0
    end = 0
    return released
  }
}
