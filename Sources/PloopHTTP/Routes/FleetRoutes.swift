internal import PloopControl
internal import PloopJSON

/// The nodes of a fleet, and devices that go from one to another.
let fleetRoutes: [Route] = [
  Route("GET", "/v1/nodes", "listNodes", .read) { call throws(Problem) in
    let nodes = await call.service.nodes()
    return HTTPReply(
      200, .members(["items": .array(nodes.map(\.json)), "next": .null]))
  },
  Route("POST", "/v1/devices/{id}/move", "moveDevice", .admin) { call throws(Problem) in
    var body = try call.body()
    let node = try body.requiredText("to")
    try body.finish()
    let revision = try call.ifRevision()
    let moved = try await converting { () async throws(ServiceError) in
      try await call.service.move(call.arguments[0], to: node, ifRevision: revision)
    }
    return HTTPReply(200, moved.json)
  },
]

extension NodeInfo {
  var json: JSON {
    .members([
      "name": .string(node.name), "endpoint": .string(node.endpoint),
      "version": .string(node.version),
      "labels": .object(
        node.labels.sorted { $0.key < $1.key }.map {
          JSON.Member(name: $0.key, value: .string($0.value))
        }),
      "capacity": .count(UInt64(clamping: node.capacity)),
      "devices": .count(UInt64(clamping: devices)), "self": .bool(isSelf),
      "serving": .bool(isHeld), "trouble": trouble.map(JSON.string) ?? .null,
      "since": time(node.since),
    ])
  }
}

extension DeviceMoved {
  fileprivate var json: JSON {
    .members([
      "device": .string(device), "node": .string(node.name), "endpoint": .string(node.endpoint),
      "state": .string(state.map { $0 == .failed ? "failed" : "serving" } ?? "taking"),
      "reason": reason.map(JSON.string) ?? .null, "milliseconds": .count(milliseconds),
    ])
  }
}
