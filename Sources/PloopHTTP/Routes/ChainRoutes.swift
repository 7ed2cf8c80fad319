internal import PloopControl
internal import PloopFormat

/// What changes the chain of a device.
let chainRoutes: [Route] = [
  Route(
    creating: "/v1/devices/{id}/snapshots", "addSnapshot",
    answer: { (made: SnapshotMade) in
      HTTPReply(201, made.json).with(revision: made.revision).with(
        "Location", "/v1/devices/\(made.device)/snapshots/\(made.snapshot.guid.path)")
    }
  ) { call, keeper throws(Problem) in
    var body = try call.body()
    var request = SnapshotRequest()
    request.guid = try body.guid("uuid")
    request.deltaPath = try body.text("delta_path")
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
    creating: "/v1/devices/{id}/snapshots/{uuid}/switch", "switchSnapshot",
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
        "invalid-value", "say keep_top_as, a name for the state so far, or \"discard_top\":true",
        pointer: "/keep_top_as")
    }
    let revision = try call.ifRevision()
    return try await converting { () async throws(ServiceError) in
      try await call.service.switchTop(
        call.arguments[0], to: guid, keepingTopAs: keep, ifRevision: revision, keeping: keeper)
    }
  },
]

extension Call {
  /// The snapshot that the path names: with braces or without, in any case.
  func snapshot() throws(Problem) -> GUID {
    guard let guid = GUID(lenient: arguments[1]) else {
      throw Problem(
        "snapshot-not-found", "\(arguments[1].prefix(80)) is no snapshot's GUID")
    }
    return guid
  }
}
