import PloopIO
import TestSupport
import Testing

@testable import PloopNBD

private let second: UInt64 = 1_000_000_000

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

  @Test("and nothing is given back of one that nobody was to pay for")
  func cutShortUnlimited() throws {
    var client: RawClient? = try self.client(overTCP: false)
    change(.init(writeBytes: 1))
    let bytes = [UInt8](repeating: 7, count: 1 << 20)
    #expect(client?.call(1, length: 1 << 20, payload: bytes).error == 0)
    change(nil)
    client?.send(RawClient.request(1, length: 4 << 20) + [7])
    #expect(becomes { clients().first?.requests == 2 })
    change(.init(writeBytes: 1))
    let other = try live.client(of: "disk")
    #expect(other.call(1, length: 512, payload: Array(bytes.prefix(512))).error == 0)
    client = nil
    #expect(becomes { clients().count == 1 })
    #expect(try debt(isWrite: true) == 512)
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
