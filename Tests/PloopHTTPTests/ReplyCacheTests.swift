import PloopControl
import PloopIO
import PloopJSON
import TestSupport
import Testing

@testable import PloopHTTP

@Suite("Replies that were made a moment ago")
struct ReplyCacheTests {
  private let cache = ReplyCache()
  private let route = Router.routes[0]
  private let limit: UInt64 = 200_000_000

  private let activity = Locked<UInt64>(0)

  private func keep(
    _ text: String, to target: String = "/v1/devices", changes: UInt64 = 1, made: UInt64 = 100
  ) {
    let stamp = ReplyCache.Stamp(
      changes: changes, activity: DeviceActivity { [activity] in activity.withLock { $0 } })
    cache.keep(
      HTTPReply(200, .string(text)).shared, to: target, by: route, ["vm"],
      Traffic().tally("GET", route.template, 200), stamp, begun: 1_000 &- made, now: 1_000)
  }

  private func ask(
    _ target: String = "/v1/devices", changes: UInt64 = 1, after: UInt64 = 0
  ) -> JSON? {
    cache.kept(for: target, changes: changes, now: 1_000 + after).flatMap { kept in
      #expect(kept.arguments == ["vm"] && kept.route.operationID == route.operationID)
      return try? JSON.read(kept.reply.sharedBytes?.region.bytes ?? [])
    }
  }

  @Test(
    "are given again for so long as nothing has changed, and not for longer than they may be old")
  func fresh() {
    #expect(ask() == nil)
    keep("first")
    #expect(ask(after: limit - 1) == .string("first"))
    #expect(ask("/v1/devices?limit=1") == nil)
    #expect(ask(changes: 2) == nil)
    #expect(ask(after: limit) == nil)
    activity.withLock { $0 += 1 }
    #expect(ask() == nil)
    keep("second", changes: 2)
    #expect(ask(changes: 2) == .string("second"))
  }

  @Test("take at most a tenth of the time to be made, and are never older than a second")
  func slow() {
    keep("slow", made: 30_000_000)
    #expect(ask(after: 300_000_000 - 1) == .string("slow"))
    #expect(ask(after: 300_000_000) == nil)
    #expect(ask(changes: 2) == nil)
    keep("slower", made: .max / 2)
    #expect(ask(after: 1_000_000_000 - 1) == .string("slower"))
    #expect(ask(after: 1_000_000_000) == nil)
  }

  @Test("are not kept without end")
  func few() {
    for number in 0..<1_025 { keep("it", to: "/\(number)") }
    #expect(ask("/1024") == .string("it"))
    #expect((0..<1_024).allSatisfy { ask("/\($0)") == nil })
    let large = String(repeating: "x", count: 6 << 20)
    for number in 0..<3 { keep(large, to: "/large/\(number)") }
    #expect(ask("/large/0") == nil && ask("/1024") == nil)
    #expect(ask("/large/2") != nil)
    keep(String(repeating: "x", count: 17 << 20), to: "/too/large")
    #expect(ask("/too/large") == nil && ask("/large/2") != nil)
  }

  @Test("reach the client as others do, with the end of their last line")
  func live() throws {
    let live = try LiveServer()
    let first = try live.curl("", "/v1/devices")
    #expect(first.hasSuffix("}\n") && first.contains("\"vm1\""))
    #expect(try live.curl("", "/v1/devices") == first)
  }
}
