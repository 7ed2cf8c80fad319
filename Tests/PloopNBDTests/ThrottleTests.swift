import Glibc
import PloopIO
import TestSupport
import Testing

@testable import PloopNBD

private let second: UInt64 = 1_000_000_000

/// Nanoseconds that pass when somebody says so.
private final class ManualClock: Sendable {
  private let nanoseconds = Locked<UInt64>(5 * second)
  var now: UInt64 { nanoseconds.withLock { $0 } }
  func advance(_ count: UInt64) { nanoseconds.withLock { $0 += count } }
}

private func request(_ type: UInt16, _ length: UInt32) throws -> Request {
  try #require(
    Request(AlignedBuffer(RawClient.request(type, length: length)).region, .structured))
}

@Suite("How fast clients may go")
struct ThrottleTests {
  private let clock = ManualClock()

  /// A client that does nothing else: bytes that it is let through in so many seconds.
  private func moved(
    _ throttle: RequestThrottle, _ request: Request, seconds: UInt64
  ) -> UInt64 {
    let end = clock.now + seconds * second
    var moved: UInt64 = 0
    while clock.now < end {
      var turn = RequestThrottle.Turn()
      clock.advance(throttle.delay(of: request, &turn))
      #expect(throttle.delay(of: request, &turn) == 0)
      moved += request.length
    }
    return moved
  }

  @Test("bytes and operations are paid for, reads and writes by themselves, the tightest holds")
  func rates() throws {
    let rates = TransferRates(readBytes: 1_000_000, writeBytes: 500_000, readOperations: 100)
    let throttle = RequestThrottle(rates, clock: { [clock] in clock.now })
    let large = try request(0, 64_000)
    #expect((19_900_000...20_200_000).contains(moved(throttle, large, seconds: 20)))
    #expect((1_900_000...2_120_000).contains(moved(throttle, try request(0, 1_000), seconds: 20)))
    #expect((9_900_000...10_700_000).contains(moved(throttle, try request(1, 64_000), seconds: 20)))
    // What costs no bytes does not wait for any, and neither does what makes writes durable.
    clock.advance(10 * second)
    throttle.change(TransferRates(writeBytes: 1))
    for type: UInt16 in [3, 4, 6, 4, 6, 3] {
      var turn = RequestThrottle.Turn()
      #expect(throttle.delay(of: try request(type, 4_096), &turn) == 0)
    }
    var turn = RequestThrottle.Turn()
    #expect(throttle.delay(of: try request(1, 64_000), &turn) == 0)
    turn = .init()
    #expect(throttle.delay(of: try request(4, 4_096), &turn) > 60_000 * second)
    turn = .init()
    #expect(throttle.delay(of: try request(3, 0), &turn) == 0)
  }

  @Test("a rest brings what flows in within the time of the burst, and no more")
  func burst() throws {
    let throttle = RequestThrottle(
      TransferRates(readOperations: 10, burstSeconds: 3), clock: { [clock] in clock.now })
    let read = try request(0, 512)
    clock.advance(100 * second)
    var count = 0
    while true {
      var turn = RequestThrottle.Turn()
      guard throttle.delay(of: read, &turn) == 0 else { break }
      count += 1
    }
    // The last of them takes more than there is, and the next one waits.
    #expect(count == 31)
  }

  @Test("turns come in the order in which they were asked for, and who leaves pays nothing")
  func turns() throws {
    let throttle = RequestThrottle(
      TransferRates(readBytes: 1_000), clock: { [clock] in clock.now })
    let read = try request(0, 1_000)
    var turns = [RequestThrottle.Turn](repeating: .init(), count: 4)
    let bells = try turns.map { _ in try Bell() }
    /// In tenths of a second.
    func delays() -> [UInt64] {
      turns.indices.map {
        (throttle.delay(of: read, &turns[$0], bell: bells[$0]) + second / 20) / (second / 10)
      }
    }
    func rung() -> [Bool] {
      bells.map { bell in
        var polled = pollfd(fd: bell.number, events: Int16(POLLIN), revents: 0)
        defer { bell.silence() }
        return poll(&polled, 1, 0) == 1
      }
    }
    #expect(delays() == [0, 10, 20, 30])
    // Asked again nothing is taken again.
    #expect(delays() == [0, 10, 20, 30])
    // Those behind one who leaves the line are told that they may begin sooner, and who comes then is behind them.
    throttle.giveBack(&turns[1])
    #expect(rung() == [false, false, true, true])
    #expect(delays() == [0, 30, 10, 20])
    // What has begun is not given back.
    throttle.giveBack(&turns[0])
    #expect(delays() == [0, 30, 10, 20])
    clock.advance(second + 10)
    #expect(delays() == [0, 20, 0, 10])
    // Those who wait go by the new rate, in their order, and what has begun is paid for by it.
    throttle.change(TransferRates(readBytes: 10_000))
    #expect(rung() == [false, true, false, true])
    #expect(delays() == [0, 2, 0, 1])
    throttle.change(TransferRates(readBytes: 100))
    #expect(delays() == [0, 200, 0, 100])
    throttle.change(nil)
    #expect(rung() == [false, true, false, true])
    #expect(delays() == [0, 0, 0, 0])
  }

  @Test("how long requests have waited is counted once they begin, and when the limits are lifted")
  func waits() throws {
    let throttle = RequestThrottle(
      TransferRates(readBytes: 1_000, writeBytes: 1 << 20), clock: { [clock] in clock.now })
    func waits() -> [UInt64] {
      let waits = throttle.waits
      return [
        waits.reads.count, waits.reads.nanoseconds / second, waits.writes.count,
        waits.writes.nanoseconds / second,
      ]
    }
    let (read, write) = (try request(0, 1_000), try request(1, 3 << 20))
    var (first, other, writer) = (
      RequestThrottle.Turn(), RequestThrottle.Turn(), RequestThrottle.Turn()
    )
    #expect(throttle.delay(of: read, &first) == 0)
    #expect(throttle.delay(of: read, &other) > 0)
    #expect(throttle.delay(of: write, &writer) == 0)
    writer.next()
    #expect(waits() == [0, 0, 0, 0])
    // The next write waits for three turns of what the first one owes and takes, and is counted once.
    while true {
      let delay = throttle.delay(of: write, &writer)
      if delay == 0 { break }
      clock.advance(delay)
    }
    #expect(throttle.delay(of: read, &other) == 0)
    #expect(waits() == [1, 3, 1, 3])
    for _ in 0..<2 {
      first.next()
      #expect(throttle.delay(of: read, &first) == 0)
    }
    // Who leaves the line has not begun.
    other.next()
    #expect(throttle.delay(of: read, &other) > 0)
    throttle.leave(&other)
    first.next()
    #expect(throttle.delay(of: read, &first) > 0)
    clock.advance(second / 2)
    throttle.change(nil)
    #expect(throttle.delay(of: read, &first) == 0)
    #expect(waits() == [2, 3, 1, 3])
  }

  @Test("limits that limit nothing cost nothing")
  func unlimited() throws {
    let throttle = RequestThrottle(TransferRates(burstSeconds: 9))
    #expect(!throttle.isLimiting)
    throttle.change(TransferRates(writeOperations: 1))
    #expect(throttle.isLimiting)
    throttle.change(TransferRates())
    #expect(!throttle.isLimiting)
  }

  @Test("who asks for much at once waits for the rest of it before its next request, by turns")
  func quanta() throws {
    let throttle = RequestThrottle(
      TransferRates(writeBytes: 1 << 20), clock: { [clock] in clock.now })
    let (large, small) = (try request(1, 8 << 20), try request(1, 4_096))
    var (greedy, modest) = (RequestThrottle.Turn(), RequestThrottle.Turn())
    func seconds(_ nanoseconds: UInt64) -> UInt64 { (nanoseconds + second / 2) / second }
    #expect(throttle.delay(of: large, &greedy) == 0)
    greedy.next()
    #expect(seconds(throttle.delay(of: large, &greedy)) == 1)
    // One MiB of the large one's rest is before it, not all seven.
    #expect(seconds(throttle.delay(of: small, &modest)) == 2)
    let start = clock.now
    while true {
      let delay = throttle.delay(of: large, &greedy)
      if delay == 0 { break }
      clock.advance(delay)
    }
    #expect(seconds(clock.now - start) == 8)
    #expect(throttle.delay(of: small, &modest) == 0)
    // Nothing is forgotten of who hangs up meanwhile, and nothing is paid for that has not begun.
    greedy.next()
    throttle.leave(&greedy)
    #expect(seconds(throttle.delayOfNext(isWrite: true)) == 8)
    #expect(throttle.delay(of: large, &greedy) > 0)
    throttle.leave(&greedy)
    #expect(seconds(throttle.delayOfNext(isWrite: true)) == 8)
    #expect(throttle.delayOfNext(isWrite: false) == 0)
  }
}

@Suite("Clients that are to go slower")
struct ThrottledClientTests {
  private let clock = ManualClock()
  private let disk: MemoryExport
  private let live: LiveServer

  init() throws {
    disk = MemoryExport(size: 8 << 20, clock: { [clock] in clock.now })
    live = try LiveServer([("disk", disk), ("other", MemoryExport(size: 1 << 20))])
  }

  private func change(_ rates: TransferRates?) { disk.throttle?.change(rates) }

  private func clients() -> [ClientStatus] { live.server.clients(of: Array("disk".utf8)) }

  /// How long a request would have to wait that came now, in seconds.
  private func debt(isWrite: Bool = false) throws -> UInt64 {
    (try #require(disk.throttle).delayOfNext(isWrite: isWrite) + second / 2) / second
  }

  private func client(overTCP: Bool) throws -> RawClient {
    guard overTCP else { return try live.client(of: "disk") }
    let client = try RawClient(port: live.port)
    #expect(client.enter("disk"))
    return client
  }

  /// A client that waits for its second read, for days.
  private func waiting(overTCP: Bool = false) throws -> RawClient {
    let client = try self.client(overTCP: overTCP)
    change(.init(readBytes: 1))
    #expect(client.call(0, length: 1 << 20).error == 0)
    client.send(RawClient.request(0, length: 512, cookie: 9))
    #expect(try becomes { try debt() > 1 << 20 })
    return client
  }

  @Test("a change counts at once for who waits, and nobody else's client waits")
  func changes() throws {
    let client = try waiting()
    let beside = try live.client(of: "other")
    #expect(beside.call(0, length: 512).error == 0)
    change(nil)
    #expect(client.answer(reading: 512).cookie == 9)
    #expect(client.call(0, length: 1 << 20).error == 0)
  }

  @Test("a request that waits for its turn does not hold up the end of its export")
  func end() throws {
    let client = try waiting()
    #expect(
      live.server.disconnectClients(of: Array("disk".utf8), until: .after(seconds: 120)))
    let late = client.answer()
    #expect(late.cookie == 9 && late.error == 108)
    #expect(try debt() == 1 << 20)
  }

  @Test(
    "who hangs up while it waits is gone, and nobody waits for what it had asked for",
    arguments: [false, true])
  func hangUp(overTCP: Bool) throws {
    var client: RawClient? = try waiting(overTCP: overTCP)
    let other = try live.client(of: "disk")
    #expect(clients().count == 2 && client != nil)
    client = nil
    #expect(becomes { clients().count == 1 })
    #expect(try debt() == 1 << 20)
    // It can still make durable what it has written.
    #expect(other.call(1, length: 512, payload: [UInt8](repeating: 1, count: 512)).error == 0)
    #expect(other.call(3).error == 0)
  }

  @Test(
    "what has been received is written though its client hangs up, and is paid for",
    arguments: [false, true])
  func receivedWhole(overTCP: Bool) throws {
    var client: RawClient? = try self.client(overTCP: overTCP)
    let bytes = [UInt8](repeating: 7, count: 512)
    change(.init(writeBytes: 1))
    #expect(client?.call(1, length: 512, payload: bytes).error == 0)
    let late = (1...3).flatMap { place in
      RawClient.request(1, offset: UInt64(place) << 16, length: 512, cookie: 1) + bytes
    }
    client?.send(late + RawClient.request(3) + RawClient.request(2))
    #expect(try becomes { try debt(isWrite: true) == 1_024 })
    client = nil
    #expect(becomes { clients().isEmpty })
    #expect((1...3).allSatisfy { disk.content($0 << 16, 512) == bytes })
    #expect(try debt(isWrite: true) == 2_048)
  }

  @Test(
    "of a payload that never comes nothing is paid for", arguments: [false, true],
    [
      (announced: 100_000, sent: 5_000), (announced: 4 << 20, sent: 100_000),
      (announced: 3 << 20, sent: 2 << 20),
    ] as [(announced: UInt64, sent: UInt64)])
  func cutShort(overTCP: Bool, bytes: (announced: UInt64, sent: UInt64)) throws {
    var client: RawClient? = try self.client(overTCP: overTCP)
    change(.init(writeBytes: 1))
    client?.send(
      RawClient.request(1, length: UInt32(bytes.announced))
        + [UInt8](repeating: 7, count: Int(bytes.sent)))
    #expect(try becomes { try debt(isWrite: true) == min(bytes.announced, 1 << 20) })
    client = nil
    #expect(becomes { clients().isEmpty })
    #expect(try debt(isWrite: true) == bytes.sent)
    #expect(disk.content(0, 64 << 10).starts(with: [7, 7]) == (bytes.announced > 128 << 10))
  }

  @Test("what a client has sent goes in its order, so a FLUSH waits behind its own WRITE alone")
  func pipelined() throws {
    let client = try live.client(of: "disk")
    let bytes = [UInt8](repeating: 3, count: 512)
    change(.init(writeBytes: 1))
    #expect(client.call(1, length: 512, payload: bytes).error == 0)
    client.send(
      RawClient.request(1, offset: 512, length: 512, cookie: 1) + bytes
        + RawClient.request(3, cookie: 2) + RawClient.request(0, length: 512, cookie: 3))
    #expect(try becomes { try debt(isWrite: true) == 1_024 })
    let other = try live.client(of: "disk")
    #expect(other.call(3).error == 0 && other.call(0, length: 512).error == 0)
    #expect(clients().map(\.requests) == [1, 2])
    change(nil)
    let cookies = (0..<3).map { _ in client.answer().cookie }
    #expect(cookies.first == 1 && cookies.sorted() == [1, 2, 3])
  }

  @Test("one request is paid for once, however often it is looked at")
  func once() throws {
    let client = try live.client(of: "disk")
    // Paid for twice it would wait for a day.
    change(.init(writeBytes: 1))
    let bytes = [UInt8](repeating: 5, count: 100_000)
    // Its payload comes in parts.
    let request = RawClient.request(1, length: 100_000) + bytes
    for start in stride(from: 0, to: request.count, by: 5_000) {
      client.send(Array(request[start..<min(request.count, start + 5_000)]))
    }
    #expect(client.answer().error == 0)
    #expect(disk.content(0, 100_000) == bytes)
  }

  @Test("who asks for many at once gets no more of the limit than who asks for one after the other")
  func shares() throws {
    change(.init(readOperations: 1))
    let greedy = try live.client(of: "disk")
    let modest = try live.client(of: "disk")
    for _ in 0..<40 { greedy.send(RawClient.request(0, length: 512)) }
    // Its first has begun, its second waits, and the third has not been looked at.
    #expect(try becomes { try debt() >= 2 })
    modest.send(RawClient.request(0, length: 512))
    var (served, burst) = (0, UInt64(2))
    for _ in 0..<20 {
      #expect(try becomes { try debt() >= 3 })
      clock.advance(second + 1_000)
      // Whose turn has come is not told by the clock of the test.
      change(.init(readOperations: 1, burstSeconds: burst))
      burst = 3 - burst
      let before = served
      // Each second lets one through, by turns.
      #expect(
        becomes {
          served = Int(clients().map(\.requests).reduce(0, +)) - 1
          return served > before
        })
      if served % 2 == 0 {
        #expect(modest.answer().error == 0)
        modest.send(RawClient.request(0, length: 512))
      }
      #expect(served == before + 1)
    }
    #expect(clients().map(\.requests).sorted() == [10, 11])
  }
}
