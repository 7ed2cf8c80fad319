internal import PloopControl
internal import PloopIO
internal import PloopJSON

/// Which clusters of a device are written while somebody copies it.
let trackingRoutes: [Route] = [
  Route(
    creating: "/v1/devices/{id}/tracking", "startTracking", .operate,
    answer: { (info: TrackingInfo) in HTTPReply(201, info.json) }
  ) { call, keeper throws(Problem) in
    var body = try call.body()
    let space = try body.choice("space", of: TrackingSpace.self) ?? .image
    try body.finish()
    return try await converting { () async throws(ServiceError) in
      try await call.service.startTracking(call.arguments[0], space, keeping: keeper)
    }
  },
  Route("GET", "/v1/devices/{id}/tracking", "getTracking", .read) { call throws(Problem) in
    HTTPReply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.tracking(call.arguments[0])
      }.json)
  },
  Route("DELETE", "/v1/devices/{id}/tracking", "stopTracking", .operate) { call throws(Problem) in
    try await converting { () async throws(ServiceError) in
      try await call.service.stopTracking(call.arguments[0])
    }
    return HTTPReply(204)
  },
  Route("POST", "/v1/devices/{id}/tracking/next", "takeTracked", .operate) { call throws(Problem) in
    let (limit, seconds) = try call.batch(most: 65_536, usual: 256)
    let taken = try await call.awaiting(.tracking(call.arguments[0]), seconds: seconds) {
      () async throws(ServiceError) -> TrackedClusters in
      try await call.service.takeTracked(call.arguments[0], limit: limit)
    } until: {
      !$0.clusters.isEmpty
    }
    return HTTPReply(
      200,
      .members([
        "clusters": .array(taken.clusters.map { .integer(Int64($0)) }),
        "more": .bool(taken.left > 0), "dirty_left": .integer(Int64(taken.left)),
      ]))
  },
  Route("GET", "/v1/devices/{id}/tracking/bitmap", "getTrackingBitmap", .read) {
    call throws(Problem) in
    let tracked = try await converting { () async throws(ServiceError) in
      try await call.service.trackedBits(call.arguments[0])
    }
    if call.accepts("application/octet-stream") {
      var reply = HTTPReply(200)
      reply.bytes = tracked.bits.bytes
      return reply
    }
    let unit = tracked.clusterBytes
    return HTTPReply(
      200,
      .members([
        "granularity": .count(unit),
        "extents": .array(
          tracked.bits.runs.map { run in
            .members([
              "start": .count(UInt64(run.lowerBound) * unit),
              "length": .count(UInt64(run.count) * unit),
            ])
          }),
      ]))
  },
]

extension Call {
  /// What a request for a batch says: how many at most, and how many seconds to wait for the first.
  func batch(most: UInt64, usual: UInt64) throws(Problem) -> (limit: Int, seconds: Int) {
    var body = try self.body()
    let batch = try Call.batch(&body, most: most, usual: usual)
    try body.finish()
    return batch
  }

  static func batch(
    _ body: inout Fields, most: UInt64, usual: UInt64
  ) throws(Problem) -> (limit: Int, seconds: Int) {
    let limit = try body.number("max") ?? usual
    guard (1...most).contains(limit) else {
      throw body.wrongValue("max", "a number from 1 to \(most) is expected")
    }
    let seconds = try body.number("wait_seconds") ?? 0
    guard seconds <= Watch.longest else {
      throw body.wrongValue("wait_seconds", "a number from 0 to \(Watch.longest) is expected")
    }
    return (Int(limit), Int(seconds))
  }

  /// Asks again after each change of the topic, until the answer is one that is worth giving or the
  /// caller has waited long enough: then it is what it is.
  func awaiting<Answer>(
    _ topic: Topic, seconds: Int, _ ask: () async throws(ServiceError) -> Answer,
    until isWorth: (Answer) -> Bool
  ) async throws(Problem) -> Answer {
    let deadline = Deadline.after(seconds: seconds)
    while true {
      let changes = service.changes
      let answer = try await converting(ask)
      let left = deadline.millisecondsLeft
      guard !isWorth(answer), left > 0 else { return answer }
      switch try await change(of: topic, since: changes, milliseconds: left) {
      case .changed, .timeout: continue
      case .gone: return answer
      case .closed: throw Problem("shutting-down", "the service is shutting down")
      case .full: throw Problem("too-many-watchers", "as many callers wait as may")
      }
    }
  }
}

extension ServiceError.Holder {
  var json: JSON { .members(["kind": .string(kind), "id": .string(id)]) }
}

extension TrackingInfo {
  var json: JSON {
    .members([
      "space": .string(space.rawValue), "cluster_size": .count(clusterBytes),
      "started_at": time(startedAt), "bits_total": .integer(Int64(bitsTotal)),
      "dirty": .integer(Int64(dirty)), "cursor": .integer(Int64(cursor)),
      "pause_ns": .count(pauseNanoseconds),
    ])
  }
}
