import PloopIO
import PloopNBD
import TestSupport
import Testing

@Suite("The fence of NBD replies")
struct FenceTests {
  @Test("what was done behind the end of the lease is not answered", arguments: [false, true])
  func silence(isSlow: Bool) throws {
    let disk = MemoryExport(size: 1 << 20, isSlow: isSlow)
    let live = try LiveServer([("disk", disk)])
    let client = try live.client(of: "disk")
    client.send(RawClient.request(0, offset: 0, length: 512))
    #expect(client.answer().error == 0)
    disk.isOurs.withLock { $0 = false }
    client.send(RawClient.request(0, offset: 0, length: 512))
    #expect(client.receive(1).isEmpty, "something was answered")
    #expect(becomes { live.server.clients(of: Array("disk".utf8)).isEmpty })
  }

  @Test("requests that were under way when the lease ended are not answered either")
  func underWay() throws {
    let disk = MemoryExport(size: 1 << 20, isSlow: true)
    let live = try LiveServer([("disk", disk)])
    let client = try live.client(of: "disk")
    disk.gate.update { $0 = false }
    client.send(RawClient.request(0, offset: 0, length: 512))
    #expect(becomes { disk.calls.withLock { !$0.isEmpty } })
    disk.isOurs.withLock { $0 = false }
    disk.gate.update { $0 = true }
    #expect(client.receive(1).isEmpty, "something was answered")
  }

  @Test("a reply that is sent in pieces ends within itself")
  func pieces() throws {
    let disk = MemoryExport(size: 16 << 20)
    let live = try LiveServer([("disk", disk)])
    let client = try live.client(of: "disk", style: .simple)
    client.send(RawClient.request(0, offset: 0, length: 16 << 20))
    // The socket holds less than that: the rest waits for a client who reads.
    #expect(client.receive(4096).count == 4096)
    disk.isOurs.withLock { $0 = false }
    var count = 4096
    while true {
      let more = client.receive(64 << 10).count
      guard more > 0 else { break }
      count += more
    }
    #expect(count < 16 << 20)
  }

  @Test("who comes later finds nobody who answers")
  func later() throws {
    let disk = MemoryExport(size: 1 << 20)
    let live = try LiveServer([("disk", disk)])
    disk.isOurs.withLock { $0 = false }
    let client = try live.client(of: "disk")
    client.send(RawClient.request(0, offset: 0, length: 512))
    #expect(client.receive(1).isEmpty)
    disk.isOurs.withLock { $0 = true }
    let next = try live.client(of: "disk")
    next.send(RawClient.request(0, offset: 0, length: 512))
    #expect(next.answer().error == 0)
  }
}
