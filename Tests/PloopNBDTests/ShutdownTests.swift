import PloopIO
import PloopNBD
import TestSupport
import Testing

@Suite("The end of NBD service")
struct ShutdownTests {
  private let disk = MemoryExport(size: 8 << 20, isSlow: true)
  private let live: LiveServer
  private let bytes = [UInt8](repeating: 9, count: 1000)

  init() throws {
    live = try LiveServer([("disk", disk), ("other", MemoryExport(size: 1 << 20))])
  }

  /// Marks the server as stopping and does not wait for it.
  private func beginStopping() { live.server.stop(until: .after(milliseconds: 0)) }

  /// Has the client's INFO wait in the directory.
  private func hold(_ client: RawClient) -> Bool {
    live.directory.gate.update { $0 = false }
    let before = live.directory.lookups.withLock { $0 }
    client.send(RawClient.option(6, RawClient.goData("disk")))
    return becomes { live.directory.lookups.withLock { $0 } > before }
  }

  @Test("options that arrive while the server stops get ERR_SHUTDOWN, and ABORT its ACK")
  func options() throws {
    let client = try live.client()
    client.greet()
    #expect(hold(client))
    client.send(RawClient.option(3, []))
    beginStopping()
    let refused: [UInt32] = [8, 9, 10, 6, 7, 5, 99]
    for option in refused { client.send(RawClient.option(option, [])) }
    client.send(RawClient.option(2, []))
    live.directory.gate.update { $0 = true }
    #expect(client.answer(to: 6).type == 1)
    for option in [3] + refused { #expect(client.answer(to: option).type == optionError + 7) }
    #expect(client.answer(to: 2).type == 1)
    #expect(client.isHungUp)
  }

  @Test("EXPORT_NAME while the server stops is a hang-up")
  func exportName() throws {
    let client = try live.client()
    client.greet()
    #expect(hold(client))
    client.send(RawClient.option(1, Array("disk".utf8)))
    beginStopping()
    live.directory.gate.update { $0 = true }
    #expect(client.answer(to: 6).type == 1)
    #expect(client.isHungUp)
  }

  /// - Returns: a client with one request in flight, cookie 1, that waits for the gate.
  private func busyClient() throws -> RawClient {
    let client = try live.client(of: "disk")
    disk.gate.update { $0 = false }
    client.send(RawClient.request(1, length: 1000, cookie: 1) + bytes)
    #expect(becomes { disk.calls.withLock { $0.count } == 1 })
    return client
  }

  @Test("at the end of an export requests in flight are answered, later ones get ESHUTDOWN")
  func requests() throws {
    let client = try busyClient()
    #expect(
      !live.server.disconnectClients(of: Array("disk".utf8), until: .after(milliseconds: 0)))
    client.send(RawClient.request(1, offset: 5000, length: 1000, cookie: 2) + bytes)
    let late = client.answer()
    #expect(late.cookie == 2 && late.error == 108 && !late.words.isEmpty)
    disk.gate.update { $0 = true }
    let early = client.answer()
    #expect(early.cookie == 1 && early.error == 0)
    #expect(client.isHungUp)
    #expect(disk.content(0, 1000) == bytes && disk.content(5000, 1000).allSatisfy { $0 == 0 })
  }

  @Test(
    "when the service stops requests in flight are answered, and later ones are not: who comes back asks again"
  )
  func leftRequests() throws {
    let client = try busyClient()
    beginStopping()
    client.send(RawClient.request(1, offset: 5000, length: 1000, cookie: 2) + bytes)
    disk.gate.update { $0 = true }
    let early = client.answer()
    #expect(early.cookie == 1 && early.error == 0)
    #expect(client.isHungUp)
    #expect(disk.content(0, 1000) == bytes && disk.content(5000, 1000).allSatisfy { $0 == 0 })
  }

  @Test("ending one export's clients leaves the others alone")
  func oneExport() throws {
    let name = Array("disk".utf8)
    let leaving = try (0..<3).map { _ in try live.client(of: "disk") }
    let staying = try live.client(of: "other")
    let haggling = try live.client()
    haggling.greet()
    #expect(!live.server.waitForClientsLeaving(of: name, until: .after(milliseconds: 20)))
    #expect(live.server.disconnectClients(of: name, until: .after(seconds: 10)))
    for client in leaving { #expect(client.isHungUp) }
    #expect(staying.call(0, length: 512).error == 0)
    #expect(haggling.ask(7, RawClient.goData("other")).type == 1)
  }

  @Test("clients that leave by themselves are waited for")
  func leaving() throws {
    let client = try live.client(of: "disk")
    client.send(RawClient.request(2))
    #expect(
      live.server.waitForClientsLeaving(of: Array("disk".utf8), until: .after(seconds: 10)))
    #expect(client.isHungUp)
  }

  @Test("a client that is about to enter an export does not slip through its end")
  func entering() throws {
    let name = Array("disk".utf8)
    let client = try live.client()
    client.greet()
    live.directory.gate.update { $0 = false }
    client.send(RawClient.option(7, RawClient.goData("disk")))
    #expect(becomes { live.directory.lookups.withLock { $0 } == 1 })
    #expect(!live.server.disconnectClients(of: name, until: .after(milliseconds: 0)))
    live.directory.gate.update { $0 = true }
    #expect(live.server.waitForClientsLeaving(of: name, until: .after(seconds: 10)))
    #expect(client.answer(to: 7).type == 1 && client.isHungUp)
  }

  @Test("stopping ends idle, busy, deaf and half-open clients in bounded time")
  func allKinds() throws {
    let halfOpen = try live.client()
    let torn = try live.client()
    torn.greet()
    torn.send(Array("IHAVE".utf8))
    let idle = try live.client(of: "disk")
    let payload = try live.client(of: "disk")
    payload.send(RawClient.request(1, length: 4 << 20) + [UInt8](repeating: 1, count: 600_000))
    let deaf = try live.client(of: "disk")
    for _ in 0..<64 { deaf.send(RawClient.request(0, length: 1 << 20)) }
    #expect(becomes { disk.calls.withLock { $0.count } >= 8 })
    let deadline = Deadline.after(seconds: 8)
    live.server.stop(until: deadline)
    #expect(!deadline.hasPassed && live.server.connectionCount == 0)
    #expect(live.server.bytesInFlight == 0)
    #expect(idle.isHungUp && halfOpen.receive(18).count == 18 && halfOpen.isHungUp)
    #expect(throws: Tool.Failure.self) { try live.client() }
    try Tool.shell("test ! -e '\(live.path)'")
  }

  @Test("a client that never stops sending does not hold the end up")
  func flooding() throws {
    let client = try live.client(of: "disk")
    let flooding = Monitor(true)
    // Refused for its length, and drained while it lasts.
    client.send(RawClient.request(1, length: .max))
    let sender = Unchecked(client)
    try Thread(name: "flood") {
      while sender.value.send([UInt8](repeating: 0, count: 100_000)) {}
      flooding.update { $0 = false }
    }.detach()
    #expect(client.answer().error == 22)
    let deadline = Deadline.after(seconds: 8)
    live.server.stop(until: deadline)
    #expect(!deadline.hasPassed && live.server.connectionCount == 0)
    #expect(flooding.wait(until: .after(seconds: 20)) { $0 ? nil : true } == true)
  }

  @Test("a stopped server takes no client that is still in the queue")
  func queued() throws {
    beginStopping()
    #expect(throws: Tool.Failure.self) { try live.client() }
    #expect(live.server.connectionCount == 0)
  }
}
