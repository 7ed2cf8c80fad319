internal import PloopControl
internal import PloopJSON

let deviceRoutes: [Route] = [
  Route(
    "GET", "/v1/devices", "listDevices", .read, reach: .own,
    parameters: ["limit", "cursor", "state", "label.*"], isKept: true
  ) { call throws(Problem) in
    var state: DeviceState?
    if let text = call.parameter("state") {
      state = DeviceState(rawValue: text)
      if state == nil { throw Problem("invalid-value", "unknown state \(text)") }
    }
    var labels: [String: String] = [:]
    for (name, value) in call.target.query where name.hasPrefix("label.") {
      labels[String(name.dropFirst("label.".count))] = value
    }
    let page = try await call.ownPart(
      isOwn: { call.caller.mayUse(device: $0.id) }, id: \.id
    ) { [state, labels] (cursor, limit) async throws(Problem) in
      await call.service.devices(after: cursor, limit: limit, state: state, labels: labels)
    }
    return list(page, of: call) { $0.json }
  },
  Route(
    creating: "/v1/devices", "attachDevice", .admin,
    answer: { reply(201, $0).with("Location", "/v1/devices/\($0.id)") }
  ) { call, keeper throws(Problem) in
    let request = try attachRequest(try call.body(), from: call)
    return try await converting { () async throws(ServiceError) in
      try await call.service.attach(request, keeping: keeper)
    }
  },
  Route(
    "GET", "/v1/devices/{id}", "getDevice", .read, isKept: true, watching: { .device($0[0]) }
  ) { call throws(Problem) in
    reply(200, try await device(call))
  },
  Route("PATCH", "/v1/devices/{id}", "changeDevice", .operate, parameters: ["dry_run"]) {
    call throws(Problem) in
    var body = try call.body()
    if let size = try body.number("size") {
      try call.caller.require(.admin)
      guard body.isEmpty else {
        throw body.wrongValue("size", "is changed by itself, with no other member beside it")
      }
      return try await resize(call, to: size)
    }
    guard try !call.isDryRun() else {
      throw Problem("value-impossible", "dry_run is for a new size")
    }
    var change = DeviceChange()
    change.suspended = try body.flag("suspended")
    change.suspendSeconds = try body.number(
      "suspend_timeout_seconds", in: 1...Suspension.mostSeconds)
    change.noresume = try body.flag("noresume")
    change.isForced = try body.flag("force") ?? false
    change.caller = try call.caller(named: body.text("holder"))
    change.autostart = try body.flag("autostart")
    change.throttle = try body.throttle()
    change.labels = try body.labels("labels", removable: true)
    switch try body.removableText("incoming") {
    case nil: break
    case .some(nil): change.isTakenOver = true
    case .some(_?): throw body.wrongValue("incoming", "null is expected")
    }
    try body.finish()
    let revision = try call.ifRevision()
    return reply(
      200,
      try await converting { [change] () async throws(ServiceError) in
        try await call.service.change(call.arguments[0], change, ifRevision: revision)
      })
  },
  Route("DELETE", "/v1/devices/{id}", "detachDevice", .admin, parameters: ["mode"]) {
    call throws(Problem) in
    let mode = try call.mode()
    let revision = try call.ifRevision()
    try await converting { () async throws(ServiceError) in
      try await call.service.detach(call.arguments[0], mode: mode, ifRevision: revision)
    }
    return HTTPReply(204)
  },
  Route("GET", "/v1/devices/{id}/deltas", "listDeltas", .read) { call throws(Problem) in
    let device = try await device(call)
    return HTTPReply(
      200,
      .members([
        "items": .array(device.deltas.map(\.json)), "next": .null,
        "revision": .count(device.revision),
      ]))
  },
  Route("GET", "/v1/devices/{id}/deltas/{level}", "getDelta", .read) { call throws(Problem) in
    let device = try await device(call)
    let name = call.arguments[1]
    guard
      let delta = device.deltas.first(where: { name == "top" ? $0.isTop : String($0.level) == name }
      )
    else { throw Problem("delta-not-found", "\(device.id) has no delta \(name)") }
    return HTTPReply(200, delta.json)
  },
  Route(
    "GET", "/v1/devices/{id}/map", "getMap", .read, parameters: ["offset", "length", "limit"]
  ) { call throws(Problem) in
    let offset = try call.number("offset", in: 0...(1 << 62), default: 0)
    let length = try call.number("length", in: 1...(1 << 62), default: 1 << 62)
    let limit = try call.number("limit", in: 1...10_000, default: 1000)
    let map = try await converting { () async throws(ServiceError) in
      try await call.service.map(
        call.arguments[0], offset: offset, length: length, limit: Int(limit))
    }
    return HTTPReply(200, map.json)
  },
  Route("GET", "/v1/devices/{id}/stats", "getStatistics", .read) { call throws(Problem) in
    HTTPReply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.statistics(call.arguments[0])
      }.json)
  },
]

/// Seconds for which a request for a larger disk waits, if it says nothing else.
private let resizePatience = 30

/// Has the disk grow: the device if that is soon done, else the job that does it.
private func resize(_ call: Call, to size: UInt64) async throws(Problem) -> HTTPReply {
  let (id, revision) = (call.arguments[0], try call.ifRevision())
  guard try !call.isDryRun() else {
    let plan = try await converting { () async throws(ServiceError) in
      try await call.service.planResize(id, to: size, ifRevision: revision)
    }
    return HTTPReply(200, plan.json).with(revision: try await device(call).revision)
  }
  let resizing = try await converting { () async throws(ServiceError) in
    try await call.service.resize(id, to: size, ifRevision: revision)
  }
  switch resizing {
  case .done(let device): return reply(200, device)
  case .job(let job):
    let job = try await call.awaiting(job, orFor: resizePatience)
    if job.record.state == .succeeded { return reply(200, try await device(call)) }
    if job.record.state == .failed, let failure = job.record.error {
      throw Problem(ServiceError(failure))
    }
    return HTTPReply(202, job.json).with(revision: job.record.revision)
      .with("Location", "/v1/jobs/\(job.record.id)")
  }
}

private func device(_ call: Call) async throws(Problem) -> DeviceInfo {
  try await converting { () async throws(ServiceError) in
    try await call.service.device(call.arguments[0])
  }
}

private func reply(_ status: Int, _ device: DeviceInfo) -> HTTPReply {
  HTTPReply(status, device.json).with(revision: device.revision)
}

/// A part of a list, with the way to the next part.
func list<Item>(
  _ page: Page<Item>, of call: Call, _ more: KeyValuePairs<String, JSON?> = [:],
  _ json: (Item) -> JSON
) -> HTTPReply {
  var members = [
    JSON.Member(name: "items", value: .array(page.items.map(json))),
    JSON.Member(name: "next", value: page.next.map(JSON.string) ?? .null),
    JSON.Member(name: "revision", value: .count(page.revision)),
  ]
  for (name, value) in more {
    if let value { members.append(JSON.Member(name: name, value: value)) }
  }
  let reply = HTTPReply(200, .object(members))
  guard let next = page.next else { return reply }
  let query = (call.target.query.filter { $0.name != "cursor" } + [("cursor", next)])
    .map { "\(PercentEncoding.encode($0.name))=\(PercentEncoding.encode($0.value))" }
  let path = "/\(call.target.segments.joined(separator: "/"))"
  return reply.with("Link", "<\(path)?\(query.joined(separator: "&"))>; rel=\"next\"")
}
