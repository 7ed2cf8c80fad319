internal import PloopControl

let exportRoutes: [Route] = [
  Route("GET", "/v1/exports", "listExports", .read, reach: .own, parameters: ["limit", "cursor"]) {
    call throws(Problem) in
    let page = try await call.ownPart(
      isOwn: { call.caller.mayUse(device: $0.device) }, id: \.name
    ) { (cursor, limit) async throws(Problem) in
      await call.service.exports(after: cursor, limit: limit)
    }
    return list(page, of: call) { $0.json }
  },
  Route(
    creating: "/v1/exports", "addExport", .operate, reach: .own,
    answer: { reply(201, $0).with("Location", "/v1/exports/\($0.name)") }
  ) { call, keeper throws(Problem) in
    var body = try call.body()
    var request = ExportRequest(
      name: try body.requiredText("name"), device: try body.requiredText("device"))
    request.snapshot = try body.guid("snapshot")
    let readonly = try body.flag("readonly")
    guard request.snapshot == nil || readonly != false else {
      throw Problem("snapshot-not-possible", "a snapshot can only be read", pointer: "/readonly")
    }
    request.readonly = readonly ?? (request.snapshot != nil)
    request.sharedWriters = try body.flag("shared_writers") ?? false
    request.summary = try body.text("description") ?? ""
    request.access = try body.access()
    try body.finish()
    try call.caller.require(device: request.device)
    return try await converting { [request] () async throws(ServiceError) in
      try await call.service.addExport(request, keeping: keeper)
    }
  },
  Route("GET", "/v1/exports/{name}", "getExport", .read, reach: .own, watching: { .export($0[0]) })
  {
    call throws(Problem) in
    reply(200, try await ownExport(call))
  },
  Route("DELETE", "/v1/exports/{name}", "removeExport", .operate, reach: .own, parameters: ["mode"])
  {
    call throws(Problem) in
    let mode = try call.mode()
    let revision = try call.ifRevision()
    if call.caller.grant.devices != nil { _ = try await ownExport(call) }
    try await converting { () async throws(ServiceError) in
      try await call.service.removeExport(call.arguments[0], mode: mode, ifRevision: revision)
    }
    return HTTPReply(204)
  },
]

extension Fields {
  /// Who may use an export; nil where it is not said.
  mutating func access() throws(Problem) -> ExportAccess? {
    guard var access = try object("access") else { return nil }
    let rules = ExportAccess(
      tls: try access.flag("tls") ?? false, names: try access.texts("names", orNull: true),
      addresses: try access.texts("addresses", orNull: true))
    try access.finish()
    return rules
  }
}

/// Another caller's is as good as not there.
func ownExport(_ call: Call) async throws(Problem) -> ExportInfo {
  let export = try await converting { () async throws(ServiceError) in
    try await call.service.export(call.arguments[0])
  }
  guard call.caller.mayUse(device: export.device) else {
    throw .foreign("export-not-found", "there is no export \(call.arguments[0])")
  }
  return export
}

private func reply(_ status: Int, _ export: ExportInfo) -> HTTPReply {
  HTTPReply(status, export.json).with(revision: export.revision)
}
