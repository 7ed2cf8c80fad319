internal import PloopControl
internal import PloopFormat

/// What changes the chain of a device.
let chainRoutes: [Route] = [
  Route(
    creating: "/v1/devices/{id}/deltas", "addDelta", .admin, reach: .all,
    answer: { (added: DeltaAdded) in
      HTTPReply(201, added.delta.json).with(revision: added.revision).with(
        "Location", "/v1/devices/\(added.device)/deltas/\(added.delta.level)")
    }
  ) { call, keeper throws(Problem) in
    enum Place: String { case newest }
    var body = try call.body()
    _ = try body.choice("at", of: Place.self)
    let request = try reference(body)
    let revision = try call.ifRevision()
    return try await converting { () async throws(ServiceError) in
      try await call.service.addDelta(
        call.arguments[0], request, ifRevision: revision, keeping: keeper)
    }
  },
  Route("PATCH", "/v1/devices/{id}/deltas/{level}", "changeDelta", .admin, reach: .all) {
    call throws(Problem) in
    let place = try call.deltaPlace()
    let change = try deltaChange(try call.body())
    let revision = try call.ifRevision()
    let changed = try await converting { () async throws(ServiceError) in
      try await call.service.changeDelta(
        call.arguments[0], place, change, ifRevision: revision)
    }
    return HTTPReply(200, changed.json).with(revision: changed.revision)
  },
  Route(
    creating: "/v1/devices/{id}/deltas/{level}/notify-merged", "notifyMerged", .admin,
    answer: { (device: DeviceInfo) in
      HTTPReply(200, device.json).with(revision: device.revision)
    }
  ) { call, keeper throws(Problem) in
    let place = try call.deltaPlace()
    var body = try call.body()
    guard let direction = try body.choice("direction", of: MergedInto.self) else {
      throw body.wrongValue("direction", "is missing")
    }
    try body.finish()
    let revision = try call.ifRevision()
    return try await converting { () async throws(ServiceError) in
      try await call.service.takeMerged(
        call.arguments[0], place, direction, ifRevision: revision, keeping: keeper)
    }
  },
  Route(
    creating: "/v1/devices/{id}/flip-upper-deltas", "flipUpperDeltas", .admin,
    answer: { (device: DeviceInfo) in
      HTTPReply(200, device.json).with(revision: device.revision)
    }
  ) { call, keeper throws(Problem) in
    try call.requireNoMembers()
    let revision = try call.ifRevision()
    return try await converting { () async throws(ServiceError) in
      try await call.service.flipTop(call.arguments[0], ifRevision: revision, keeping: keeper)
    }
  },
  Route(
    creating: "/v1/devices/{id}/snapshots", "addSnapshot", .operate,
    answer: { (made: SnapshotMade) in
      HTTPReply(201, made.json).with(revision: made.revision).with(
        "Location", "/v1/devices/\(made.device)/snapshots/\(made.snapshot.guid.path)")
    }
  ) { call, keeper throws(Problem) in
    var body = try call.body()
    var request = SnapshotRequest()
    request.guid = try body.guid("uuid")
    request.deltaPath = try body.text("delta_path")
    if request.deltaPath != nil { try call.requireForFiles() }
    request.checkpoint = try body.text("checkpoint").map { CheckpointRequest(name: $0) }
    request.note.name = try body.text("name")
    request.note.summary = try body.text("description")
    request.note.labels =
      (try body.labels("labels", removable: false) ?? [:]).compactMapValues { $0 }
    request.note.isProtected = try body.flag("protected") ?? false
    try body.finish()
    let revision = try call.ifRevision()
    return try await converting { [request] () async throws(ServiceError) in
      try await call.service.addSnapshot(
        call.arguments[0], request, ifRevision: revision, keeping: keeper)
    }
  },
  Route(
    creating: "/v1/devices/{id}/snapshots/{uuid}/switch", "switchSnapshot", .admin,
    answer: { (device: DeviceInfo) in
      HTTPReply(200, device.json).with(revision: device.revision)
    }
  ) { call, keeper throws(Problem) in
    let guid = try call.snapshot()
    var body = try call.body()
    let keep = try body.text("keep_top_as")
    let discards = try body.flag("discard_top") ?? false
    try body.finish()
    guard (keep == nil) == discards else {
      throw Problem(
        "value-impossible", "say keep_top_as, a name for the state so far, or \"discard_top\":true",
        pointer: "/keep_top_as")
    }
    let revision = try call.ifRevision()
    return try await converting { () async throws(ServiceError) in
      try await call.service.switchTop(
        call.arguments[0], to: guid, keepingTopAs: keep, ifRevision: revision, keeping: keeper)
    }
  },
]

/// The body of `PATCH /v1/devices/{id}/deltas/{level}`.
private func deltaChange(_ body: Fields) throws(Problem) -> DeltaChange {
  var body = body
  let items = try body.objects("index")
  let path = try body.text("path")
  let isVerified = try body.flag("verify") ?? true
  try body.finish()
  switch (items, path) {
  case (let items?, nil):
    guard items.count <= DeltaChange.indexLimit else {
      throw body.wrongValue("index", "at most \(DeltaChange.indexLimit) entries")
    }
    var entries: [DeltaChange.IndexEntry] = []
    for var item in items {
      guard let cluster = try item.number("cluster") else {
        throw item.wrongValue("cluster", "is missing")
      }
      guard let to = try item.number("to") else { throw item.wrongValue("to", "is missing") }
      try item.finish()
      entries.append(DeltaChange.IndexEntry(cluster: cluster, to: to))
    }
    return .index(entries, isWholeChecked: isVerified)
  case (nil, let path?): return .path(path, isContentChecked: isVerified)
  default: throw body.wrongValue("index", "exactly one of index and path is expected")
  }
}

extension Call {
  /// The delta that the path names.
  func deltaPlace() throws(Problem) -> DeltaPlace {
    let name = arguments[1]
    if name == "top" { return .top }
    guard let level = Int(name), String(level) == name, level >= 0 else {
      throw Problem("delta-not-found", "there is no delta \(name.prefix(80))")
    }
    return .level(level)
  }

  /// The snapshot that the path names: with braces or without, in any case.
  func snapshot() throws(Problem) -> GUID {
    guard let guid = GUID(lenient: arguments[1]) else {
      throw Problem(
        "snapshot-not-found", "\(arguments[1].prefix(80)) is no snapshot's GUID")
    }
    return guid
  }
}
