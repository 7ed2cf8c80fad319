import PloopIO
import PloopJSON
import Testing

@testable import PloopHTTP

@Suite("Lists that were made a moment ago")
struct ListCacheTests {
  private let cache = ListCache()
  private let made = Locked<Int64>(0)

  /// - Returns: which one it is of those that were made.
  private func ask(
    _ target: String = "/v1/devices", changes: UInt64 = 1, now: UInt64 = 0
  ) async throws -> HTTPReply {
    try await cache.reply(to: target, changes: changes, now: now) { () async throws(Problem) in
      let number: Int64 = made.withLock { made in
        made += 1
        return made
      }
      return HTTPReply(200, .integer(number))
    }
  }

  @Test(
    "are given again for so long as nothing has changed, and not for longer than they may be old")
  func fresh() async throws {
    let limit = ListCache.milliseconds * 1_000_000
    #expect(try await ask().json == .integer(1))
    let again = try await ask(now: limit - 1)
    #expect(again.bytes == Array("1\n".utf8) && again.contentType == "application/json")
    #expect(again.body == nil)
    #expect(try await ask("/v1/devices?limit=1").json == .integer(2))
    #expect(try await ask(changes: 2).json == .integer(3))
    #expect(try await ask(changes: 2, now: limit).json == .integer(4))
    #expect(try await ask(changes: 2, now: 2 * limit - 1).json == .integer(4))
  }

  @Test("are not kept without end")
  func few() async throws {
    for number in 0..<50 { _ = try await ask("/v1/devices?cursor=\(number)") }
    #expect(try await ask("/v1/devices?cursor=49").json == .integer(50))
    #expect(try await ask("/v1/devices?cursor=0").json == .integer(51))
  }

  @Test("reach the client as others do, with the end of their last line")
  func live() throws {
    let live = try LiveServer()
    let first = try live.curl("", "/v1/devices")
    #expect(first.hasSuffix("}\n") && first.contains("\"vm1\""))
    #expect(try live.curl("", "/v1/devices") == first)
  }
}
