import Foundation
import TestSupport
import Testing

@Suite("Events of NBD clients")
struct ClientEventTests {
  @Test("a stream tells who comes to an export and leaves it, with the export as it is then")
  func stream() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 1 << 20, clusterBytes: 1 << 16).status == 201)
    try Tool.shell(
      """
      cd '\(folder.path)'
      curl -sSN --unix-socket api.sock -H 'Accept: text/event-stream' \
        'http://localhost/v1/events?types=client.*&device=vm' > stream 2>&1 & echo $! > curl.pid
      until grep -q ^retry: stream; do kill -0 $!; sleep 0.02; done
      """)
    defer { _ = try? Tool.shell("kill $(cat '\(folder.path)/curl.pid')", check: false) }
    try startClient(
      folder, service.uri("vm"),
      """
      os.mkfifo("leave")
      open("in", "w")
      open("leave").read()
      h.shutdown()
      """)
    let connected = try event("client.connected", folder)
    #expect(connected["subject"] as? String == "vm" && connected["device"] as? String == "vm")
    #expect(connected["revision"] is NSNull && connected["resource"] as? String == "/v1/exports/vm")
    let inside = (connected["object"] as? [String: Any])?["clients"] as? [[String: Any]]
    #expect(inside?.count == 1)
    #expect((inside?.first?["peer"] as? String)?.isEmpty == false)
    try Tool.shell("echo > '\(folder.path)/leave'")
    let gone = try event("client.gone", folder)
    #expect(((gone["object"] as? [String: Any])?["clients"] as? [Any])?.isEmpty == true)
    // They are no part of the ring.
    let list = try service.get("/v1/events").json["items"] as? [[String: Any]]
    let types = list?.compactMap { $0["type"] as? String } ?? []
    #expect(!types.isEmpty && !types.contains { $0.hasPrefix("client.") })
  }

  /// The data of the first event of a type, once it has come.
  private func event(_ type: String, _ folder: TemporaryFolder) throws -> [String: Any] {
    let text = try Tool.shell(
      """
      cd '\(folder.path)'
      until grep -q '^event: \(type)$' stream && grep -A1 '^event: \(type)$' stream | grep -q '}$'
      do kill -0 $(cat curl.pid) || exit; sleep 0.02; done
      grep -A1 '^event: \(type)$' stream | grep -m1 ^data: | cut -c7-
      """, seconds: 300
    ).output
    let json = try JSONSerialization.jsonObject(with: Data(text.utf8))
    return try #require(json as? [String: Any])
  }
}
