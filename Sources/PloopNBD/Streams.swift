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

/// Replies that wait to be sent: small ones gathered in one piece of memory, behind them pages of a file if
/// the last of them ends with such, then large ones as they are.
struct OutputStream {
  private let buffer: AlignedBuffer
  private let region: ByteRegion
  private var start = 0
  private var end = 0
  private var pages: PageLoan?
  private var queue: [Reply] = []
  /// Of what lies behind the gathered part.
  private var sentOfFirst = 0
  private var sentBytes: UInt64 = 0
  private(set) var borrowed = BorrowedPages()
  /// Set once nobody reads any more: what is appended is dropped.
  private(set) var isCut = false
  /// Whether it is cut because pages could not be read.
  private(set) var hasFailed = false

  init(capacity: Int) {
    buffer = AlignedBuffer(unfilled: capacity)
    region = buffer.borrowed
  }

  var isEmpty: Bool { start == end && pages == nil && queue.isEmpty }

  /// Bytes that wait in the gathered part.
  var gathered: Int { end - start }

  /// What ``reserve(_:)`` can give once everything has been sent.
  var capacity: Int { region.count }

  /// What ``reserve(_:)`` can give now.
  var room: Int { pages == nil && queue.isEmpty ? region.count - end : 0 }

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

  /// Behind what has been gathered: there is room for its header, so there is nothing behind that.
  mutating func append(_ loan: PageLoan) {
    borrowed.begin()
    pages = loan
  }

  /// Sends what the socket takes now; when the client is gone, the stream is cut.
  ///
  /// - Returns: how much of the replies' memory is free again.
  mutating func flush(to stream: ClientStream, counting sent: borrowing Atomic<UInt64>) -> Int {
    var released = 0
    // A client that takes page by page must not keep everything else waiting.
    var pageCalls = 0
    while !isCut, !isEmpty, pageCalls < OutputStream.pageCallsAtOnce {
      if start == end, pages != nil { pageCalls += 1 }
      switch sendNext(to: stream) {
      case .bytes(let count):
        sent.wrappingAdd(UInt64(count), ordering: .relaxed)
        sentBytes &+= UInt64(count)
        released += hasSent(count)
      case .wouldBlock: return released
      case .ended: isCut = true
      }
    }
    guard isCut else { return released }
    released += queue.reduce(0) { $0 + $1.charge }
    drop()
    return released
  }

  private static let pageCallsAtOnce = 8

  private mutating func sendNext(to stream: ClientStream) -> StreamSocket.Transfer {
    if start < end { return stream.send(region.slice(start, end - start)) }
    if let pages { return send(pages, to: stream) }
    return stream.send(queue[0].region.slice(sentOfFirst, queue[0].region.count - sentOfFirst))
  }

  private mutating func send(_ loan: PageLoan, to stream: ClientStream) -> StreamSocket.Transfer {
    let rest = loan.piece.dropping(sentOfFirst)
    switch stream.send(rest) {
    case .bytes(let count): return .bytes(count)
    case .wouldBlock: return .wouldBlock
    case .ended: return .ended
    case .unreadable:
      // The header has promised them.
      guard let copy = rest.copied() else {
        hasFailed = true
        return .ended
      }
      borrowed.sent(loan, end: sentBytes)
      pages = nil
      sentOfFirst = 0
      queue.insert(Reply(region: copy, charge: 0), at: 0)
      return sendNext(to: stream)
    }
  }

  /// - Returns: how much of the replies' memory is free again.
  private mutating func hasSent(_ count: Int) -> Int {
    if start < end {
      start += count
      if start == end {
        start = 0
        end = 0
      }
      return 0
    }
    sentOfFirst += count
    guard sentOfFirst == pages?.piece.count ?? queue[0].region.count else { return 0 }
    sentOfFirst = 0
    guard let loan = pages else { return queue.removeFirst().charge }
    borrowed.sent(loan, end: sentBytes)
    pages = nil
    return 0
  }

  /// Nothing of what waits is sent any more.
  private mutating func drop() {
    if let pages { borrowed.sent(pages, end: sentBytes) }
    pages = nil
    queue = []
    start = 0
    end = 0
  }

  // MARK: Lent pages

  /// Keeps no files open, if nothing of them waits.
  mutating func letFilesGo() { borrowed.letFilesGo() }

  /// Keeps files open that are to be lent from.
  mutating func hold(_ files: FileTable) -> Bool { borrowed.hold(files) }

  /// The next loans that the client has read.
  ///
  /// - Parameter unread: so many of the bytes sent last may not have been.
  mutating func takeReturned(unread: UInt64) -> BorrowedPages.Loans? {
    sentBytes >= unread ? borrowed.takeReturned(before: sentBytes - unread) : nil
  }

  /// Nothing is sent any more.
  mutating func cut() {
    isCut = true
    drop()
  }
}
