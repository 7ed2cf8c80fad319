import PloopControl
import PloopIO
import PloopJSON
import Testing

@testable import PloopHTTP

@Suite("Requests with a key")
struct KeyedRequestTests {
  private static let body = #"{"id":"new","deltas":[{"path":"a"}],"export":{"name":"new"}}"#
  let service: FakeService

  init() throws { service = try FakeService() }

  private func post(
    _ key: String?, _ body: String = body, _ target: String = "/v1/devices", id: String = "r1"
  ) async -> HTTPReply {
    var headers = [("Host", "localhost"), ("Content-Type", "application/json")]
    if let key { headers.append(("Idempotency-Key", key)) }
    let request = HTTPRequest(
      method: "POST", target: target.utf8, headers: headers, body: Array(body.utf8))
    return await Router(service).answer(request, requestID: id)
  }

  @Test("the second one gets the first one's answer, and makes nothing", arguments: ["k", "\"k\""])
  func replayed(key: String) async {
    let first = await post("k", id: "r1")
    let second = await post(key, id: "r2")
    #expect(first.status == 201 && second.status == 201)
    #expect(first.body?.encoded == second.body?.encoded)
    for name in ["ETag", "Location"] { #expect(first.header(name) == second.header(name)) }
    #expect(first.header("Idempotency-Replayed") == nil)
    #expect(second.header("Idempotency-Replayed") == "true")
    #expect(second.header("X-Request-Id") == "r2")
    #expect(service.state.withLock { $0.attached.count } == 1)
    let without = await post(nil)
    #expect(without.header("Idempotency-Replayed") == nil)
    #expect(service.state.withLock { $0.attached.count } == 2)
  }

  @Test("exports are made once, too")
  func exports() async {
    let body = #"{"name":"door","device":"vm1"}"#
    let first = await post("k", body, "/v1/exports")
    let second = await post("k", body, "/v1/exports")
    #expect(first.status == 201)
    #expect(first.body?.encoded == second.body?.encoded)
    #expect(second.header("Idempotency-Replayed") == "true")
  }

  @Test(
    "a key belongs to one request",
    arguments: [
      (#"{"id":"other","deltas":[{"path":"a"}]}"#, "/v1/devices"), (body + " ", "/v1/devices"),
      (#"{"name":"door","device":"vm1"}"#, "/v1/exports"),
    ])
  func reused(body: String, target: String) async {
    _ = await post("k")
    let reply = await post("k", body, target)
    #expect(reply.status == 422)
    #expect(reply.member("code") == .string("idempotency-key-reused"))
  }

  @Test("while the first is being served the second is told so")
  func inUse() async throws {
    service.keyed.close()
    // On a thread of its own: the test that waits for it holds one of Swift's.
    let executor = try ThreadExecutor(name: "first")
    let first = Task(executorPreference: executor) { await post("k") }
    #expect(service.keyed.hasWaiting(1))
    let second = await post("k")
    #expect(second.status == 409)
    #expect(second.member("code") == .string("idempotency-key-in-use"))
    service.keyed.open()
    #expect(await first.value.status == 201)
    #expect(await post("k").header("Idempotency-Replayed") == "true")
  }

  @Test("a refusal is not kept")
  func refused() async {
    service.state.withLock { $0.failure = ServiceError(.insufficientSpace, "full") }
    #expect(await post("k").status == 409)
    service.state.withLock { $0.failure = nil }
    #expect(await post("k").status == 201)
    #expect(await post("l", "{").status == 400)
    #expect(await post("l").header("Idempotency-Replayed") == nil)
  }

  @Test(
    "a key is visible text of a bounded length",
    arguments: [
      "", "\"\"", String(repeating: "k", count: 256), "a b", "a\"b", "\"a", "a\\b", "\"ü\"",
      "\"a\tb\"",
    ])
  func unfit(key: String) async {
    let reply = await post(key)
    #expect(reply.status == 400)
    #expect(reply.member("code") == .string("invalid-value"))
    #expect(await post(String(repeating: "k", count: 255)).status == 201)
  }
}
