internal import FoundationEssentials
internal import PloopControl
internal import PloopJSON

/// A disk as it was at one instant, for a copier outside.
let pushBackupRoutes: [Route] = [
  Route(
    creating: "/v1/devices/{id}/push-backup", "startPushBackup", .operate,
    answer: { (info: PushBackupInfo) in HTTPReply(201, info.json) }
  ) { call, keeper throws(Problem) in
    let request = try pushBackupRequest(try call.body())
    if request.spill != nil { try call.requireForFiles() }
    return try await converting { () async throws(ServiceError) in
      try await call.service.startPushBackup(call.arguments[0], request, keeping: keeper)
    }
  },
  Route("GET", "/v1/devices/{id}/push-backup", "getPushBackup", .read) { call throws(Problem) in
    HTTPReply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.pushBackup(call.arguments[0])
      }.json)
  },
  Route(
    "DELETE", "/v1/devices/{id}/push-backup", "stopPushBackup", .operate,
    parameters: ["outcome", "uuid"]
  ) { call throws(Problem) in
    guard let uuid = call.parameter("uuid") else {
      throw Problem("invalid-value", "uuid is missing: which backup is to end")
    }
    let outcome = call.parameter("outcome") ?? "abort"
    guard ["complete", "abort"].contains(outcome) else {
      throw Problem("invalid-value", "outcome is complete or abort")
    }
    return HTTPReply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.stopPushBackup(
          call.arguments[0], uuid: uuid, isComplete: outcome == "complete")
      }.json)
  },
  Route("POST", "/v1/devices/{id}/push-backup/read", "readPushBackup", .operate) {
    call throws(Problem) in
    var body = try call.body()
    let uuid = try body.requiredText("uuid")
    let (limit, seconds) = try Call.batch(&body, most: 4_096, usual: 64)
    let leftFrom = Int(clamping: try body.number("left_from") ?? 0)
    let leftLimit = try body.number("left_max") ?? 0
    guard leftLimit <= 4_096 else {
      throw body.wrongValue("left_max", "a number from 0 to 4096 is expected")
    }
    try body.finish()
    let work = try await call.awaiting(.pushBackup(call.arguments[0]), seconds: seconds) {
      () async throws(ServiceError) -> PushBackupWork in
      try await call.service.readPushBackup(
        call.arguments[0], uuid: uuid, limit: limit,
        left: (from: leftFrom, limit: Int(leftLimit)))
    } until: {
      !$0.pending.isEmpty || $0.remaining == 0
    }
    return HTTPReply(200, work.json)
  },
  Route("POST", "/v1/devices/{id}/push-backup/confirm", "confirmPushBackup", .operate) {
    call throws(Problem) in
    var body = try call.body()
    let uuid = try body.requiredText("uuid")
    let single = try body.numbers("clusters") ?? []
    var clusters = single.map { Int($0)..<Int($0) + 1 }
    for var fields in try body.objects("ranges") ?? [] {
      let first = try fields.number("cluster")
      let count = try fields.number("count")
      try fields.finish()
      guard let first, let count, count > 0 else {
        throw fields.wrongValue("count", "a range has a cluster and a count of at least 1")
      }
      // Both have 53 bits.
      clusters.append(Int(first)..<Int(first) + Int(count))
    }
    try body.finish()
    let done = try await converting { [clusters] () async throws(ServiceError) in
      try await call.service.confirmPushBackup(call.arguments[0], uuid: uuid, clusters)
    }
    return HTTPReply(
      200,
      .members([
        "confirmed": .integer(Int64(done.confirmed)), "remaining": .integer(Int64(done.remaining)),
      ]))
  },
  Route(
    "GET", "/v1/devices/{id}/push-backup/data", "getPushBackupData", .data, parameters: ["uuid"]
  ) {
    call throws(Problem) in
    let range = try call.byteRange()
    let data = try await converting { () async throws(ServiceError) in
      try await call.service.pushBackupData(
        call.arguments[0], uuid: call.parameter("uuid"), range)
    }
    var reply = HTTPReply(206)
    reply.bytes = data.bytes
    return reply.with(
      "Content-Range", "bytes \(range.lowerBound)-\(range.upperBound)/\(data.size)")
  },
]

extension Call {
  /// The one range that the request names, `bytes=0-1048575`.
  fileprivate func byteRange() throws(Problem) -> ClosedRange<UInt64> {
    guard case .between(let first, let last?)? = try ByteRange(headerOf: request),
      last <= UInt64(JSON.largestNumber)
    else {
      throw Problem("range-invalid", "the header Range names the bytes: bytes=0-1048575")
    }
    return first...last
  }
}

private func pushBackupRequest(_ body: Fields) throws(Problem) -> PushBackupRequest {
  var body = body
  var request = PushBackupRequest()
  request.uuid = try body.text("uuid")
  switch body.json("clusters") {
  case nil, .string("all")?: break
  case let value?:
    request.clusters = try wantedClusters(try Fields(value, at: "/clusters"))
  }
  request.checkpoint = try body.text("checkpoint").map { CheckpointRequest(name: $0) }
  request.onDeadline =
    try body.choice(
      "on_deadline", of: PushBackupRequest.OnDeadline.self) ?? .abort
  let seconds = try body.number("deadline_seconds") ?? UInt64(request.deadlineSeconds)
  guard (1...18_000).contains(seconds) else {
    throw body.wrongValue("deadline_seconds", "a number from 1 to 18000 is expected")
  }
  request.deadlineSeconds = Int(seconds)
  if var spill = try body.object("spill") {
    let path = try spill.requiredText("path")
    guard let limit = try spill.number("max_bytes") else {
      throw spill.wrongValue("max_bytes", "is missing")
    }
    try spill.finish()
    request.spill = PushBackupRequest.Spill(path: path, limitBytes: limit)
  }
  request.hasExport = try body.flag("export") ?? true
  guard (request.spill != nil) == (request.onDeadline == .spill) else {
    throw Problem(
      "value-impossible", "spill goes with \"on_deadline\":\"spill\", and only with that",
      pointer: "/spill")
  }
  try body.finish()
  return request
}

private func wantedClusters(_ body: Fields) throws(Problem) -> PushBackupRequest.Clusters {
  var body = body
  let since = try body.text("since_checkpoint")
  let text = try body.text("bitmap")
  try body.finish()
  switch (since, text) {
  case (let since?, nil): return .since(since)
  case (nil, let text?):
    guard let bytes = Data(base64Encoded: text) else {
      throw body.wrongValue("bitmap", "base64 is expected")
    }
    return .bitmap(Array(bytes))
  default:
    throw body.wrongValue("bitmap", "either bitmap or since_checkpoint is expected")
  }
}

extension PushBackupInfo {
  var json: JSON {
    .members([
      "uuid": .string(uuid), "state": .string(state.rawValue),
      "reason": reason.map(JSON.string) ?? .null,
      "mode": .string(isIncremental ? "incremental" : "full"),
      "full_reason": fullReason.map(JSON.string) ?? .null,
      "since_checkpoint": since.map(JSON.string) ?? .null,
      "checkpoint": checkpoint.map(JSON.string) ?? .null,
      "clusters_total": .integer(Int64(clustersTotal)), "remaining": .integer(Int64(remaining)),
      "confirmed": .integer(Int64(clustersTotal - remaining)),
      "cluster_size": .count(clusterBytes), "blocked_writes": .integer(Int64(blockedWrites)),
      "spilled_bytes": .count(spilledBytes),
      "guest_wait_ms_max": .count(longestWaitMilliseconds),
      "deadline_seconds": .integer(Int64(deadlineSeconds)),
      "on_deadline": .string(onDeadline.rawValue), "export": export.map(JSON.string) ?? .null,
      "started_at": time(startedAt), "pause_ns": .count(pauseNanoseconds),
    ])
  }
}

extension PushBackupWork {
  var json: JSON {
    .members([
      "pending": .array(
        pending.map {
          .members([
            "cluster": .integer(Int64($0.cluster)), "offset": .count($0.offset),
            "length": .count($0.length), "waiting_ms": .count($0.waitingMilliseconds),
          ])
        }),
      "left": .array(
        left.map {
          .members([
            "cluster": .integer(Int64($0.lowerBound)), "count": .integer(Int64($0.count)),
          ])
        }),
      "remaining": .integer(Int64(remaining)), "blocked_writes": .integer(Int64(blockedWrites)),
    ])
  }
}
