import PloopIO
import PloopJSON
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("What callers may do")
struct AdmissionTests {
  let service: FakeService

  init() throws {
    service = try FakeService(devices: ["vm1", "vm2", "other"])
    service.state.withLock { state in
      state.exports["other"]?.device = "other"
      state.jobs["01KAR9"] = Sample.job("hash", of: "other", id: "01KAR9")
      state.jobs["01KARA"] = Sample.job("verify", of: nil, id: "01KARA")
    }
  }

  private func ask(
    _ grant: Grant, _ method: String, _ target: String, _ body: String = ""
  ) async -> HTTPReply {
    var request = HTTPRequest(
      method: method, target: target.utf8,
      headers: [("Host", "localhost"), ("Content-Type", "application/json")],
      body: Array(body.utf8))
    request.caller = .success(Caller(actor: "token:t", grant: grant))
    return await Router(service).answer(request, requestID: "r1")
  }

  private func code(_ reply: HTTPReply) -> String {
    guard case .string(let code)? = reply.member("code") else { return "\(reply.status)" }
    return code
  }

  private func target(_ route: Route, device: String) -> String {
    route.template.replacing("/devices/{id}", with: "/devices/\(device)")
      .replacing("{id}", with: "01KAR7").replacing("{level}", with: "0")
      .replacing("{uuid}", with: "6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01")
      .replacing("{name}", with: "vm1")
  }

  @Test("each route wants its scope, and says which")
  func scopes() async {
    for route in Router.routes {
      for scope in Scope.allCases {
        let isEnough = route.scope.map(Grant([scope]).allows) ?? true
        let reply = await ask(Grant([scope]), route.method, target(route, device: "vm1"))
        #expect((code(reply) == "scope-missing") == !isEnough, "\(route.operationID) \(scope)")
        guard !isEnough else { continue }
        #expect(reply.status == 403)
        #expect(reply.member("scope") == route.scope.map { .string($0.rawValue) })
      }
    }
  }

  @Test("a larger disk, and jobs that name files or make disks, want more than their routes")
  func particular() async {
    let operate = Grant([.operate])
    let size = await ask(operate, "PATCH", "/v1/devices/vm1", #"{"size":21474836480}"#)
    #expect(code(size) == "scope-missing" && size.member("scope") == .string("admin"))
    #expect(await ask(operate, "PATCH", "/v1/devices/vm1", #"{"autostart":true}"#).status == 200)
    // As which a job hands a disk over nobody else suspends one.
    let posed = await ask(
      operate, "PATCH", "/v1/devices/vm1", #"{"noresume":true,"holder":"job:01KAR7"}"#)
    #expect(code(posed) == "invalid-value")
    let jobs: [(String, Bool)] = [
      (#"{"type":"merge","device":"vm1"}"#, true), (#"{"type":"hash","device":"vm1"}"#, true),
      (#"{"type":"backup","device":"vm1","params":{"target":"nas"}}"#, true),
      (#"{"type":"backup","device":"vm1","params":{"to":{"kind":"nbd"}}}"#, false),
      (
        #"{"type":"backup","device":"vm1","params":{"target":"nas","spill":{"max_bytes":1}}}"#, true
      ),
      (
        #"{"type":"backup","device":"vm1","params":{"target":"nas","spill":{"path":"main:x"}}}"#,
        false
      ),
      (#"{"type":"check","params":{"image":"main:a.hds"}}"#, false),
      (#"{"type":"prune","params":{"target":"nas","keep_last":1}}"#, true),
      (#"{"type":"restore","params":{"target":"nas","backup":"01KAS"}}"#, false),
      (#"{"type":"import","params":{}}"#, false), (#"{"type":"resize","device":"vm1"}"#, false),
      (#"{"type":"of tomorrow","device":"vm1"}"#, false),
    ]
    for (body, isAllowed) in jobs {
      for path in ["/v1/jobs", "/v1/jobs?dry_run=true"] {
        let reply = await ask(operate, "POST", path, body)
        #expect((code(reply) == "scope-missing") == !isAllowed, "\(body)")
        #expect(code(await ask(Grant([.admin]), "POST", path, body)) != "scope-missing", "\(body)")
      }
    }
  }

  @Test("whoever is not known is 401 on every route that wants anything, and the contract is open")
  func unknown() async {
    for route in Router.routes {
      let request = HTTPRequest(
        from: .unknown, method: route.method, target: target(route, device: "none").utf8,
        headers: [("Host", "localhost"), ("Content-Type", "application/json")])
      let reply = await Router(service).answer(request, requestID: "r1")
      #expect((reply.status == 401) == (route.scope != nil), "\(route.operationID)")
      #expect((reply.header("WWW-Authenticate") != nil) == (route.scope != nil))
    }
    for (method, path, status) in [
      ("OPTIONS", "/v1/devices", 204), ("GET", "/nothing", 404), ("PUT", "/v1/devices", 405),
    ] {
      let request = HTTPRequest(
        from: .unknown, method: method, target: path.utf8, headers: [("Host", "localhost")])
      #expect(await Router(service).answer(request, requestID: "r1").status == status)
    }
  }

  @Test("failures that come too often are 429 with the time after which to try again")
  func throttled() async {
    let router = Router(service)
    let request = HTTPRequest(
      method: "GET", target: "/v1".utf8,
      headers: [("Host", "localhost"), ("Authorization", "Bearer plp_x")])
    for _ in 0..<10 { #expect(await router.answer(request, requestID: "r1").status == 401) }
    let reply = await router.answer(request, requestID: "r1")
    #expect(reply.status == 429 && code(reply) == "too-many-failures")
    #expect((reply.header("Retry-After").flatMap(Int.init) ?? 0) >= 1)
  }

  @Test("nobody but who may do everything takes more than a quarter of the places for events")
  func watchers() throws {
    let watchers = EventWatchers(limit: 8)
    let (one, other) = (
      Caller(actor: "token:a", grant: Grant([.read])), Caller(actor: "token:b", grant: some)
    )
    let root = Caller(actor: "uid:0", grant: .all)
    let places = try [one, one, root, root, root].map { try watchers.enter($0) }
    #expect(throws: Problem.self) { try watchers.enter(one) }
    let admin = try watchers.enter(other)
    let last = [try watchers.enter(root), try watchers.enter(root)]
    #expect(throws: Problem.self) { try watchers.enter(root) }
    #expect(watchers.count == 8)
    withExtendedLifetime((places, admin, last)) {}
  }

  @Test("addresses are of one party where one client has them all")
  func parties() {
    #expect(Network.party(of: "127.0.0.1") == Network.party(of: "127.9.8.7"))
    #expect(Network.party(of: "2001:db8::1") == Network.party(of: "2001:db8::ffff:2"))
    #expect(Network.party(of: "2001:db8::1") != Network.party(of: "2001:db8:0:1::1"))
    #expect(Network.party(of: "::ffff:10.0.0.1") == Network.party(of: "10.0.0.1"))
    #expect(Network.party(of: "10.0.0.1") != Network.party(of: "10.0.0.2"))
  }

  @Test("files that are named by the way want an admin for all devices")
  func files() async {
    let snapshots = "/v1/devices/vm1/snapshots"
    let pushes = "/v1/devices/vm1/push-backup"
    let spill = #"{"on_deadline":"spill","spill":{"path":"main:x","max_bytes":65536}}"#
    for (path, plain, naming) in [
      (snapshots, "{}", #"{"delta_path":"main:x.hds"}"#), (pushes, "{}", spill),
    ] {
      #expect(code(await ask(Grant([.operate]), "POST", path, plain)) != "scope-missing")
      #expect(code(await ask(Grant([.operate]), "POST", path, naming)) == "scope-missing")
      #expect(code(await ask(some, "POST", path, naming)) == "devices-limited")
      #expect(await ask(Grant([.admin]), "POST", path, naming).status != 403)
    }
  }

  @Test("a job is tried anew by who could have asked for it only")
  func retry() async {
    service.state.withLock { state in
      for (id, type) in [("01KARB", "clone"), ("01KARC", "hash")] {
        state.jobs[id] = Sample.job(type, of: "vm1", id: id)
      }
    }
    func ask(_ grant: Grant, _ id: String) async -> String {
      code(await self.ask(grant, "POST", "/v1/jobs/\(id)/retry"))
    }
    #expect(await ask(Grant([.operate]), "01KARB") == "scope-missing")
    #expect(await ask(some, "01KARB") == "job-not-found")
    #expect(await ask(some, "01KAR9") == "job-not-found")
    for id in ["01KARB", "01KARC"] {
      #expect(!["scope-missing", "job-not-found"].contains(await ask(Grant([.admin]), id)))
    }
    #expect(!["scope-missing", "job-not-found"].contains(await ask(some, "01KARC")))
  }

  @Test("what is said of others' devices is left out of problems, and of the checks of readiness")
  func hearing() async {
    let caller = Caller(actor: "token:t", grant: some)
    var error = ServiceError(.exportExists, "x exists, for the device other")
    error.holder = ServiceError.Holder(kind: "device", id: "other")
    let heard = caller.hearing(Problem(error)).error
    #expect(heard.holder == nil && !heard.detail.contains("other"))
    error.holder = ServiceError.Holder(kind: "device", id: "vm2")
    #expect(caller.hearing(Problem(error)).error.holder?.id == "vm2")
    for (grant, isTold) in [(Grant([.read]), true), (some, false), (Grant([.data]), false)] {
      let checks = await ask(grant, "GET", "/readyz").member("checks")
      #expect("\(checks as Any)".contains("of 3 devices") == isTold)
    }
  }

  // MARK: Some devices only

  private let some = Grant([.admin, .data], devices: DeviceGlobs(["vm*"]))

  @Test("other devices are 404 on every route, and what reaches beyond devices is 403")
  func foreignDevices() async {
    for route in Router.routes where route.scope != nil {
      let foreign = await ask(some, route.method, target(route, device: "other"))
      switch route.reach {
      case .device: #expect(code(foreign) == "device-not-found", "\(route.operationID)")
      case .all: #expect(code(foreign) == "devices-limited", "\(route.operationID)")
      case .own: #expect(foreign.status != 403, "\(route.operationID)")
      }
      guard route.reach == .device else { continue }
      let own = await ask(some, route.method, target(route, device: "vm2"))
      #expect(code(own) != "device-not-found", "\(route.operationID)")
    }
    service.state.withLock { #expect($0.devices["other"] != nil) }
  }

  private func names(_ reply: HTTPReply, _ member: String) -> [JSON?] {
    guard case .array(let items)? = reply.member("items") else { return [] }
    return items.map { $0.member(member) }
  }

  @Test("lists and events leave out what is of others, on every page and in every cursor")
  func lists() async throws {
    var target: String? = "/v1/devices?limit=1"
    var ids: [JSON?] = []
    while let next = target, ids.count < 10 {
      let reply = await ask(some, "GET", next)
      ids += names(reply, "id")
      #expect(reply.member("next") != .string("other"))
      target = reply.header("Link").map { String($0.dropFirst().prefix { $0 != ">" }) }
    }
    #expect(ids == [.string("vm1"), .string("vm2")])
    #expect(
      names(await ask(some, "GET", "/v1/exports"), "name") == [.string("vm1"), .string("vm2")])
    let jobs = names(await ask(some, "GET", "/v1/jobs"), "id")
    #expect(jobs.contains(.string("01KAR7")))
    #expect(!jobs.contains(.string("01KAR9")) && !jobs.contains(.string("01KARA")))
    #expect(names(await ask(some, "GET", "/v1/events"), "revision") == [.integer(6), .integer(7)])
    #expect(names(await ask(.all, "GET", "/v1/events"), "revision").count == 4)
  }

  @Test("exports and jobs of others are not there, and none can be made for them")
  func foreignThings() async {
    let cases = [
      ("GET", "/v1/exports/other", ""), ("DELETE", "/v1/exports/other", ""),
      ("GET", "/v1/jobs/01KAR9", ""), ("PATCH", "/v1/jobs/01KAR9", #"{"paused":true}"#),
      ("DELETE", "/v1/jobs/01KAR9", ""), ("POST", "/v1/jobs/01KAR9/cancel", ""),
      ("POST", "/v1/jobs/01KAR9/retry", ""), ("GET", "/v1/jobs/01KAR9/log", ""),
      ("GET", "/v1/jobs/01KARA", ""),
      ("POST", "/v1/exports", #"{"name":"door","device":"other"}"#),
      ("POST", "/v1/jobs", #"{"type":"hash","device":"other"}"#),
    ]
    for (method, path, body) in cases {
      let reply = await ask(some, method, path, body)
      #expect(reply.status == 404, "\(method) \(path)")
      #expect(await ask(.all, method, path, body).status < 300, "\(method) \(path)")
      service.state.withLock { state in
        state.jobs["01KAR9"] = Sample.job("hash", of: "other", id: "01KAR9")
        state.exports["door"] = nil
      }
    }
    for body in [
      #"{"type":"clone","device":"vm1"}"#, #"{"type":"verify","params":{"target":"nas"}}"#,
      #"{"type":"check","device":"vm1","params":{"image":"main:other.hds"}}"#,
      #"{"type":"hash"}"#,
    ] {
      #expect(code(await ask(some, "POST", "/v1/jobs", body)) == "devices-limited", "\(body)")
    }
    #expect(await ask(some, "POST", "/v1/jobs", #"{"type":"hash","device":"vm1"}"#).status == 202)
  }

  @Test("keys of tokens are their own: nobody is answered what another was")
  func keys() async {
    func post(_ actor: String) async -> HTTPReply {
      var request = HTTPRequest(
        method: "POST", target: "/v1/exports".utf8,
        headers: [
          ("Host", "localhost"), ("Content-Type", "application/json"), ("Idempotency-Key", "k"),
        ],
        body: Array(#"{"name":"door","device":"vm1"}"#.utf8))
      request.caller = .success(Caller(actor: actor, grant: .all))
      defer { service.state.withLock { $0.exports["door"] = nil } }
      return await Router(service).answer(request, requestID: "r1")
    }
    #expect(await post("token:a").header("Idempotency-Replayed") == nil)
    #expect(await post("token:a").header("Idempotency-Replayed") == "true")
    #expect(await post("token:b").header("Idempotency-Replayed") == nil)
    #expect(await post("uid:0").header("Idempotency-Replayed") == nil)
    #expect(await post("uid:7").header("Idempotency-Replayed") == "true")
  }
}
