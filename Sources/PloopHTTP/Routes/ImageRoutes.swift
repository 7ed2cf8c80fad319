internal import PloopControl
internal import PloopFormat
internal import PloopJSON

// What lies beneath the roots.

let imageRoutes: [Route] = [
  Route("GET", "/v1/images", "listImages", .read, parameters: ["limit", "cursor", "root", "state"])
  {
    call throws(Problem) in
    let limit = Int(try call.number("limit", in: 1...1000, default: 100))
    var state: ImageInfo.State?
    if let text = call.parameter("state") {
      state = ImageInfo.State(rawValue: text)
      guard state != nil else { throw Problem("invalid-value", "unknown state \(text)") }
    }
    let listing = try await converting { [state] () async throws(ServiceError) in
      try await call.service.images(
        root: call.parameter("root"), state: state, after: call.parameter("cursor"), limit: limit)
    }
    return list(listing.page, of: call, listing.members) { $0.json }
  }
]

extension ImageListing {
  fileprivate var members: KeyValuePairs<String, JSON?> {
    [
      "disk_bytes": .object(
        ImageInfo.usages.map { JSON.Member(name: $0, value: .count(diskBytes[$0] ?? 0)) }),
      "problems": .array(problems.prefix(100).map(JSON.string)),
    ]
  }
}

extension ImageInfo {
  fileprivate var json: JSON {
    .members([
      "path": .string(path), "kind": .string(kind.rawValue),
      "format": kind == .descriptor ? .null : .string(isRaw ? "raw" : "ploop1"),
      "version": version.map { .integer(Int64($0.rawValue)) } ?? .null,
      "size": sizeBytes.map(JSON.count) ?? .null,
      "cluster_size": clusterBytes.map(JSON.count) ?? .null,
      "unclean": isUnclean.map(JSON.bool) ?? .null, "file_bytes": .count(fileBytes),
      "disk_bytes": .count(diskBytes), "exclusive_bytes": .count(exclusiveBytes),
      "mtime": time(modifiedAt), "state": .string(state.rawValue), "usage": .string(usage),
      "used_by": .array(users.map(\.json)), "reason": reason.map(JSON.string) ?? .null,
      "problem": problem.map(JSON.string) ?? .null,
    ])
  }
}

extension ImageInfo.User {
  fileprivate var json: JSON {
    .members([
      "kind": .string(kind), "id": .string(id), "snapshot": snapshot.map(JSON.string) ?? .null,
      "top": .bool(isTop),
    ])
  }
}
