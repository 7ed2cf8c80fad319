internal import PloopControl
internal import PloopJSON

/// Named bitmaps of what was written to a device since an instant.
let checkpointRoutes: [Route] = [
  Route("GET", "/v1/devices/{id}/checkpoints", "listCheckpoints", .read) { call throws(Problem) in
    let page = try await converting { () async throws(ServiceError) in
      try await call.service.checkpoints(call.arguments[0])
    }
    return list(page, of: call) { $0.json }
  },
  Route(
    creating: "/v1/devices/{id}/checkpoints", "addCheckpoint", .operate,
    answer: { (info: CheckpointInfo) in
      HTTPReply(201, info.json).with(
        "Location", "/v1/devices/\(info.device)/checkpoints/\(info.name)")
    }
  ) { call, keeper throws(Problem) in
    var body = try call.body()
    let name = try body.requiredText("name")
    let request = CheckpointRequest(
      name: name, granularityBytes: try body.number("granularity"))
    try body.finish()
    return try await converting { () async throws(ServiceError) in
      try await call.service.addCheckpoint(call.arguments[0], request, keeping: keeper)
    }
  },
  Route("GET", "/v1/devices/{id}/checkpoints/{name}", "getCheckpoint", .read) {
    call throws(Problem) in
    HTTPReply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.checkpoint(call.arguments[0], call.arguments[1])
      }.json)
  },
  Route("DELETE", "/v1/devices/{id}/checkpoints/{name}", "removeCheckpoint", .operate) {
    call throws(Problem) in
    try await converting { () async throws(ServiceError) in
      try await call.service.removeCheckpoint(call.arguments[0], call.arguments[1])
    }
    return HTTPReply(204)
  },
  Route("GET", "/v1/devices/{id}/checkpoints/{name}/bitmap", "getCheckpointBitmap", .read) {
    call throws(Problem) in
    let found = try await converting { () async throws(ServiceError) in
      try await call.service.checkpointBits(call.arguments[0], call.arguments[1])
    }
    if call.accepts("application/octet-stream") {
      var reply = HTTPReply(200)
      reply.bytes = found.bytes
      return reply
    }
    return HTTPReply(
      200,
      .members([
        "granularity": .count(found.granularityBytes),
        "consistent": .bool(found.inconsistency == nil),
        "reason": found.inconsistency.map(JSON.string) ?? .null,
        "extents": .array(
          found.extents.map { range in
            .members([
              "start": .count(range.lowerBound),
              "length": .count(range.upperBound - range.lowerBound),
            ])
          }),
      ]))
  },
]

extension CheckpointInfo {
  var json: JSON {
    .members([
      "name": .string(name), "granularity": .count(granularityBytes),
      "dirty_bytes": .count(dirtyBytes), "recording": .bool(isRecording),
      "consistent": .bool(inconsistency == nil), "reason": inconsistency.map(JSON.string) ?? .null,
      "parent": parent.map(JSON.string) ?? .null, "used_by": .array(usedBy.map(JSON.string)),
      "created_at": time(createdAt), "pause_ns": pauseNanoseconds.map(JSON.count) ?? .null,
      "revision": .count(revision),
    ])
  }
}
