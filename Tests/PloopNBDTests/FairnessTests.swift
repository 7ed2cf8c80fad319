import PloopIO
import PloopNBD
import TestSupport
import Testing

@Suite("Clients beside greedy ones")
struct FairnessTests {
  @Test("who has few requests waiting is served as often as who has many")
  func shares() throws {
    let disk = MemoryExport(size: 8 << 20, isSlow: true)
    // With one thread the order in which work begins is the order in which it is recorded.
    let live = try LiveServer([("disk", disk)], threads: 1)
    disk.gate.update { $0 = false }
    let greedy = try live.client(of: "disk")
    let modest = try live.client(of: "disk")
    func waiting() -> [Int] {
      live.server.clients(of: Array("disk".utf8)).map(\.requestsInFlight).sorted()
    }
    for _ in 0..<120 { greedy.send(RawClient.request(0, offset: 0, length: 512)) }
    #expect(becomes { waiting() == [0, 120] })
    for _ in 0..<30 { modest.send(RawClient.request(0, offset: 4096, length: 512)) }
    #expect(becomes { waiting() == [30, 120] })
    disk.gate.update { $0 = true }
    for _ in 0..<30 { #expect(modest.answer().error == 0) }
    for _ in 0..<120 { #expect(greedy.answer().error == 0) }
    let calls = disk.calls.withLock { $0 }
    let shares = (0...60).map { count in
      calls.prefix(count).reduce(0) { $0 + ($1 == "read 0 512" ? 1 : -1) }
    }
    // One of the greedy one's was begun while nobody else was there.
    #expect(shares.allSatisfy { (0...2).contains($0) })
    #expect(calls.count == 150)
  }
}
