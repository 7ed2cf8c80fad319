internal import PloopControl
internal import PloopFormat
internal import PloopJSON

// Targets and backups as JSON, both ways.

/// The body of `POST /v1/targets`.
func targetRequest(_ body: Fields) throws(Problem) -> TargetRequest {
  var body = body
  let name = try body.requiredText("name")
  guard let kind = try body.choice("type", of: TargetPlace.Kind.self) else {
    throw body.wrongValue("type", "is missing")
  }
  let place: TargetPlace
  switch kind {
  case .directory: place = .directory(path: try body.requiredText("path"))
  case .file:
    place = .file(
      path: try body.requiredText("path"),
      format: try body.choice("format", of: TargetPlace.FileFormat.self) ?? .raw)
  case .nbd: place = .nbd(uri: try body.requiredText("uri"))
  }
  var request = TargetRequest(name: name, place: place)
  request.slots = try body.slots("slots") ?? request.slots
  request.limits = try body.limits()?.applied(to: JobLimits()) ?? request.limits
  if var tls = try body.object("tls") {
    request.tls = TargetTLS(
      certificates: try tls.removableText("certificates") ?? nil,
      verify: try tls.flag("verify") ?? true)
    try tls.finish()
  }
  try body.finish()
  return request
}

func targetChange(_ body: Fields) throws(Problem) -> TargetChange {
  var body = body
  var change = TargetChange()
  change.slots = try body.slots("slots")
  change.limits = try body.limits() ?? change.limits
  try body.finish()
  return change
}

extension TargetInfo {
  var json: JSON {
    var path: String?
    var format: String?
    var uri: String?
    switch target.place {
    case .directory(let place): path = place
    case .file(let place, let kind): (path, format) = (place, kind.rawValue)
    case .nbd(let place): uri = place
    }
    return .members([
      "name": .string(target.name), "type": .string(target.place.kind.rawValue),
      "path": path.map(JSON.string), "format": format.map(JSON.string),
      "uri": uri.map(JSON.string),
      "tls": target.tls.map { tls in
        .members([
          "certificates": tls.certificates.map(JSON.string) ?? .null, "verify": .bool(tls.verify),
        ])
      }, "slots": .integer(Int64(target.slots)),
      "limits": target.limits.json, "conditions": .array(conditions.map(\.json)),
      "usage": usage.map { usage in
        .members([
          "bytes": .count(usage.bytes), "backups": .integer(Int64(usage.backups)),
        ])
      } ?? .null,
      "created_at": time(target.createdAt), "revision": .count(target.revision),
    ])
  }
}

extension BackupInfo {
  var json: JSON {
    .members([
      "id": .string(id), "target": .string(target), "device": .string(device),
      "chain": .string(chain), "state": .string(state.rawValue),
      "reason": problem.map(JSON.string) ?? .null, "mode": mode.map(JSON.string) ?? .null,
      "parent": parent.map(JSON.string) ?? .null, "chain_length": .integer(Int64(chainLength)),
      "point_in_time": pointInTime.map(time) ?? .null,
      "completed_at": completedAt.map(time) ?? .null, "disk_bytes": .count(diskBytes),
      "stored_bytes": storedBytes.map(JSON.count) ?? .null,
      "size": sizeBytes.map(JSON.count) ?? .null,
      "cluster_size": clusterBytes.map(JSON.count) ?? .null,
      "sums_sha256": journalDigest.map(JSON.string) ?? .null,
      "verified_at": verifiedAt.map(time) ?? .null,
      "snapshot": snapshot.map(JSON.string) ?? .null,
      "checkpoint": checkpoint.map(JSON.string) ?? .null,
      "descriptor": descriptor.map(JSON.string) ?? .null,
      "at": place.map { .string($0.description) } ?? .null,
    ])
  }
}
