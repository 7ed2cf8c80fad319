internal import FoundationEssentials
package import PloopControl
package import PloopJSON

// Jobs as JSON, both ways.

/// The body of `POST /v1/jobs`.
func jobRequest(_ body: Fields) throws(Problem) -> JobRequest {
  var body = body
  var request = JobRequest(
    type: try body.requiredText("type"), device: try body.text("device"))
  request.parameters = try body.jobParameters()
  request.priority = try body.priority() ?? 50
  request.after = try body.texts("after") ?? []
  guard request.after.count <= 100 else {
    throw body.wrongValue("after", "a list of at most 100 strings is expected")
  }
  request.limits = try body.limits()?.applied(to: JobLimits()) ?? JobLimits()
  request.notBefore = try body.moment("not_before")
  request.retry = try body.retry()
  request.dedupeKey = try body.text("dedupe_key")
  if let key = request.dedupeKey, !(1...255).contains(key.characterCount) {
    throw body.wrongValue("dedupe_key", "1 to 255 characters are expected")
  }
  request.labels = (try body.labels("labels", removable: false) ?? [:]).compactMapValues { $0 }
  try body.finish()
  return request
}

func jobChange(_ body: Fields) throws(Problem) -> JobChange {
  var body = body
  var change = JobChange()
  change.isPaused = try body.flag("paused")
  change.priority = try body.priority()
  change.limits = try body.limits() ?? change.limits
  change.parameters = try body.jobParameters()
  try body.finish()
  return change
}

func queueChange(_ body: Fields) throws(Problem) -> QueueChange {
  var body = body
  var change = QueueChange()
  change.isPaused = try body.flag("paused")
  change.limits = try body.limits() ?? change.limits
  if var slots = try body.object("slots") {
    change.totalSlots = try slots.slots("total")
    change.slotsPerFilesystem = try slots.slots("per_filesystem")
    try slots.finish()
  }
  try body.finish()
  return change
}

extension Fields {
  fileprivate mutating func jobParameters() throws(Problem) -> [String: JobValue] {
    guard let parameters = json("params") else { return [:] }
    guard case .object(let members) = parameters else {
      throw wrongValue("params", "an object is expected")
    }
    var values: [String: JobValue] = [:]
    for member in members {
      guard let value = JobValue(member.value) else {
        throw Problem(
          "invalid-value", "\(member.name): no such value is expected",
          pointer: ServiceError.pointer(["params", member.name]))
      }
      values[member.name] = value
    }
    return values
  }

  fileprivate mutating func priority() throws(Problem) -> Int? {
    guard let number = try number("priority") else { return nil }
    guard number <= 100 else { throw wrongValue("priority", "0 to 100 is expected") }
    return Int(number)
  }

  mutating func slots(_ name: String) throws(Problem) -> Int? {
    guard let number = try number(name) else { return nil }
    guard (1...64).contains(number) else { throw wrongValue(name, "1 to 64 is expected") }
    return Int(number)
  }

  mutating func limits() throws(Problem) -> JobLimitsChange? {
    guard var fields = try object("limits") else { return nil }
    var limits = JobLimitsChange()
    limits.bytesPerSecond = try fields.number("bps")
    limits.operationsPerSecond = try fields.number("iops")
    try fields.finish()
    return limits
  }

  fileprivate mutating func retry() throws(Problem) -> JobRetry? {
    guard var fields = try object("retry") else { return nil }
    var retry = JobRetry()
    if let number = try fields.number("max_attempts") {
      guard (1...100).contains(number) else {
        throw fields.wrongValue("max_attempts", "1 to 100 is expected")
      }
      retry.maxAttempts = Int(number)
    }
    if let number = try fields.number("backoff_seconds") {
      guard number <= 86_400 else {
        throw fields.wrongValue("backoff_seconds", "0 to 86400 is expected")
      }
      retry.backoffSeconds = Int(number)
    }
    try fields.finish()
    return retry
  }

  fileprivate mutating func moment(_ name: String) throws(Problem) -> Double? {
    guard let text = try text(name) else { return nil }
    for style in [
      Date.ISO8601FormatStyle(), Date.ISO8601FormatStyle(includingFractionalSeconds: true),
    ] {
      if let date = try? style.parse(text) { return date.timeIntervalSince1970 }
    }
    // There are texts of this form that are no times, such as the 30th of February.
    throw Problem(
      "value-impossible", "\(name): a time as 2026-11-25T18:00:00Z is expected",
      pointer: ServiceError.pointer([name]))
  }
}

extension JobValue {
  /// Nil for null, fractions and numbers that JSON cannot say exactly, which no job takes.
  fileprivate init?(_ value: JSON) {
    switch value {
    case .string(let text): self = .text(text)
    case .bool(let flag): self = .flag(flag)
    case .integer(let number) where (0...JSON.largestNumber).contains(number):
      self = .number(UInt64(number))
    case .array(let items):
      let values = items.compactMap(JobValue.init)
      guard values.count == items.count else { return nil }
      self = .list(values)
    case .object(let members):
      var values: [String: JobValue] = [:]
      for member in members {
        guard let value = JobValue(member.value) else { return nil }
        values[member.name] = value
      }
      self = .object(values)
    default: return nil
    }
  }

  package var json: JSON {
    switch self {
    case .text(let text): .string(text)
    case .number(let number): .count(number)
    case .flag(let flag): .bool(flag)
    case .list(let items): .array(items.map(\.json))
    case .object(let members): PloopHTTP.json(members)
    }
  }
}

private func json(_ members: [String: JobValue]) -> JSON {
  .object(
    members.sorted { $0.key < $1.key }.map { JSON.Member(name: $0.key, value: $0.value.json) })
}

extension JobLimits {
  var json: JSON {
    .members(["bps": .count(bytesPerSecond), "iops": .count(operationsPerSecond)])
  }
}

extension JobRetry {
  fileprivate var json: JSON {
    .members([
      "max_attempts": .integer(Int64(maxAttempts)),
      "backoff_seconds": .integer(Int64(backoffSeconds)),
    ])
  }
}

extension JobBlocker {
  fileprivate var json: JSON {
    .members([
      "kind": .string(kind.rawValue), "id": id.map(JSON.string) ?? .null, "detail": .string(detail),
    ])
  }
}

extension JobFailure {
  fileprivate var json: JSON {
    .members([
      "type": .string("/problems/\(code)"), "code": .string(code), "detail": .string(detail),
      "cause": cause.map(JSON.string), "remedy": remedy.map(JSON.string),
      "errno": errno.map(JSON.string),
    ])
  }
}

extension JobInfo {
  var json: JSON {
    let progress = record.progress
    return .members([
      "id": .string(record.id), "type": .string(record.type),
      "device": record.device.map(JSON.string) ?? .null,
      "params": PloopHTTP.json(record.parameters), "state": .string(record.state.rawValue),
      "phase": record.phase.map(JSON.string) ?? .null,
      "phases": .array(record.phases.map(JSON.string)),
      "progress": .members([
        "done_clusters": .count(progress.doneClusters),
        "total_clusters": .count(progress.totalClusters),
        "done_bytes": .count(progress.doneBytes), "total_bytes": .count(progress.totalBytes),
        "rate_bps": bytesPerSecond.map(JSON.count) ?? .null,
        "eta_seconds": secondsLeft.map(JSON.count) ?? .null,
        "last_progress_at": progress.lastProgressAt.map(time) ?? .null,
      ]),
      "stalled": .bool(isStalled), "waiting_for": .array(waitingFor.map(\.json)),
      "paused": .bool(record.isPaused), "priority": .integer(Int64(record.priority)),
      "limits": record.limits.json, "after": .array(record.after.map(JSON.string)),
      "not_before": record.notBefore.map(time) ?? .null,
      "retry": (record.retry ?? JobRetry()).json,
      "dedupe_key": record.dedupeKey.map(JSON.string) ?? .null,
      "labels": .object(
        record.labels.sorted { $0.key < $1.key }.map {
          JSON.Member(name: $0.key, value: .string($0.value))
        }),
      "actor": record.actor.map(JSON.string) ?? .null,
      "attempt": .integer(Int64(record.attempt)),
      "interruptions": .integer(Int64(record.interruptions)),
      "cancellable": .bool(isCancellable), "resumable": .bool(isResumable),
      "warnings": .array((record.warnings ?? []).map(JSON.string)),
      "result": record.result.map(PloopHTTP.json) ?? .null,
      "error": record.error?.json ?? .null, "created_at": time(record.createdAt),
      "started_at": record.startedAt.map(time) ?? .null,
      "finished_at": record.finishedAt.map(time) ?? .null, "revision": .count(record.revision),
    ])
  }
}

extension JobLogLine {
  var json: JSON {
    .members([
      "n": .count(number), "at": time(at), "level": .string(level), "msg": .string(message),
    ])
  }
}

extension JobPlan {
  var json: JSON {
    .members([
      "dry_run": .bool(true),
      "plan": .members([
        "clusters_to_copy": .count(clusters), "bytes_to_copy": .count(bytes),
        "space_needed_bytes": .count(requiredBytes),
        "space_free_bytes": freeBytes.map(JSON.count) ?? .null,
        "estimated_seconds": estimatedSeconds.map(JSON.count) ?? .null,
        "blockers": .array(blockers.map(\.json)),
        "direction": direction.map(JSON.string) ?? .null, "mode": mode.map(JSON.string) ?? .null,
        "reason": reason.map(JSON.string) ?? .null,
        "removes": removes.map { files in
          .array(
            files.map { .members(["path": .string($0.path), "disk_bytes": .count($0.diskBytes)]) })
        },
        "details": details.map(PloopHTTP.json),
      ]),
    ])
  }
}

extension QueueInfo {
  var json: JSON {
    .members([
      "paused": .bool(settings.isPaused),
      "slots": .members([
        "total": .integer(Int64(settings.totalSlots)),
        "per_filesystem": .integer(Int64(settings.slotsPerFilesystem)),
      ]),
      "limits": settings.limits.json, "running": .integer(Int64(running)),
      "queued": .integer(Int64(queued)), "paused_jobs": .integer(Int64(paused)),
      "oldest_queued_at": oldestQueuedAt.map(time) ?? .null, "revision": .count(revision),
    ])
  }
}
