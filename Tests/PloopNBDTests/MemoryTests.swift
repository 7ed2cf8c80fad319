import PloopIO
import PloopNBD
import TestSupport
import Testing

@Suite("The memory of NBD clients")
struct MemoryTests {
  private static let mebibyte = 1 << 20

  private func limits(server: Int, stallSeconds: Int = 60) -> Limits {
    var limits = Limits()
    limits.serverBytesInFlight = server
    limits.bytesInFlight = 2 << 20
    limits.stallSeconds = stallSeconds
    return limits
  }

  /// Memory of this process, the server's among it.
  private func residentBytes() throws -> Int {
    let line = try Tool.shell("grep VmRSS /proc/$PPID/status | tr -dc 0-9").output
    return try #require(Int(line)) << 10
  }

  @Test("a payload that is announced and does not come costs nothing")
  func announced() throws {
    let disk = MemoryExport(size: 64 << 20, isSlow: true)
    let live = try LiveServer([("disk", disk)], limits: limits(server: Self.mebibyte))
    let before = try residentBytes()
    let clients = try (0..<60).map { _ in try live.client(of: "disk") }
    for client in clients {
      client.send(RawClient.request(1, length: 64 << 20) + [UInt8](repeating: 1, count: 1000))
    }
    let name = Array("disk".utf8)
    #expect(becomes { live.server.clients(of: name).allSatisfy { $0.receivedBytes > 1000 } })
    #expect(live.server.bytesInFlight == 0)
    // 60 payloads would be 3,840 MiB; other suites run in this process as well.
    #expect(try residentBytes() - before < 1500 << 20)
    try canary(live)
  }

  /// Requests of up to 256 KiB are carried out whatever the others hold.
  private func canary(_ live: LiveServer) throws {
    let client = try live.client(of: "disk", style: .simple)
    let bytes = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    for _ in 0..<5 {
      #expect(client.call(1, offset: 4096, length: 200_000, flags: 1, payload: bytes).error == 0)
      #expect(client.call(0, offset: 4096, length: 200_000).data == bytes)
    }
  }

  @Test("a payload is charged as it comes, and given back when its client leaves")
  func charged() throws {
    let disk = MemoryExport(size: 8 << 20, isSlow: true)
    let live = try LiveServer([("disk", disk)], limits: limits(server: 4 << 20))
    do {
      let client = try live.client(of: "disk")
      client.send(RawClient.request(1, length: 4 << 20) + [UInt8](repeating: 1, count: 900_000))
      #expect(becomes { live.server.bytesInFlight > 600_000 })
      #expect(live.server.bytesInFlight <= Self.mebibyte)
    }
    #expect(becomes { live.server.bytesInFlight == 0 })
  }

  @Test("large writes that together want more than there is are all carried out")
  func manyLarge() throws {
    let count = 12
    let bytes = 3 << 20
    let disk = MemoryExport(size: count * bytes, isSlow: true)
    let live = try LiveServer([("disk", disk)], limits: limits(server: Self.mebibyte))
    let clients = try (0..<count).map { _ in try live.client(of: "disk", style: .simple) }
    // Each sends a part until memory is short, before any sends the rest: all of it is held by
    // clients that wait for more.
    var rests = [Int](repeating: bytes, count: count)
    for (index, client) in clients.enumerated() {
      client.send(RawClient.request(1, offset: UInt64(index * bytes), length: UInt32(bytes)))
    }
    #expect(
      becomes {
        for (index, client) in clients.enumerated() where rests[index] > bytes / 2 {
          rests[index] -= client.sendNow([UInt8](repeating: UInt8(index + 1), count: 100_000))
        }
        return live.server.bytesInFlight > Self.mebibyte
      })
    let left = rests
    let answered = Monitor(0)
    for (index, client) in clients.enumerated() {
      let carried = Unchecked(client)
      try Thread(name: "writer") {
        carried.value.send([UInt8](repeating: UInt8(index + 1), count: left[index]))
        let answer = carried.value.answer()
        answered.update { $0 += answer.error == 0 ? 1 : 0 }
      }.detach()
    }
    #expect(answered.wait(until: .after(seconds: 20)) { $0 == count ? true : nil } == true)
    for index in 0..<count {
      #expect(
        disk.content(index * bytes, bytes) == [UInt8](repeating: UInt8(index + 1), count: bytes))
    }
    #expect(becomes { live.server.bytesInFlight == 0 })
  }

  @Test("clients that do not read hold a bounded amount, and small requests go on")
  func deaf() throws {
    let disk = MemoryExport(size: 8 << 20, isSlow: true)
    let live = try LiveServer([("disk", disk)], limits: limits(server: 4 << 20, stallSeconds: 1))
    let clients = try (0..<10).map { _ in try live.client(of: "disk") }
    for client in clients {
      for _ in 0..<32 { client.send(RawClient.request(0, length: 1 << 20, cookie: 1)) }
    }
    #expect(becomes { live.server.bytesInFlight >= 3 << 20 })
    try canary(live)
    // The limit, and what one connection may have besides.
    #expect(live.server.bytesInFlight <= (4 + 2 + 1) << 20)
    // Those who wait for their memory get it once the deaf have had their time.
    let reader = try live.client(of: "disk")
    for _ in 0..<8 { #expect(reader.call(0, length: 2 << 20).error == 0) }
  }

  @Test("a client that holds memory and does not get on is ended when others wait, not before")
  func stalled() throws {
    let disk = MemoryExport(size: 8 << 20, isSlow: true)
    let live = try LiveServer(
      [("disk", disk)], limits: limits(server: Self.mebibyte, stallSeconds: 1))
    let stalled = try live.client(of: "disk")
    stalled.send(RawClient.request(1, length: 4 << 20) + [UInt8](repeating: 1, count: 3 << 20))
    // It is the favourite: 3 MiB out of 1.
    #expect(becomes { live.server.bytesInFlight > 2 << 20 })
    let other = try live.client(of: "disk", style: .simple)
    let bytes = [UInt8](repeating: 7, count: 2 << 20)
    #expect(other.call(1, offset: 4 << 20, length: 2 << 20, payload: bytes).error == 0)
    #expect(stalled.isHungUp)
    #expect(disk.content(4 << 20, 2 << 20) == bytes)
    #expect(disk.content(0, 4 << 20) == [UInt8](repeating: 0, count: 4 << 20))
    #expect(becomes { live.server.bytesInFlight == 0 })
  }
}
