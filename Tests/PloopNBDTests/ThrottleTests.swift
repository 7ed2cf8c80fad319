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
    func delays() -> [UInt64] {
      turns.indices.map { throttle.delay(of: read, &turns[$0]) / (second / 10) }
    }
    #expect(delays() == [0, 10, 20, 30])
    // Asked again nothing is taken again.
    #expect(delays() == [0, 10, 20, 30])
    throttle.giveBack(turns[3])
    throttle.giveBack(turns[0])
    turns[3] = .init()
    #expect(delays() == [0, 10, 20, 30])
    clock.advance(second + 10)
    #expect(delays() == [0, 0, 9, 19])
    // Those who wait go by the new rate, as if they came now.
    throttle.change(TransferRates(readBytes: 10_000))
    #expect(delays() == [0, 0, 0, 1])
    throttle.change(nil)
    #expect(delays() == [0, 0, 0, 0])
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

  private func change(_ rates: TransferRates?) {
    disk.throttle?.change(rates)
    live.server.wakeClients(of: Array("disk".utf8))
  }

  private func clients() -> [ClientStatus] { live.server.clients(of: Array("disk".utf8)) }

  /// How long a read of no bytes would have to wait, in seconds.
  private func debt() throws -> UInt64 {
    var turn = RequestThrottle.Turn()
    let throttle = try #require(disk.throttle)
    let delay = throttle.delay(of: try request(0, 0), &turn)
    throttle.giveBack(turn)
    return (delay + second / 2) / second
  }

  /// A client that waits for its second read, for days.
  private func waiting() throws -> RawClient {
    let client = try live.client(of: "disk")
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
    #expect(late.error == 108 || late.error == nil)
    #expect(try debt() == 1 << 20)
  }

  @Test("who hangs up while it waits is gone, and nobody waits for what it had asked for")
  func hangUp() throws {
    var client: RawClient? = try waiting()
    let other = try live.client(of: "disk")
    #expect(clients().count == 2 && client != nil)
    client = nil
    #expect(becomes { clients().count == 1 })
    #expect(try debt() == 1 << 20)
    // It can still make durable what it has written.
    #expect(other.call(1, length: 512, payload: [UInt8](repeating: 1, count: 512)).error == 0)
    #expect(other.call(3).error == 0)
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
    var served = 0
    for _ in 0..<20 {
      #expect(try becomes { try debt() >= 3 })
      clock.advance(second + 1_000)
      live.server.wakeClients(of: Array("disk".utf8))
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
