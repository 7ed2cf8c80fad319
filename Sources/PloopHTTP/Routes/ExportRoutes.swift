internal import PloopControl

let exportRoutes: [Route] = [
  Route("GET", "/v1/exports", "listExports", parameters: ["limit", "cursor"]) {
    call throws(Problem) in
    let page = await call.service.exports(
      after: call.parameter("cursor"),
      limit: Int(try call.number("limit", in: 1...1000, default: 100)))
    return list(page, of: call) { $0.json }
  },
  Route(
    creating: "/v1/exports", "addExport",
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
    try body.finish()
    return try await converting { [request] () async throws(ServiceError) in
      try await call.service.addExport(request, keeping: keeper)
    }
  },
  Route("GET", "/v1/exports/{name}", "getExport", watching: { .export($0[0]) }) {
    call throws(Problem) in
    reply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.export(call.arguments[0])
      })
  },
  Route("DELETE", "/v1/exports/{name}", "removeExport", parameters: ["mode"]) {
    call throws(Problem) in
    let mode = try call.mode()
    let revision = try call.ifRevision()
    try await converting { () async throws(ServiceError) in
      try await call.service.removeExport(call.arguments[0], mode: mode, ifRevision: revision)
    }
    return HTTPReply(204)
  },
]

private func reply(_ status: Int, _ export: ExportInfo) -> HTTPReply {
  HTTPReply(status, export.json).with(revision: export.revision)
}
