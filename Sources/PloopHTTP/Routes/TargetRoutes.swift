internal import PloopControl

// Where backups are kept, and the backups that are there.

let targetRoutes: [Route] = [
  Route("GET", "/v1/targets", "listTargets", .read, parameters: ["limit", "cursor"]) {
    call throws(Problem) in
    let page = await call.service.targets(
      after: call.parameter("cursor"),
      limit: Int(try call.number("limit", in: 1...1000, default: 100)))
    return list(page, of: call) { $0.json }
  },
  Route(
    creating: "/v1/targets", "addTarget", .admin,
    answer: { reply(201, $0).with("Location", "/v1/targets/\($0.target.name)") }
  ) { call, keeper throws(Problem) in
    let request = try targetRequest(try call.body())
    return try await converting { () async throws(ServiceError) in
      try await call.service.addTarget(request, keeping: keeper)
    }
  },
  Route("GET", "/v1/targets/{name}", "getTarget", .read, watching: { .target($0[0]) }) {
    call throws(Problem) in
    reply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.target(call.arguments[0])
      })
  },
  Route("PATCH", "/v1/targets/{name}", "changeTarget", .admin) { call throws(Problem) in
    let change = try targetChange(try call.body())
    let revision = try call.ifRevision()
    return reply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.changeTarget(call.arguments[0], change, ifRevision: revision)
      })
  },
  Route("DELETE", "/v1/targets/{name}", "removeTarget", .admin, parameters: ["backups"]) {
    call throws(Problem) in
    let leavingBackups = try call.choice("backups", of: ["refuse", "keep"]) == "keep"
    let revision = try call.ifRevision()
    try await converting { () async throws(ServiceError) in
      try await call.service.removeTarget(
        call.arguments[0], leavingBackups: leavingBackups, ifRevision: revision)
    }
    return HTTPReply(204)
  },
  Route(
    "GET", "/v1/targets/{name}/backups", "listBackups", .read,
    parameters: ["limit", "cursor", "device"]
  ) { call throws(Problem) in
    let limit = Int(try call.number("limit", in: 1...1000, default: 100))
    let page = try await converting { () async throws(ServiceError) in
      try await call.service.backups(
        on: call.arguments[0], of: call.parameter("device"), after: call.parameter("cursor"),
        limit: limit)
    }
    return list(page, of: call) { $0.json }
  },
  Route("GET", "/v1/targets/{name}/backups/{id}", "getBackup", .read) { call throws(Problem) in
    HTTPReply(
      200,
      try await converting { () async throws(ServiceError) in
        try await call.service.backup(call.arguments[1], on: call.arguments[0])
      }.json)
  },
  Route(
    "DELETE", "/v1/targets/{name}/backups/{id}", "removeBackup", .operate, parameters: ["cascade"]
  ) { call throws(Problem) in
    let cascading = try call.choice("cascade", of: ["false", "true"]) == "true"
    try await converting { () async throws(ServiceError) in
      try await call.service.removeBackup(
        call.arguments[1], on: call.arguments[0], cascading: cascading)
    }
    return HTTPReply(204)
  },
]

private func reply(_ status: Int, _ target: TargetInfo) -> HTTPReply {
  HTTPReply(status, target.json).with(revision: target.target.revision)
}

extension Call {
  /// A parameter that is one of some words; the first of them where it is not there.
  fileprivate func choice(_ name: String, of words: [String]) throws(Problem) -> String? {
    guard let text = parameter(name) else { return words.first }
    guard words.contains(text) else {
      throw Problem("invalid-value", "\(name) is \(words.joined(separator: " or "))")
    }
    return text
  }
}
