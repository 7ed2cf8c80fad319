import PloopIO
import TestSupport
import Testing

@testable import PloopNBD

@Suite("What clients have sent and been sent")
struct ClientTrafficTests {
  @Test(
    "is another by the time that a client has its reply than while its request was carried out")
  func told() throws {
    let disk = MemoryExport(size: 1 << 20, isSlow: true)
    let live = try LiveServer([("disk", disk)])
    let client = try live.client(of: "disk")
    let traffic = try #require(live.server.traffic(of: [Array("disk".utf8)]).first)
    for _ in 0..<300 {
      disk.gate.update { $0 = false }
      #expect(client.send(RawClient.request(1, length: 512) + [UInt8](repeating: 7, count: 512)))
      let deadline = Deadline.after(seconds: 120)
      while live.server.clients(of: Array("disk".utf8)).first?.requestsInFlight != 1 {
        try #require(!deadline.hasPassed)
      }
      let before = traffic.activity
      disk.gate.update { $0 = true }
      #expect(client.answer().error == 0)
      #expect(traffic.activity != before)
    }
  }
}
