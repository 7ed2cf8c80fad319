internal import PloopControl
internal import PloopFormat
internal import PloopJSON

/// What is known of snapshots; the routes that change the chain are in `ChainRoutes.swift`.
let snapshotRoutes: [Route] = [
  Route("GET", "/v1/devices/{id}/snapshots", "listSnapshots", .read, parameters: ["view"]) {
    call throws(Problem) in
    enum View: String { case list, tree }
    guard let view = View(rawValue: call.parameter("view") ?? "list") else {
      throw Problem("invalid-value", "view is list or tree")
    }
    let page = try await converting { () async throws(ServiceError) in
      try await call.service.snapshots(call.arguments[0])
    }
    guard view == .tree else { return list(page, of: call) { $0.json } }
    return HTTPReply(
      200,
      .members([
        "items": .array(trees(page.items)), "next": .null, "revision": .count(page.revision),
      ]))
  },
  Route("GET", "/v1/devices/{id}/snapshots/{uuid}", "getSnapshot", .read) { call throws(Problem) in
    let guid = try call.snapshot()
    let found = try await converting { () async throws(ServiceError) in
      try await call.service.snapshot(call.arguments[0], guid)
    }
    return HTTPReply(200, found.snapshot.json).with(revision: found.revision)
  },
  Route("PATCH", "/v1/devices/{id}/snapshots/{uuid}", "changeSnapshot", .operate) {
    call throws(Problem) in
    let guid = try call.snapshot()
    var body = try call.body()
    var change = SnapshotChange()
    change.name = try body.removableText("name")
    change.summary = try body.removableText("description")
    change.labels = try body.labels("labels", removable: true)
    change.isProtected = try body.flag("protected")
    try body.finish()
    let revision = try call.ifRevision()
    let found = try await converting { [change] () async throws(ServiceError) in
      try await call.service.changeSnapshot(
        call.arguments[0], guid, change, ifRevision: revision)
    }
    return HTTPReply(200, found.snapshot.json).with(revision: found.revision)
  },
]

/// Snapshots with those that build on them inside of them, the oldest outside. Their number is limited,
/// and so is the depth.
private func trees(_ snapshots: [SnapshotInfo]) -> [JSON] {
  let children = Dictionary(grouping: snapshots, by: \.parent)
  func tree(_ snapshot: SnapshotInfo) -> JSON {
    let members = snapshot.members.compactMap { pair -> JSON.Member? in
      guard pair.key == "children" else {
        return pair.value.map { JSON.Member(name: pair.key, value: $0) }
      }
      return JSON.Member(
        name: "children", value: .array((children[snapshot.guid] ?? []).map(tree)))
    }
    return .object(members)
  }
  let known = Set(snapshots.map(\.guid))
  return snapshots.filter { $0.parent.map { !known.contains($0) } ?? true }.map(tree)
}
