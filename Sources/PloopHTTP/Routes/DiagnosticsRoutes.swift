internal import PloopControl
internal import PloopIO
internal import PloopJSON

/// Everything that somebody who has to find out what is wrong asks for first, in one answer.
let diagnosticsRoutes: [Route] = [
  Route("GET", "/v1/diagnostics", "getDiagnostics", .admin) { call throws(Problem) in
    HTTPReply(200, Secrets.removed(from: await diagnostics(call)))
  }
]

private let mostDevices = 1_000
private let mostJobs = 200
private let mostEvents: UInt64 = 200

private func diagnostics(_ call: Call) async -> JSON {
  let own = await call.service.diagnostics()
  let exports = await call.service.exports(after: nil, limit: mostDevices)
  let targets = await call.service.targets(after: nil, limit: mostDevices)
  return .members([
    "at": time(wallClockSeconds()), "service": await call.service.info().json,
    "readiness": await call.service.readiness().json,
    "settings": .object(
      call.diagnostics.settings.map { .init(name: $0.name, value: .string($0.value)) }),
    "process": own.process.json, "threads": .array(own.threads.map(\.json)),
    "event_clients": .integer(Int64(call.watchers.count)),
    "devices": .array(await devices(call)), "exports": .array(exports.items.map(\.json)),
    "targets": .array(targets.items.map(\.json)), "queue": await call.service.queue().json,
    "jobs": .array(await jobs(call)), "events": .array(await events(call)),
    "slow_operations": .array(own.slowOperations.map(\.json)),
    "log": .array(call.diagnostics.log().map(JSON.string)),
  ])
}

/// Each with its counters, where it is attached.
private func devices(_ call: Call) async -> [JSON] {
  let page = await call.service.devices(after: nil, limit: mostDevices, state: nil, labels: [:])
  var all: [JSON] = []
  for device in page.items {
    let statistics = try? await call.service.statistics(device.id)
    all.append(.members(["device": device.json, "statistics": statistics?.json ?? .null]))
  }
  return all
}

/// The newest.
private func jobs(_ call: Call) async -> [JSON] {
  let page = try? await call.service.jobs(before: nil, limit: mostJobs, JobFilter())
  return (page?.items ?? []).map(\.json)
}

/// The last, oldest first, without what they are about: that is told with the devices and jobs.
private func events(_ call: Call) async -> [JSON] {
  let last = call.service.eventCursor.revision
  let after = last - min(last, mostEvents)
  let page = try? await call.service.events(
    after: after, matching: EventFilter(device: nil, devices: nil), limit: Int(mostEvents))
  return (page?.items ?? []).map { event in
    .members([
      "revision": event.revision.map(JSON.count) ?? .null, "type": .string(event.type),
      "at": time(event.at), "subject": .string(event.subject),
      "device": event.device.map(JSON.string) ?? .null,
      "actor": event.actor.map(JSON.string) ?? .null,
    ])
  }
}

extension ProcessFacts {
  fileprivate var json: JSON {
    .members([
      "pid": .integer(Int64(process)), "cpu_seconds": .number(processorSeconds),
      "resident_bytes": residentBytes.map(JSON.count) ?? .null,
      "resident_bytes_max": mostResidentBytes.map(JSON.count) ?? .null,
      "virtual_bytes": virtualBytes.map(JSON.count) ?? .null,
      "open_files": openFiles.map { .integer(Int64($0)) } ?? .null,
      "open_files_max": mostFiles.map(JSON.limited) ?? .null,
    ])
  }
}

extension JSON {
  /// A limit that may be none: greater than any number that JSON keeps.
  fileprivate static func limited(_ value: UInt64) -> JSON {
    value > UInt64(largestNumber) ? .null : .count(value)
  }
}

extension ProcessFacts.Threads {
  fileprivate var json: JSON {
    .members([
      "name": .string(name), "count": .integer(Int64(count)),
      "cpu_seconds": .number(processorSeconds),
    ])
  }
}

extension SlowOperation {
  fileprivate var json: JSON {
    .members([
      "at": time(at), "device": .string(device), "operation": .string(operation),
      "offset": .count(offset), "length": .count(length), "failed": .bool(hasFailed),
      "ms": .count(milliseconds), "admission_ms": .count(admissionMilliseconds),
      "recording_ms": .count(recordingMilliseconds), "moving_ms": .count(movingMilliseconds),
      "flush_ms": .count(flushMilliseconds), "data_ms": .count(dataMilliseconds),
    ])
  }
}
