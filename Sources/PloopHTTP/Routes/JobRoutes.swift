internal import PloopControl
internal import PloopFormat
internal import PloopIO
internal import PloopJSON

let jobRoutes: [Route] = [
  Route(
    "GET", "/v1/jobs", "listJobs", .read, reach: .own,
    parameters: ["limit", "cursor", "state", "device", "type", "label.*"]
  ) { call throws(Problem) in
    var filter = JobFilter()
    if let text = call.parameter("state") {
      filter.state = JobState(rawValue: text)
      if filter.state == nil { throw Problem("invalid-value", "unknown state \(text)") }
    }
    filter.device = call.parameter("device")
    filter.type = call.parameter("type")
    for (name, value) in call.target.query where name.hasPrefix("label.") {
      filter.labels[String(name.dropFirst("label.".count))] = value
    }
    let page = try await call.ownPart(
      isOwn: { call.owns($0) }, id: \.record.id
    ) { [filter] (cursor, limit) async throws(Problem) in
      try await converting { () async throws(ServiceError) in
        try await call.service.jobs(before: cursor, limit: limit, filter)
      }
    }
    return list(page, of: call) { $0.json }
  },
  Route(
    creating: "/v1/jobs", "addJob", .operate, reach: .own, parameters: ["dry_run"],
    answer: { HTTPReply($0) },
    finish: { (call, job: JobInfo) async throws(Problem) in try await call.reply(job) },
    plan: { call throws(Problem) in
      let request = try await call.jobRequest()
      return try await converting { () async throws(ServiceError) in
        try await call.service.planJob(request)
      }
    }
  ) { call, keeper throws(Problem) in
    let request = try await call.jobRequest()
    return try await converting { () async throws(ServiceError) in
      try await call.service.addJob(request, keeping: keeper)
    }
  },
  Route("GET", "/v1/jobs/{id}", "getJob", .read, reach: .own, watching: { .job($0[0]) }) {
    call throws(Problem) in
    let job = try await call.ownJob()
    return HTTPReply(200, job.json).with(revision: job.record.revision)
  },
  Route("PATCH", "/v1/jobs/{id}", "changeJob", .operate, reach: .own) { call throws(Problem) in
    let change = try jobChange(try call.body())
    let revision = try call.ifRevision()
    try await call.requireOwnJob()
    let job = try await converting { () async throws(ServiceError) in
      try await call.service.changeJob(call.arguments[0], change, ifRevision: revision)
    }
    return HTTPReply(200, job.json).with(revision: job.record.revision)
  },
  Route("DELETE", "/v1/jobs/{id}", "removeJob", .operate, reach: .own) { call throws(Problem) in
    let revision = try call.ifRevision()
    try await call.requireOwnJob()
    try await converting { () async throws(ServiceError) in
      try await call.service.removeJob(call.arguments[0], ifRevision: revision)
    }
    return HTTPReply(204)
  },
  Route("POST", "/v1/jobs/{id}/cancel", "cancelJob", .operate, reach: .own) {
    call throws(Problem) in
    let revision = try call.ifRevision()
    try call.requireNoMembers()
    try await call.requireOwnJob()
    return try await call.reply(
      try await converting { () async throws(ServiceError) in
        try await call.service.cancelJob(call.arguments[0], ifRevision: revision)
      })
  },
  Route("POST", "/v1/jobs/{id}/retry", "retryJob", .operate, reach: .own) { call throws(Problem) in
    let revision = try call.ifRevision()
    try call.requireNoMembers()
    try await call.requireRetry()
    return try await call.reply(
      try await converting { () async throws(ServiceError) in
        try await call.service.retryJob(call.arguments[0], ifRevision: revision)
      })
  },
  Route(
    "GET", "/v1/jobs/{id}/log", "getJobLog", .read, reach: .own,
    parameters: ["after", "limit", "wait"]
  ) {
    call throws(Problem) in
    let after = try call.number("after", in: 0...UInt64(JSON.largestNumber), default: 0)
    let limit = Int(try call.number("limit", in: 1...10_000, default: 1_000))
    let seconds = Int(try call.number("wait", in: 0...60, default: 0))
    try await call.requireOwnJob()
    return try await call.log(call.arguments[0], after: after, limit: limit, seconds: seconds)
  },
  Route("GET", "/v1/queue", "getQueue", .read) { call throws(Problem) in
    HTTPReply(200, await call.service.queue().json)
  },
  Route("PATCH", "/v1/queue", "changeQueue", .admin) { call throws(Problem) in
    let change = try queueChange(try call.body())
    return HTTPReply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.changeQueue(change)
      }.json)
  },
  Route(
    "DELETE", "/v1/devices/{id}/snapshots/{uuid}", "removeSnapshot", .operate,
    parameters: ["dry_run"]
  ) { call throws(Problem) in
    var request = JobRequest(type: "delete_snapshot", device: call.arguments[0])
    request.parameters["snapshot"] = .text(try call.snapshot().description)
    request.ifRevision = try call.ifRevision()
    guard try !call.isDryRun() else {
      return HTTPReply(
        200,
        try await converting { [request] () async throws(ServiceError) in
          try await call.service.planJob(request)
        }.json)
    }
    return try await call.reply(
      try await converting { [request] () async throws(ServiceError) in
        try await call.service.addJob(request, keeping: nil)
      })
  },
]

extension Call {
  /// The lines of a job's log behind a number, as soon as there are any.
  fileprivate func log(
    _ id: String, after: UInt64, limit: Int, seconds: Int
  ) async throws(Problem) -> HTTPReply {
    let deadline = Deadline.after(seconds: seconds)
    while true {
      let changes = service.changes
      let lines = try await converting { () async throws(ServiceError) in
        try await service.jobLog(id, after: after, limit: limit)
      }
      let left = deadline.millisecondsLeft
      guard lines.isEmpty, left > 0 else {
        var reply = HTTPReply(200)
        reply.lines = lines.map(\.json)
        return reply
      }
      switch try await change(of: .job(id), since: changes, milliseconds: left) {
      case .changed, .timeout, .gone: continue
      case .closed: throw Problem("shutting-down", "the service is shutting down")
      case .full: throw Problem("too-many-watchers", "as many callers wait as may")
      }
    }
  }
}
