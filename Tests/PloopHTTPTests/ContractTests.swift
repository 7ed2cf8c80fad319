import PloopFormat
import PloopIO
import PloopJSON
import TestSupport
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("openapi.yaml and the routes")
struct ContractTests {
  /// One operation of the contract.
  struct Operation {
    let route: String
    let value: JSON
    /// Those of the path too, looked up.
    let parameters: [JSON]

    func parameters(in place: String) -> Set<String> {
      Set(
        parameters.filter { $0.member("in") == .string(place) }.compactMap {
          guard case .string(let name)? = $0.member("name") else { return nil }
          return name
        })
    }
  }

  let schema: JSONSchema
  let operations: [Operation]

  init() throws {
    schema = JSONSchema(document: try Contract.own.get().document)
    operations = ContractTests.operations(schema)
  }

  private static func operations(_ schema: JSONSchema) -> [Operation] {
    func parameters(_ value: JSON) -> [JSON] {
      guard case .array(let items)? = value.member("parameters") else { return [] }
      return items.map { $0.member("$ref").map(schema.find) ?? $0 }
    }
    return members(schema.document.member("paths")).flatMap { path in
      members(path.value).filter { $0.name != "parameters" }.map { method in
        Operation(
          route: "\(method.name.uppercased()) \(path.name)", value: method.value,
          parameters: parameters(path.value) + parameters(method.value))
      }
    }
  }

  @Test("the same methods, paths, names and parameters stand in both")
  func routes() throws {
    let routes = Dictionary(
      uniqueKeysWithValues: Router.routes.map { ("\($0.method) \($0.template)", $0) })
    #expect(Set(routes.keys) == Set(operations.map(\.route)))
    for operation in operations {
      let route = try #require(routes[operation.route])
      #expect(operation.value.member("operationId") == .string(route.operationID))
      #expect(operation.parameters(in: "query") == route.parameters, "\(operation.route)")
      guard case .array(let ways)? = operation.value.member("security") else {
        Issue.record("\(operation.route) does not say what it needs")
        continue
      }
      let scopes = route.scope.map { JSON.array([.string($0.rawValue)]) }
      #expect(ways.isEmpty == (scopes == nil), "\(operation.route)")
      for way in ways {
        #expect(members(way).map { $0.value } == [scopes ?? .null], "\(operation.route)")
      }
      let places = route.template.split(separator: "/").filter { $0.hasPrefix("{") }
      #expect(
        operation.parameters(in: "path") == Set(places.map { String($0.dropFirst().dropLast()) }))
    }
  }

  @Test("every slug is in the contract, and none that does not exist")
  func slugs() {
    guard
      case .array(let values)? = schema.find(.string("#/components/schemas/Slug")).member("enum")
    else {
      Issue.record("no slugs")
      return
    }
    #expect(Set(values.map(text)) == Set(ProblemCatalogue.entries.keys.map { "\"\($0)\"" }))
    #expect(values.count == ProblemCatalogue.entries.count)
    // A second one would have replaced the first.
    #expect(Set(ProblemCatalogue.all.map(\.slug)).count == ProblemCatalogue.all.count)
    for code in FormatError.Code.allCases {
      #expect(ProblemCatalogue.entries[code.rawValue] != nil, "\(code)")
    }
  }

  @Test(
    "every status of a slug is one that some operation has, and every reference leads somewhere")
  func statuses() {
    let statuses = Set(
      operations.flatMap { members($0.value.member("responses")).map(\.name) })
    for (slug, entry) in ProblemCatalogue.entries {
      #expect(statuses.contains(String(entry.status)), "\(slug)")
    }
    func references(_ value: JSON) -> [JSON] {
      switch value {
      case .array(let items): items.flatMap(references)
      case .object(let members):
        members.flatMap { $0.name == "$ref" ? [$0.value] : references($0.value) }
      default: []
      }
    }
    for reference in references(schema.document) {
      #expect(schema.find(reference) != .null, "\(text(reference))")
    }
  }

  static let requests: [(String, String, String, Int)] = [
    ("getDashboard", "/", "", 200), ("getDashboard", "/?token=1", "", 400),
    ("getDashboardFile", "/dashboard/core/main.js", "", 200),
    ("getDashboardFile", "/dashboard/style/base.css", "", 200),
    ("getDashboardFile", "/dashboard/core/none.js", "", 404),
    ("getContract", "/openapi.json", "", 200), ("getContract", "/openapi.json?limit=1", "", 400),
    ("getReference", "/docs", "", 200), ("getReferenceStyle", "/docs/style.css", "", 200),
    ("listProblems", "/problems", "", 200), ("getProblem", "/problems/device-busy", "", 200),
    ("getProblem", "/problems/none", "", 404),
    ("getHealth", "/healthz", "", 200), ("getReadiness", "/readyz", "", 200),
    ("getMetrics", "/metrics", "", 200), ("getDiagnostics", "/v1/diagnostics", "", 200),
    ("getService", "/v1", "", 200), ("getService", "/v1?after_revision=918", "", 304),
    ("getDevice", "/v1/devices/vm1?after_revision=41&wait=0", "", 304),
    ("getExport", "/v1/exports/vm1?after_revision=7", "", 304),
    ("getExport", "/v1/exports/vm1?after_revision=6&wait=60", "", 200),
    ("getExport", "/v1/exports/vm1?wait=1", "", 422),
    ("getExport", "/v1/exports/vm1?wait=0", "", 200),
    ("listEvents", "/v1/events", "", 200), ("listEvents", "/v1/events?limit=2", "", 200),
    ("listEvents", "/v1/events?after=9&wait=1&types=device.*,job.state&device=vm1", "", 200),
    ("listEvents", "/v1/events?after=4", "", 410), ("listEvents", "/v1/events?wait=1", "", 422),
    ("listEvents", "/v1/events?wait=0", "", 200),
    ("listEvents", "/v1/events?types=Job", "", 400),
    ("listImages", "/v1/images", "", 200),
    ("listImages", "/v1/images?root=main&state=orphaned&limit=1", "", 200),
    ("listImages", "/v1/images?state=lost", "", 400),
    ("listDevices", "/v1/devices?limit=1", "", 200),
    ("listDevices", "/v1/devices", "", 200), ("getDevice", "/v1/devices/vm1", "", 200),
    (
      "attachDevice", "/v1/devices",
      #"{"id":"new","deltas":[{"path":"a"}],"export":{"name":"new"}}"#, 201
    ),
    ("attachDevice", "/v1/devices", #"{"id":"new","size":1}"#, 400),
    ("changeDevice", "/v1/devices/vm1", #"{"labels":{"a":null}}"#, 200),
    ("changeDevice", "/v1/devices/vm1", #"{"throttle":{"read_bps":1,"burst_seconds":9}}"#, 200),
    ("changeDevice", "/v1/devices/vm1", #"{"throttle":null}"#, 200),
    (
      "changeDevice", "/v1/devices/vm1",
      #"{"throttle":{"read_bps":null,"write_bps":0,"burst_seconds":null}}"#, 200
    ),
    ("changeDevice", "/v1/devices/vm1", #"{"throttle":{}}"#, 200),
    ("changeDevice", "/v1/devices/vm1", #"{"throttle":{"burst_seconds":0}}"#, 400),
    ("changeDevice", "/v1/devices/vm1", #"{"throttle":{"read_bps":1.5}}"#, 400),
    ("changeDevice", "/v1/devices/vm1", #"{"throttle":{"write_iops":9007199254740992}}"#, 400),
    ("changeDevice", "/v1/devices/vm1", #"{"throttle":{"bps":1}}"#, 400),
    ("changeDevice", "/v1/devices/vm1", #"{"throttle":7}"#, 400),
    ("changeDevice", "/v1/devices/vm1", #"{"size":21474836480}"#, 200),
    ("changeDevice", "/v1/devices/vm1", #"{"size":2147483648}"#, 202),
    ("changeDevice", "/v1/devices/vm1", #"{"size":1073741824}"#, 500),
    ("changeDevice", "/v1/devices/vm1", #"{"size":1,"autostart":true}"#, 400),
    ("changeDevice", "/v1/devices/vm1?dry_run=true", #"{"size":21474836480}"#, 200),
    ("changeDevice", "/v1/devices/vm1?dry_run=true", #"{"autostart":true}"#, 422),
    ("detachDevice", "/v1/devices/vm1?mode=hard", "", 204),
    ("detachDevice", "/v1/devices/none", "", 404),
    ("listNodes", "/v1/nodes", "", 200), ("listNodes", "/v1/nodes?limit=1", "", 400),
    ("moveDevice", "/v1/devices/vm1/move", #"{"to":"host-b"}"#, 200),
    ("moveDevice", "/v1/devices/vm1/move", #"{"to":"host-z"}"#, 404),
    ("moveDevice", "/v1/devices/vm1/move", "{}", 400),
    ("moveDevice", "/v1/devices/none/move", #"{"to":"host-b"}"#, 404),
    ("getDevice", "/v1/devices/elsewhere", "", 307),
    ("getExportData", "/v1/exports/elsewhere/data", "", 307),
    ("moveDevice", "/v1/devices/elsewhere/move", #"{"to":"host-b"}"#, 307),
    ("listDeltas", "/v1/devices/vm1/deltas", "", 200),
    ("addDelta", "/v1/devices/vm1/deltas", #"{"path":"a","format":"raw","at":"newest"}"#, 201),
    ("addDelta", "/v1/devices/vm1/deltas", #"{"path":"a","at":"oldest"}"#, 400),
    ("changeDelta", "/v1/devices/vm1/deltas/0", #"{"index":[{"cluster":1,"to":2}]}"#, 200),
    ("changeDelta", "/v1/devices/vm1/deltas/0", #"{"index":[{"cluster":1}]}"#, 400),
    ("changeDelta", "/v1/devices/vm1/deltas/0", #"{"index":[],"path":"a"}"#, 400),
    ("changeDelta", "/v1/devices/vm1/deltas/01", #"{"path":"a"}"#, 404),
    ("changeDelta", "/v1/devices/vm1/deltas/top", #"{"path":"a"}"#, 422),
    (
      "notifyMerged", "/v1/devices/vm1/deltas/1/notify-merged", #"{"direction":"forward"}"#, 200
    ),
    ("notifyMerged", "/v1/devices/vm1/deltas/1/notify-merged", "{}", 400),
    (
      "notifyMerged", "/v1/devices/vm1/deltas/-1/notify-merged", #"{"direction":"backward"}"#, 404
    ),
    ("flipUpperDeltas", "/v1/devices/vm1/flip-upper-deltas", "", 200),
    ("flipUpperDeltas", "/v1/devices/none/flip-upper-deltas", "{}", 404),
    ("listSnapshots", "/v1/devices/vm1/snapshots", "", 200),
    ("listSnapshots", "/v1/devices/vm1/snapshots?view=tree", "", 200),
    ("listSnapshots", "/v1/devices/vm1/snapshots?view=bush", "", 400),
    ("getSnapshot", "/v1/devices/vm1/snapshots/6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01", "", 200),
    (
      "changeSnapshot", "/v1/devices/vm1/snapshots/6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01",
      #"{"name":null,"labels":{"a":null},"protected":true}"#, 200
    ),
    (
      "addExport", "/v1/exports",
      #"{"name":"old","device":"vm1","snapshot":"6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01"}"#, 201
    ),
    ("addSnapshot", "/v1/devices/vm1/snapshots", #"{"delta_path":"a"}"#, 201),
    ("addSnapshot", "/v1/devices/vm1/snapshots", #"{"uuid":"x"}"#, 400),
    (
      "switchSnapshot", "/v1/devices/vm1/snapshots/6F2B1E0A-0a52-4d5f-9d2c-7a1f5d2b9c01/switch",
      #"{"discard_top":true}"#, 200
    ),
    ("switchSnapshot", "/v1/devices/vm1/snapshots/x/switch", #"{"discard_top":true}"#, 404),
    (
      "switchSnapshot", "/v1/devices/vm1/snapshots/6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01/switch",
      "{}", 422
    ),
    ("removeSnapshot", "/v1/devices/vm1/snapshots/6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01", "", 202),
    (
      "removeSnapshot",
      "/v1/devices/vm1/snapshots/6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01?dry_run=true", "", 200
    ),
    ("listJobs", "/v1/jobs?state=running&label.why=nightly", "", 200),
    ("listJobs", "/v1/jobs?state=asleep", "", 400),
    ("addJob", "/v1/jobs", #"{"type":"merge","device":"vm1","params":{"level":0}}"#, 202),
    ("addJob", "/v1/jobs?dry_run=true", #"{"type":"merge","device":"vm1"}"#, 200),
    ("addJob", "/v1/jobs?dry_run=1", #"{"type":"merge","device":"vm1"}"#, 400),
    ("addJob", "/v1/jobs", #"{"type":"merge","device":"vm1","priority":101}"#, 400),
    ("addJob", "/v1/jobs", #"{"type":"hash","device":"vm1","retry":{"max_attempts":0}}"#, 400),
    (
      "addJob", "/v1/jobs", #"{"type":"hash","device":"vm1","retry":{"backoff_seconds":86401}}"#,
      400
    ),
    ("addJob", "/v1/jobs", #"{"type":"merge","device":"vm1","params":{"x":null}}"#, 400),
    ("getJob", "/v1/jobs/01KAR7", "", 200), ("getJob", "/v1/jobs/none", "", 404),
    ("changeJob", "/v1/jobs/01KAR7", #"{"paused":true,"limits":{"bps":1}}"#, 200),
    ("cancelJob", "/v1/jobs/01KAR7/cancel", "", 202),
    ("retryJob", "/v1/jobs/01KAR7/retry", "", 202),
    ("getJobLog", "/v1/jobs/01KAR7/log?after=1", "", 200),
    ("getQueue", "/v1/queue", "", 200),
    ("changeQueue", "/v1/queue", #"{"paused":true,"slots":{"total":2}}"#, 200),
    ("changeQueue", "/v1/queue", #"{"slots":{"total":0}}"#, 400),
    ("removeJob", "/v1/jobs/01KAR7", "", 204),
    ("startTracking", "/v1/devices/vm1/tracking", #"{"space":"virtual"}"#, 201),
    ("startTracking", "/v1/devices/vm1/tracking", #"{"space":"file"}"#, 400),
    ("getTracking", "/v1/devices/vm1/tracking", "", 200),
    ("getTracking", "/v1/devices/none/tracking", "", 404),
    ("takeTracked", "/v1/devices/vm1/tracking/next", #"{"max":2,"wait_seconds":60}"#, 200),
    ("takeTracked", "/v1/devices/vm1/tracking/next", #"{"max":0}"#, 400),
    ("takeTracked", "/v1/devices/vm1/tracking/next", #"{"wait_seconds":61}"#, 400),
    ("getTrackingBitmap", "/v1/devices/vm1/tracking/bitmap", "", 200),
    ("stopTracking", "/v1/devices/vm1/tracking", "", 204),
    ("listCheckpoints", "/v1/devices/vm1/checkpoints", "", 200),
    ("listCheckpoints", "/v1/devices/none/checkpoints", "", 404),
    ("addCheckpoint", "/v1/devices/vm1/checkpoints", #"{"name":"cp-1","granularity":65536}"#, 201),
    ("addCheckpoint", "/v1/devices/vm1/checkpoints", "{}", 400),
    ("getCheckpoint", "/v1/devices/vm1/checkpoints/cp-1", "", 200),
    ("getCheckpoint", "/v1/devices/vm1/checkpoints/none", "", 404),
    ("getCheckpointBitmap", "/v1/devices/vm1/checkpoints/cp-1/bitmap", "", 200),
    ("removeCheckpoint", "/v1/devices/vm1/checkpoints/cp-1", "", 204),
    (
      "startPushBackup", "/v1/devices/vm1/push-backup",
      #"{"clusters":{"since_checkpoint":"cp-1"},"checkpoint":"cp-2"}"#, 201
    ),
    (
      "startPushBackup", "/v1/devices/vm1/push-backup",
      #"{"clusters":{"since_checkpoint":"cp-1","bitmap":"AA=="}}"#, 400
    ),
    (
      "startPushBackup", "/v1/devices/vm1/push-backup",
      #"{"uuid":"2f0c","clusters":{"bitmap":"/w=="},"on_deadline":"wait","export":false}"#, 201
    ),
    ("startPushBackup", "/v1/devices/vm1/push-backup", #"{"clusters":{"bitmap":"?"}}"#, 400),
    ("startPushBackup", "/v1/devices/vm1/push-backup", #"{"on_deadline":"spill"}"#, 422),
    ("startPushBackup", "/v1/devices/vm1/push-backup", #"{"deadline_seconds":0}"#, 400),
    ("getPushBackup", "/v1/devices/vm1/push-backup", "", 200),
    ("getPushBackup", "/v1/devices/none/push-backup", "", 404),
    ("readPushBackup", "/v1/devices/vm1/push-backup/read", #"{"uuid":"2f0c","left_max":1}"#, 200),
    ("readPushBackup", "/v1/devices/vm1/push-backup/read", "{}", 400),
    (
      "confirmPushBackup", "/v1/devices/vm1/push-backup/confirm",
      #"{"uuid":"2f0c","clusters":[77],"ranges":[{"cluster":80,"count":2}]}"#, 200
    ),
    (
      "confirmPushBackup", "/v1/devices/vm1/push-backup/confirm",
      #"{"uuid":"2f0c","ranges":[{"cluster":80,"count":0}]}"#, 400
    ),
    (
      "confirmPushBackup", "/v1/devices/vm1/push-backup/confirm",
      #"{"uuid":"2f0c","clusters":[-1]}"#, 400
    ),
    ("getPushBackupData", "/v1/devices/vm1/push-backup/data?uuid=2f0c", "", 416),
    ("stopPushBackup", "/v1/devices/vm1/push-backup?uuid=2f0c&outcome=complete", "", 200),
    ("stopPushBackup", "/v1/devices/vm1/push-backup?uuid=2f0c&outcome=done", "", 400),
    ("stopPushBackup", "/v1/devices/vm1/push-backup", "", 400),
    ("listTargets", "/v1/targets?limit=1", "", 200),
    (
      "addTarget", "/v1/targets",
      #"{"name":"new","type":"directory","path":"main:a","slots":3,"limits":{"bps":1}}"#, 201
    ),
    (
      "addTarget", "/v1/targets", #"{"name":"new","type":"file","path":"a","format":"ploop1"}"#,
      201
    ),
    ("addTarget", "/v1/targets", #"{"name":"new","type":"nbd","uri":"nbd://host/vol"}"#, 201),
    ("addTarget", "/v1/targets", #"{"name":"new","type":"nbd","path":"a"}"#, 400),
    ("addTarget", "/v1/targets", #"{"name":"new","type":"tape","path":"a"}"#, 400),
    ("addTarget", "/v1/targets", #"{"name":"new","path":"a"}"#, 400),
    ("addTarget", "/v1/targets", #"{"name":"nas","type":"directory","path":"a"}"#, 409),
    ("getTarget", "/v1/targets/nas", "", 200), ("getTarget", "/v1/targets/none", "", 404),
    ("getTarget", "/v1/targets/nas?after_revision=80", "", 304),
    ("changeTarget", "/v1/targets/nas", #"{"slots":1,"limits":{"iops":5}}"#, 200),
    ("changeTarget", "/v1/targets/nas", #"{"slots":65}"#, 400),
    ("changeTarget", "/v1/targets/nas", #"{"path":"a"}"#, 400),
    ("removeTarget", "/v1/targets/nas?backups=keep", "", 204),
    ("removeTarget", "/v1/targets/nas?backups=burn", "", 400),
    ("listBackups", "/v1/targets/nas/backups?device=vm1&limit=1", "", 200),
    ("listBackups", "/v1/targets/nas/backups", "", 200),
    ("listBackups", "/v1/targets/none/backups", "", 404),
    ("getBackup", "/v1/targets/nas/backups/01KAS", "", 200),
    ("getBackup", "/v1/targets/nas/backups/none", "", 404),
    ("removeBackup", "/v1/targets/nas/backups/01KAS?cascade=true", "", 204),
    ("removeBackup", "/v1/targets/nas/backups/01KAS?cascade=1", "", 400),
    (
      "addJob", "/v1/jobs",
      #"{"type":"restore","params":{"target":"nas","backup":"01KAS","to":{"id":"r","directory":"r"}}}"#,
      202
    ),
    ("getDelta", "/v1/devices/vm1/deltas/top", "", 200),
    ("getMap", "/v1/devices/vm1/map", "", 200), ("getMap", "/v1/devices/vm1/map?limit=0", "", 400),
    ("getStatistics", "/v1/devices/vm1/stats", "", 200), ("listExports", "/v1/exports", "", 200),
    ("addExport", "/v1/exports", #"{"name":"door","device":"vm1"}"#, 201),
    (
      "addExport", "/v1/exports",
      #"{"name":"safe","device":"vm1","access":{"tls":true,"names":null,"addresses":["::1"]}}"#, 201
    ),
    ("addExport", "/v1/exports", #"{"name":"x","device":"vm1","access":{"names":["a",1]}}"#, 400),
    ("addExport", "/v1/exports", #"{"name":"x","device":"vm1","access":{"users":[]}}"#, 400),
    ("getExportData", "/v1/exports/vm1/data", "", 200),
    ("getExportData", "/v1/exports/none/data", "", 404),
    ("listExtents", "/v1/exports/vm1/extents", "", 200),
    ("listExtents", "/v1/exports/vm1/extents?context=dirty:cp-1&offset=65536&limit=1", "", 200),
    ("listExtents", "/v1/exports/vm1/extents?context=depth", "", 200),
    ("listExtents", "/v1/exports/vm1/extents?context=dirty:none", "", 404),
    ("listExtents", "/v1/exports/vm1/extents?limit=0", "", 400),
    ("getExport", "/v1/exports/vm1", "", 200), ("removeExport", "/v1/exports/vm1", "", 204),
  ]

  @Test("replies have the members, headers and status that the contract gives them")
  func replies() async throws {
    let service = try FakeService(devices: ["vm1", "vm2"])
    var asked: Set<String> = []
    for (id, target, body, status) in Self.requests {
      let operation = try #require(
        operations.first { $0.value.member("operationId") == .string(id) })
      asked.insert(id)
      let method = String(operation.route.prefix { $0 != " " })
      let request = HTTPRequest(
        method: method, target: target.utf8,
        headers: [("Host", "localhost"), ("Content-Type", "application/json")],
        body: Array(body.utf8))
      let reply = await Router(service).answer(request, requestID: "r1")
      #expect(reply.status == status, "\(method) \(target)")
      check(reply, by: operation, "\(method) \(target)")
    }
    #expect(asked == Set(Router.routes.map(\.operationID)))
    service.state.withLock { $0.isReady = false }
    let request = HTTPRequest(
      method: "GET", target: "/readyz".utf8, headers: [("Host", "localhost")])
    let reply = await Router(service).answer(request, requestID: "r1")
    let operation = try #require(operations.first { $0.route == "GET /readyz" })
    check(reply, by: operation, "not ready")
  }

  @Test("what is streamed has the members that the contract gives it")
  func stream() async throws {
    let live = try LiveServer()
    let client = try live.client()
    #expect(client.listen("?after=5")?.status == 200)
    let progress = Event(
      revision: nil, at: 0, type: "job.progress", subject: "j", device: "vm1")
    #expect(live.service.transients.publish(progress))
    live.service.waiting.changed([.events])
    let stale = try live.client()
    #expect(stale.listen("?after=1")?.status == 200)
    let wanted = schema.find(.string("#/components/schemas/StreamedEvent"))
    var types: [String] = []
    for block in (0..<6).compactMap({ _ in client.block() })
      + (0..<2).compactMap({ _ in stale.block() })
    {
      let fields = block.split(separator: "\n").map { line in
        let name = String(line.prefix { $0 != ":" })
        return JSON.Member(name: name, value: .string(String(line.dropFirst(name.count + 2))))
      }
      guard let type = fields.first(where: { $0.name == "event" }) else { continue }
      types.append(text(type.value))
      #expect(schema.complaints(about: .object(fields), by: wanted) == [], "\(block)")
    }
    #expect(types.count == 6)
    #expect(Set(types).isSuperset(of: ["\"reset\"", "\"job.progress\"", "\"device.deleted\""]))
  }

  private func check(_ reply: HTTPReply, by operation: Operation, _ what: String) {
    let entry = operation.value.member("responses")?.member(String(reply.status)) ?? .null
    let response = entry.member("$ref").map(schema.find) ?? entry
    let type = reply.contentType ?? ""
    let content = response.member("content")
    #expect((content == nil) == type.isEmpty, "\(what)")
    let lines = reply.lines?.map { JSON.string(text($0)) }
    for body in lines ?? reply.json.map({ [$0] }) ?? [] {
      let wanted = content?.member(type)?.member("schema") ?? .null
      #expect(schema.complaints(about: body, by: wanted) == [], "\(what)")
    }
    let common = ["Cache-Control", "X-Content-Type-Options"]
    for (name, value) in reply.headers where !common.contains(name) {
      let header = response.member("headers")?.member(name)?.member("$ref").map(schema.find)
      let wanted = header?.member("schema") ?? .null
      #expect(schema.complaints(about: .string(value), by: wanted) == [], "\(what): \(name)")
    }
    if reply.isProblem { return }
    for header in members(response.member("headers"))
    where !["Link", "Idempotency-Replayed"].contains(header.name) {
      #expect(reply.header(header.name) != nil, "\(what): \(header.name)")
    }
  }

  @Test("every example fits its schema, and the router takes those that are bodies")
  func examples() async throws {
    var count = 0
    for operation in operations {
      let body = operation.value.member("requestBody")?.member("content")?
        .member("application/json")
      for example in members(body?.member("examples")) {
        let value = try #require(example.value.member("value"))
        let wanted = body?.member("schema") ?? .null
        #expect(schema.complaints(about: value, by: wanted) == [], "\(example.name)")
        let words = operation.route.split(separator: " ")
        let request = HTTPRequest(
          method: String(words[0]),
          target: words[1].replacing("/jobs/{id}", with: "/jobs/01KAR7")
            .replacing("/targets/{name}", with: "/targets/nas")
            .replacing("{id}", with: "vm1").replacing("{level}", with: "0")
            .replacing("{uuid}", with: "6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01").utf8,
          headers: [("Host", "localhost"), ("Content-Type", "application/json")],
          body: value.encoded)
        let reply = try await Router(FakeService()).answer(request, requestID: "r1")
        #expect([200, 201, 202, 409].contains(reply.status), "\(example.name)")
        count += 1
      }
    }
    for response in members(schema.find(.string("#/components/responses"))) {
      let problem = response.value.member("content")?.member("application/problem+json")
      for example in members(problem?.member("examples")) {
        let value = try #require(example.value.member("value"))
        let wanted = problem?.member("schema") ?? .null
        #expect(schema.complaints(about: value, by: wanted) == [], "\(example.name)")
        count += 1
      }
    }
    #expect(count == 69)
  }

  @Test("bodies that the router refuses as wrong do not fit the schema either")
  func refusedBodies() throws {
    let wanted = schema.find(.string("#/components/schemas/AttachRequest"))
    for (body, slug, pointer) in BodyTests.refused where slug != "duplicate-key" {
      let value = try JSONParser.parse(Array(body.utf8))
      #expect(schema.complaints(about: value, by: wanted) != [], "\(body) \(pointer)")
    }
  }

  @Test("the validator sees what is wrong")
  func validator() {
    let device = schema.find(.string("#/components/schemas/Device"))
    func complaints(_ change: (inout [JSON.Member]) -> Void) -> Int {
      guard case .object(var fields) = Sample.device("vm1").json else { return -1 }
      change(&fields)
      return schema.complaints(about: .object(fields), by: device).count
    }
    #expect(complaints { _ in } == 0)
    for index in 0..<19 { #expect(complaints { $0.remove(at: index) } == 1) }
    #expect(complaints { $0.append(.init(name: "more", value: .null)) } == 1)
    #expect(complaints { $0[0] = .init(name: "id", value: .string("VM")) } == 1)
    #expect(complaints { $0[2] = .init(name: "revision", value: .integer(-1)) } == 1)
    #expect(complaints { $0[3] = .init(name: "state", value: .string("asleep")) } == 1)
    #expect(complaints { $0[7] = .init(name: "readonly", value: .null) } == 1)
  }

  @Test("docs/api.md explains every slug with its status, and every route")
  func handbook() throws {
    let folder = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let text = try Tool.shell("cat '/\(folder)/docs/api.md'").output
    for (slug, entry) in ProblemCatalogue.entries {
      #expect(text.contains("| `\(slug)` | \(entry.status) | \(entry.cause) |"), "\(slug)")
    }
    for route in Router.routes {
      #expect(text.contains("`\(route.method) \(route.template)"), "\(route.operationID)")
    }
  }
}

private func members(_ value: JSON?) -> [JSON.Member] { value?.members ?? [] }

private func text(_ value: JSON) -> String { String(decoding: value.encoded, as: UTF8.self) }
