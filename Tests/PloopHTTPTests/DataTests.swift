import Foundation
import PloopIO
import TestSupport
import Testing

@testable import PloopHTTP

@Suite("The bytes of exports over HTTP")
struct DataTests {
  private static let size = FakeContent.size
  private static let path = "/v1/exports/vm1/data"

  private struct Answer {
    var status: String
    var head: String
    var bytes: [UInt8]
  }

  private func ask(
    _ live: LiveServer, _ options: String, _ door: LiveServer.Door = .unix
  ) throws -> Answer {
    let folder = live.folder.path
    let status = try live.curl(
      "-D '\(folder)/head' -o '\(folder)/body' -w '%{http_code}' \(options)", Self.path, door)
    return Answer(
      status: status, head: try String(contentsOfFile: "\(folder)/head", encoding: .utf8),
      bytes: Array(try Data(contentsOf: URL(filePath: "\(folder)/body"))))
  }

  @Test(
    "a range brings the bytes that the standard says",
    arguments: [
      ("0-0", 0..<1), ("0-262143", 0..<1 << 18), ("131071-131073", 131071..<131074),
      ("393215-", 393_215..<size), ("262144-99999999999999999999999", 1 << 18..<size),
      ("-1", size - 1..<size), ("-200000", size - 200_000..<size), ("-99999999", 0..<size),
    ], LiveServer.Door.allCases)
  func ranges(range: (String, Range<UInt64>), door: LiveServer.Door) throws {
    let answer = try ask(try LiveServer(), "-r \(range.0)", door)
    #expect(answer.status == "206")
    let (first, last) = (range.1.lowerBound, range.1.upperBound - 1)
    #expect(answer.head.contains("Content-Range: bytes \(first)-\(last)/\(Self.size)\r\n"))
    #expect(answer.head.contains("Content-Length: \(range.1.count)\r\n"))
    let isRight = answer.bytes == FakeContent.bytes(range.1)
    #expect(isRight, "\(answer.bytes.count) bytes")
  }

  @Test(
    "what is no range of bytes, or one on condition, is answered with everything",
    arguments: [
      "", "-H 'Range: pages=1-2'", "-H 'Range: bytes'", "-H 'If-Range: \"7\"' -r 0-1",
    ])
  func everything(options: String) throws {
    let answer = try ask(try LiveServer(), options)
    #expect(answer.status == "200")
    #expect(answer.head.contains("Accept-Ranges: bytes\r\n"))
    #expect(!answer.head.contains("Content-Range"))
    let isRight = answer.bytes == FakeContent.bytes(0..<Self.size)
    #expect(isRight, "\(answer.bytes.count) bytes")
  }

  @Test(
    "a range that cannot be is refused with the size",
    arguments: ["393216-", "5-4", "-0", "0-1,5-6", "-", "a-b", "0-1-2", ""])
  func refused(range: String) throws {
    let answer = try ask(try LiveServer(), "-H 'Range: Bytes=\(range)'")
    #expect(answer.status == "416")
    #expect(answer.head.contains("Content-Range: bytes */\(Self.size)\r\n"))
    #expect(String(decoding: answer.bytes, as: UTF8.self).contains("\"code\":\"range-invalid\""))
  }

  @Test("HEAD tells the size, of everything, and OPTIONS what there is")
  func head() throws {
    let live = try LiveServer()
    let head = try live.curl("-I -r 0-1", Self.path)
    #expect(head.hasPrefix("HTTP/1.1 200 "))
    #expect(head.contains("Content-Length: \(Self.size)\r\n"))
    #expect(head.contains("Accept-Ranges: bytes\r\n"))
    for path in [Self.path, "/v1/exports/vm1/extents"] {
      let options = try live.curl("-i -X OPTIONS", path)
      #expect(options.hasPrefix("HTTP/1.1 204 "))
      #expect(options.contains("Allow: GET, HEAD, OPTIONS\r\n"))
    }
  }

  @Test("what breaks in the middle ends the connection, and what breaks at once is a problem")
  func broken() throws {
    let live = try LiveServer()
    live.service.state.withLock { $0.brokenFrom = 1 << 18 }
    let output = try Tool.shell(
      "curl -sS --max-time 30 --unix-socket '\(live.socket(.unix).address)' -o '\(live.folder.path)/part' -w '%{http_code}' 'http://localhost\(Self.path)'",
      check: false)
    // CURLE_PARTIAL_FILE
    #expect(output.status == 18)
    #expect(output.output.hasSuffix("200"))
    let part = Array(try Data(contentsOf: URL(filePath: "\(live.folder.path)/part")))
    #expect(part == FakeContent.bytes(0..<1 << 18))
    let answer = try ask(live, "-r 262144-")
    #expect(answer.status == "500")
    #expect(String(decoding: answer.bytes, as: UTF8.self).contains("\"code\":\"io-error\""))
  }

  @Test("clients that do not read what they have asked for disturb nobody")
  func stalled() throws {
    let live = try LiveServer()
    let stalled = try (0..<60).map { _ in
      let client = try live.client()
      client.send("GET \(Self.path) HTTP/1.1\r\nHost: localhost\r\n\r\n")
      return client
    }
    for _ in 0..<20 { #expect(try live.curl("-o /dev/null -w '%{http_code}'", "/v1") == "200") }
    #expect(try ask(live, "-r 0-99").bytes == FakeContent.bytes(0..<100))
    // They go on where they stopped; some hang up instead.
    for client in stalled.prefix(30) { client.close() }
    for client in stalled.suffix(3) {
      let reply = client.reply()
      #expect(reply?.header("Content-Length") == String(Self.size))
    }
  }
}
