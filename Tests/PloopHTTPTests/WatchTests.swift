import PloopIO
import PloopJSON
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("Revisions in requests")
struct WatchTests {
  /// Requests that wait are answered on a thread of their own: a test that waits for them holds one
  /// of Swift's.
  private let executor: ThreadExecutor

  init() throws { executor = try ThreadExecutor(name: "answers") }

  private func begin(_ service: FakeService, _ target: String) -> Task<HTTPReply, Never> {
    Task(executorPreference: executor) { await ask(service, target) }
  }

  private func ask(
    _ service: FakeService, _ target: String, _ method: String = "GET", ifNoneMatch: String? = nil
  ) async -> HTTPReply {
    var headers = [("Host", "localhost")]
    if let ifNoneMatch { headers.append(("If-None-Match", ifNoneMatch)) }
    let request = HTTPRequest(method: method, target: target.utf8, headers: headers)
    return await Router(service).answer(request, requestID: "r1")
  }

  private func hasWaiting(_ service: FakeService, _ count: Int) throws -> Bool {
    let deadline = Deadline.after(seconds: 600)
    while service.waiting.count != count {
      guard !deadline.hasPassed else { return false }
      try Tool.shell("true")
    }
    return true
  }

  private func change(_ service: FakeService, _ id: String, to revision: UInt64) {
    service.state.withLock { $0.devices[id]?.revision = revision }
    service.waiting.changed([.device(id)])
  }

  @Test(
    "what the caller has is not sent again",
    arguments: [
      ("\"41\"", 304), ("W/\"41\"", 304), ("*", 304), ("\"40\", \"41\"", 304), ("\"40\"", 200),
      ("41", 200), ("", 200),
    ])
  func ifNoneMatch(tags: String, status: Int) async throws {
    let service = try FakeService()
    for method in ["GET", "HEAD"] {
      let reply = await ask(service, "/v1/devices/vm1", method, ifNoneMatch: tags)
      #expect(reply.status == status)
      #expect(reply.header("ETag") == "\"41\"")
      #expect((reply.json == nil) == (status == 304))
    }
    #expect(await ask(service, "/v1/devices/none", ifNoneMatch: "*").status == 404)
    #expect(await ask(service, "/v1/devices", ifNoneMatch: "*").status == 200)
  }

  @Test("a change of the same thing wakes, a change of another does not")
  func woken() async throws {
    let service = try FakeService(devices: ["vm1", "vm2"])
    let reply = begin(service, "/v1/devices/vm1?after_revision=41&wait=60")
    #expect(try hasWaiting(service, 1))
    change(service, "vm2", to: 42)
    service.waiting.changed([.service, .export("vm1")])
    #expect(service.waiting.count == 1)
    // What wakes without being newer is waited through.
    service.waiting.changed([.device("vm1")])
    #expect(try hasWaiting(service, 1))
    change(service, "vm1", to: 43)
    #expect(await reply.value.status == 200)
    #expect(await reply.value.header("ETag") == "\"43\"")
    #expect(service.waiting.count == 0)
  }

  @Test("what is newer already is answered at once, what is gone too")
  func atOnce() async throws {
    let service = try FakeService()
    #expect(await ask(service, "/v1/devices/vm1?after_revision=40&wait=60").status == 200)
    #expect(await ask(service, "/v1/devices/none?after_revision=40&wait=60").status == 404)
    #expect(await ask(service, "/v1?after_revision=917&wait=60").status == 200)
    let reply = begin(service, "/v1/devices/vm1?after_revision=41&wait=60")
    #expect(try hasWaiting(service, 1))
    service.state.withLock { $0.devices["vm1"] = nil }
    service.waiting.changed([.device("vm1")])
    #expect(await reply.value.status == 404)
  }

  @Test("when the time is up the answer is that nothing has changed")
  func timeout() async throws {
    let service = try FakeService()
    let began = monotonicNanoseconds()
    let long = begin(service, "/v1/devices/vm1?after_revision=41&wait=2")
    let short = begin(service, "/v1/exports/vm1?after_revision=7&wait=1")
    let replies = [await long.value, await short.value]
    #expect(replies.map(\.status) == [304, 304])
    #expect(monotonicNanoseconds() - began >= 1_900_000_000)
    #expect(service.waiting.count == 0)
  }

  @Test("no more wait than may, and nobody waits for a service that ends")
  func limits() async throws {
    let service = try FakeService(watchers: 1)
    let waiting = begin(service, "/v1/devices/vm1?after_revision=41&wait=60")
    #expect(try hasWaiting(service, 1))
    let full = await ask(service, "/v1?after_revision=918&wait=60")
    #expect(full.status == 429)
    #expect(full.member("code") == .string("too-many-watchers"))
    #expect(full.header("Retry-After") == "1")
    service.waiting.close()
    #expect(await waiting.value.status == 503)
    #expect(await waiting.value.member("code") == .string("shutting-down"))
    #expect(await ask(service, "/v1?after_revision=918&wait=60").status == 503)
  }

  @Test(
    "wrong parameters are refused",
    arguments: [
      "wait=1", "wait=61", "after_revision=x", "after_revision=1&wait=61", "after_revision=-1",
    ], [nil, 0] as [UInt64?])
  func refused(query: String, activity: UInt64?) async throws {
    let service = try FakeService()
    service.state.withLock { $0.activity = activity }
    let reply = await ask(service, "/v1/devices/vm1?\(query)")
    // A wait for nothing is well-formed, and makes no sense.
    let (status, code) = query == "wait=1" ? (422, "value-impossible") : (400, "invalid-value")
    #expect(reply.status == status && reply.member("code") == .string(code))
    #expect(
      await ask(service, "/v1/devices?after_revision=1").member("code")
        == .string("unknown-parameter"))
  }

  @Test("many wait over HTTP and no thread waits with them")
  func curl() throws {
    let live = try LiveServer()
    let clients = try (0..<16).map { _ in try live.client() }
    let threads = try threadCount()
    for client in clients {
      client.send(
        "GET /v1/devices/vm1?after_revision=41&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }
    #expect(try hasWaiting(live.service, 16))
    // Other tests run in this process: their threads may come, sixteen of ours may not.
    #expect(try threadCount() < threads + 16)
    #expect(try live.curl("", "/healthz") == "{\"status\":\"ok\"}\n")
    change(live.service, "vm1", to: 42)
    for client in clients { #expect(client.reply()?.status == 200) }
    let unchanged = try live.curl("-i -H 'If-None-Match: \"42\"'", "/v1/devices/vm1")
    #expect(unchanged.hasPrefix("HTTP/1.1 304 "))
    #expect(unchanged.contains("ETag: \"42\"\r\n"))
  }

  private func threadCount() throws -> Int {
    Int(
      try Tool.shell("ls /proc/$PPID/task | wc -l").output.filter { $0.isNumber }) ?? 0
  }
}
