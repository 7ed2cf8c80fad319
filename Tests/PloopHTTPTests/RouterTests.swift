import PloopIO
import PloopJSON
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("The routes")
struct RouterTests {
  let service: FakeService

  init() throws { service = try FakeService(devices: ["vm1", "vm2", "vm3"]) }

  private func ask(
    _ method: String, _ target: String, _ body: String? = nil,
    headers: [(name: String, value: String)] = [], host: String? = "localhost"
  ) async -> HTTPReply {
    var headers = headers
    if let host { headers.append(("Host", host)) }
    if body != nil, !headers.contains(where: { $0.name == "Content-Type" }) {
      headers.append(("Content-Type", "application/json"))
    }
    let request = HTTPRequest(
      method: method, target: target.utf8, headers: headers, body: Array((body ?? "").utf8))
    return await Router(service).answer(request, requestID: "r1")
  }

  // MARK: finding the route

  @Test(
    "only exact paths are routes",
    arguments: [
      "//", "/v1/", "//v1", "/v2", "/V1", "/healthz/", "/v1/devices/", "/v1//devices",
      "/v1/devices/vm1/", "/v1/devices//stats", "/v1/devices/vm1/deltas/",
      "/v1/devices/vm1/nothing",
      "/v1/./devices", "/v1/devices/../devices", "/v1/devices/vm1/deltas/0/x", "/v1%2Fdevices",
      "/dashboard", "/dashboard/", "/dashboard/base.css", "/dashboard/core/",
      "/dashboard/core/none.js",
      "/dashboard/core/..%2F..%2Findex.html", "/dashboard/./index.html",
    ])
  func noRoute(target: String) async {
    let reply = await ask("GET", target)
    #expect(reply.status == 404)
    #expect(reply.member("code") == .string("not-found"))
  }

  @Test("a segment is decoded after the path was split")
  func segments() async {
    #expect(await ask("GET", "/v1/devices/%76m1").status == 200)
    #expect(await ask("GET", "/v1/%64evices/vm1").status == 200)
    let slash = await ask("GET", "/v1/devices/vm1%2Fstats")
    #expect(slash.member("code") == .string("device-not-found"))
    #expect(slash.member("instance") == .string("/v1/devices/vm1%2Fstats"))
    #expect(await ask("GET", "/v1/devices/vm1?").status == 200)
    #expect(await ask("GET", "http://localhost/v1/devices/vm1").status == 200)
  }

  @Test(
    "a target that is no target is a bad request",
    arguments: [
      "", "*", "v1", "?limit=1", "ftp://localhost/v1", "/v1/devices/%", "/v1/devices/%7",
      "/v1/devices/%zz", "/v1/devices/%+1", "/v1/devices/%00", "/v1/devices/%FF",
      "/v1/devices/%C0%AF", "/v1/devices/%ED%A0%80", "/v1/devices?limit=%", "/v1/devices?%00=1",
      "/v1/devices?cursor=%FF",
    ])
  func badTargets(target: String) async {
    let reply = await ask("GET", target)
    #expect(reply.status == 400)
    #expect(reply.member("code") == .string("bad-request"))
  }

  @Test("a method that a path has not is refused with those that it has")
  func methods() async {
    let cases = [
      ("PUT", "/v1/devices", "GET, HEAD, OPTIONS, POST"),
      ("POST", "/v1/devices/vm1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
      ("FOO", "/healthz", "GET, HEAD, OPTIONS"), ("get", "/healthz", "GET, HEAD, OPTIONS"),
      ("TRACE", "/v1", "GET, HEAD, OPTIONS"),
    ]
    for (method, path, allowed) in cases {
      let reply = await ask(method, path, "{}")
      #expect(reply.status == 405)
      #expect(reply.header("Allow") == allowed)
      let options = await ask("OPTIONS", path)
      #expect(options.status == 204 && options.body == nil)
      #expect(options.header("Allow") == allowed)
    }
    #expect(await ask("OPTIONS", "/nothing").status == 404)
  }

  @Test("HEAD is answered as GET is")
  func head() async {
    for path in ["/v1", "/v1/devices/vm1", "/v1/devices/none"] {
      let (get, head) = await (ask("GET", path), ask("HEAD", path))
      #expect(get.status == head.status && get.json == head.json)
      #expect(get.headers.map(\.name) == head.headers.map(\.name))
    }
  }

  @Test("unknown parameters, and known ones that are there twice, are refused")
  func parameters() async {
    let cases = [
      ("/v1?a=1", "unknown-parameter"), ("/v1/devices?Limit=1", "unknown-parameter"),
      ("/v1/devices/vm1?dry_run=true", "unknown-parameter"),
      ("/v1/exports?state=online", "unknown-parameter"), ("/v1/devices?=1", "unknown-parameter"),
      ("/v1/devices?limit=1&limit=1", "invalid-value"),
      ("/v1/devices?limit=1&%6Cimit=1", "invalid-value"),
      ("/v1/devices?label.a=1&label.a=2", "invalid-value"),
      ("/v1/devices?limit=0", "invalid-value"), ("/v1/devices?limit=1001", "invalid-value"),
      ("/v1/devices?limit=", "invalid-value"), ("/v1/devices?limit", "invalid-value"),
      ("/v1/devices?limit=%2B5", "invalid-value"), ("/v1/devices?limit=-1", "invalid-value"),
      ("/v1/devices?limit=1.0", "invalid-value"), ("/v1/devices?limit=%D9%A1", "invalid-value"),
      ("/v1/devices?limit=99999999999999999999", "invalid-value"),
      ("/v1/devices?state=sleeping", "invalid-value"),
      ("/v1/devices/vm1/map?length=0", "invalid-value"),
      ("/v1/devices/vm1/map?limit=10001", "invalid-value"),
    ]
    for (target, slug) in cases {
      let reply = await ask("GET", target)
      #expect(reply.status == 400, "\(target)")
      #expect(reply.member("code") == .string(slug), "\(target)")
    }
    #expect(await ask("DELETE", "/v1/devices/vm1?mode=soft").status == 400)
    #expect(await ask("GET", "/v1/devices/vm1/map?offset=0&length=1&limit=10000").status == 200)
  }

  // MARK: replies

  @Test("every reply has its request id and is neither stored nor guessed at")
  func commonHeaders() async {
    for path in ["/healthz", "/v1/devices/none", "/%"] {
      let reply = await ask("GET", path)
      #expect(reply.header("X-Request-Id") == "r1")
      #expect(reply.header("Cache-Control") == "no-store")
      #expect(reply.header("X-Content-Type-Options") == "nosniff")
    }
  }

  @Test("one resource has its revision as ETag, a new one its place")
  func resourceHeaders() async {
    #expect(await ask("GET", "/v1/devices/vm1").header("ETag") == "\"41\"")
    #expect(await ask("GET", "/v1/exports/vm1").header("ETag") == "\"7\"")
    let device = await ask("POST", "/v1/devices", #"{"id":"new","deltas":[{"path":"a"}]}"#)
    #expect(device.status == 201 && device.header("ETag") == "\"41\"")
    #expect(device.header("Location") == "/v1/devices/new")
    let export = await ask("POST", "/v1/exports", #"{"name":"door","device":"vm1"}"#)
    #expect(export.status == 201 && export.header("ETag") == "\"7\"")
    #expect(export.header("Location") == "/v1/exports/door")
    let gone = await ask("DELETE", "/v1/exports/vm1?mode=hard")
    #expect(gone.status == 204 && gone.body == nil)
    #expect(service.state.withLock { $0.modes } == [.hard])
  }

  @Test("the pages of a list, by its links, are the whole list with its filters kept")
  func pages() async throws {
    var target: String? = "/v1/devices?limit=1&label.tenant=%61&state=online"
    var ids: [JSON?] = []
    var steps = 0
    while let next = target, steps < 10 {
      steps += 1
      let reply = await ask("GET", next)
      #expect(reply.status == 200)
      guard case .array(let items)? = reply.member("items") else { break }
      ids += items.map { $0.member("id") }
      let link = reply.header("Link")
      #expect((link == nil) == (reply.member("next") == .null))
      target = link.map { String($0.dropFirst().prefix { $0 != ">" }) }
      if let target { #expect(target.contains("limit=1&label.tenant=a&state=online&cursor=vm")) }
    }
    #expect(ids == [.string("vm1"), .string("vm2"), .string("vm3")])
    let none = await ask("GET", "/v1/devices?label.tenant=b")
    #expect(none.member("items") == .array([]) && none.header("Link") == nil)
  }

  @Test("a problem says all that the service knows")
  func problems() async {
    service.state.withLock {
      $0.failure = ServiceError(
        .deviceInUse, "two clients", cause: "why", remedy: "do this", errno: "EBUSY",
        holder: .init(kind: "client", id: "3"), pointer: "/id",
        facts: ["clients": .clients([Sample.client]), "nearest": .numbers([1, 2])])
    }
    let reply = await ask("DELETE", "/v1/devices/vm1")
    #expect(reply.status == 409 && reply.isProblem)
    let expected: [(String, JSON)] = [
      ("type", .string("/problems/device-in-use")), ("status", .integer(409)),
      ("code", .string("device-in-use")), ("detail", .string("two clients")),
      ("instance", .string("/v1/devices/vm1")), ("request_id", .string("r1")),
      ("errno", .string("EBUSY")), ("cause", .string("why")), ("remedy", .string("do this")),
      ("holder", .members(["kind": .string("client"), "id": .string("3")])),
      ("nearest", .array([.integer(1), .integer(2)])),
    ]
    for (name, value) in expected { #expect(reply.member(name) == value) }
  }

  @Test("ready is 200, not yet ready is 503 with the checks")
  func readiness() async {
    #expect(await ask("GET", "/readyz").status == 200)
    service.state.withLock { $0.isReady = false }
    let reply = await ask("GET", "/readyz")
    #expect(reply.status == 503 && reply.member("status") == .string("not_ready"))
  }

  @Test("a delta is found by its level, and the top by name too")
  func deltas() async {
    #expect(await ask("GET", "/v1/devices/vm1/deltas/0").member("format") == .string("raw"))
    #expect(await ask("GET", "/v1/devices/vm1/deltas/top").member("level") == .integer(1))
    for level in ["2", "00", "+0", "-1", "Top"] {
      let reply = await ask("GET", "/v1/devices/vm1/deltas/\(level)")
      #expect(reply.member("code") == .string("delta-not-found"))
    }
  }

  // MARK: conditions

  @Test("If-Match is compared strongly: a revision is handed on, a weak tag equals nothing")
  func ifMatch() async {
    func status(_ values: String...) async -> Int {
      await ask("DELETE", "/v1/devices/vm1", headers: values.map { ("If-Match", $0) }).status
    }
    #expect(await status("\"41\"") == 204)
    #expect(await status("*") == 204)
    #expect(await status() == 204)
    #expect(await status("42") == 204)
    #expect(service.state.withLock { $0.ifRevisions } == [41, nil, nil, 42])
    for tag in [
      "W/\"41\"", "\"\"", "\"x\"", "\"+41\"", "\"99999999999999999999\"", "99999999999999999999",
    ] {
      #expect(await status(tag) == 412, "\(tag)")
    }
    for tag in ["", "41x", "\"", "\"41", "\"41\", \"42\"", "w/\"41\"", "**"] {
      #expect(await status(tag) == 400, "\(tag)")
    }
    #expect(await status("\"41\"", "\"41\"") == 400)
    #expect(service.state.withLock { $0.ifRevisions.count } == 4)
  }

  @Test("a problem that the catalogue does not have is a mistake of ours, and says so")
  func unknownProblem() {
    let problem = Problem("no-such-thing", "somebody has forgotten it")
    #expect(problem.status == 500)
    let body = problem.body(instance: "/v1", requestID: "r1")
    #expect(body.member("code") == .string("internal"))
    #expect(body.member("type") == .string("/problems/internal"))
  }

  @Test("headers that nobody knows are ignored")
  func unknownHeaders() async {
    let reply = await ask(
      "GET", "/v1/devices/vm1",
      headers: [("Idempotency-Key", "a"), ("Prefer", "wait=5"), ("X-Any", "1")])
    #expect(reply.status == 200)
  }
}

extension HTTPReply {
  /// The value, whether or not somebody has made its text already.
  var json: JSON? {
    if let body { return body }
    let text = bytes ?? sharedBytes?.region.bytes
    return bytesType == "application/json" ? text.flatMap { try? JSONParser.parse($0) } : nil
  }

  func member(_ name: String) -> JSON? { json?.member(name) }
}
