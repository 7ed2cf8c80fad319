import Glibc
import PloopIO
import TestSupport
import Testing

@testable import PloopNBD

private let second: UInt64 = 1_000_000_000

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
