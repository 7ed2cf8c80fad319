internal import PloopControl
internal import PloopIO
internal import PloopJSON

let eventRoutes: [Route] = [
  Route(
    "GET", "/v1/events", "listEvents", .read, reach: .own,
    parameters: ["after", "device", "limit", "types", "wait"]
  ) { call throws(Problem) in
    let filter = try eventFilter(call)
    let last = try lastEvent(call)
    guard call.accepts("text/event-stream") else { return try await events(call, filter) }
    return try eventStream(call, filter, behind: last)
  }
]

private let revisions = 0...UInt64(JSON.largestNumber)

private func eventFilter(_ call: Call) throws(Problem) -> EventFilter {
  var filter = EventFilter(
    device: call.parameter("device"), devices: call.caller.grant.devices)
  guard let types = call.parameter("types") else { return filter }
  for text in types.split(separator: ",", omittingEmptySubsequences: false) {
    guard let pattern = EventFilter.Pattern(String(text)), filter.types.count < 32 else {
      throw Problem(
        "invalid-value", "types is a list of up to 32 such as device.created or export.*")
    }
    filter.types.append(pattern)
  }
  return filter
}

/// A part of the ring, as soon as there is something in it or the caller has waited long enough.
private func events(_ call: Call, _ filter: EventFilter) async throws(Problem) -> HTTPReply {
  let seconds = try call.number("wait", in: 0...Watch.longest, default: 0)
  var cursor: UInt64?
  if call.parameter("after") != nil {
    cursor = try call.number("after", in: revisions, default: 0)
  } else if seconds > 0 {
    throw Problem("value-impossible", "wait needs after")
  }
  let limit = Int(try call.number("limit", in: 1...1000, default: 100))
  let deadline = Deadline.after(seconds: Int(seconds))
  var place: EventWatchers.Place?
  defer { withExtendedLifetime(place) {} }
  while true {
    let changes = call.service.changes
    let page = try await converting { [cursor] () async throws(ServiceError) in
      try await call.service.events(after: cursor, matching: filter, limit: limit)
    }
    let left = deadline.millisecondsLeft
    guard page.items.isEmpty, left > 0 else { return await reply(page, of: call) }
    cursor = page.revision
    if place == nil { place = try call.watchers.enter(call.caller) }
    switch try await call.change(of: .events, since: changes, milliseconds: left) {
    case .changed, .timeout: continue
    case .closed: throw Problem("shutting-down", "the service is shutting down")
    case .full, .gone: return await reply(page, of: call)
    }
  }
}

private func reply(_ page: Page<Event>, of call: Call) async -> HTTPReply {
  var items: [JSON] = []
  for event in page.items { items.append(await call.json(of: event)) }
  return HTTPReply(
    200, .members(["items": .array(items), "revision": .count(page.revision)]))
}

/// What the header says that only streams heed, but that is to be right anyway.
private func lastEvent(_ call: Call) throws(Problem) -> UInt64? {
  guard let id = call.request.values(of: "last-event-id").first, !id.isEmpty else { return nil }
  guard id.allSatisfy(\.isASCIIDigit), let revision = UInt64(id), revisions.contains(revision)
  else { throw Problem("invalid-value", "Last-Event-ID is the id of an event") }
  return revision
}

private func eventStream(
  _ call: Call, _ filter: EventFilter, behind last: UInt64?
) throws(Problem) -> HTTPReply {
  // A browser that comes back sends the query that it came with first: the header is newer.
  var after = last
  if after == nil, call.parameter("after") != nil {
    after = try call.number("after", in: revisions, default: 0)
  }
  var reply = HTTPReply(200)
  guard call.request.method != "HEAD" else {
    reply.stream = ReplyStream(headOf: .events)
    return reply
  }
  let stream = EventStream(
    call: call, filter: filter, after: after, place: try call.watchers.enter(call.caller))
  reply.stream = ReplyStream(.events) { await stream.run($0) }
  return reply
}

extension Call {
  /// Whether the client says that it takes this type; not having said so is not enough.
  func accepts(_ type: String) -> Bool {
    request.values(of: "accept").flatMap { $0.split(separator: ",") }.contains { range in
      let words = range.lowercased().split(separator: ";").map { $0.filter { $0 != " " } }
      return words.first == type
        && !words.dropFirst().contains {
          $0.hasPrefix("q=0") && !$0.contains { "123456789".contains($0) }
        }
    }
  }

  /// An event, with what it is about as that is now.
  func json(of event: Event) async -> JSON {
    let route = Router.route(of: event.kind)
    return .members([
      "revision": event.revision.map(JSON.count) ?? .null, "type": .string(event.type),
      "at": time(event.at), "subject": .string(event.subject),
      "device": event.device.map(JSON.string) ?? .null,
      "actor": event.actor.map(JSON.string) ?? .null,
      "resource": route.map { .string(path(of: event, by: $0)) } ?? .null,
      "object": await object(of: event, by: route),
    ])
  }

  private func path(of event: Event, by route: Route) -> String {
    "\(route.template.prefix { $0 != "{" })\(PercentEncoding.encode(event.subject))"
  }

  /// What the route answers; nil where there is nothing any more.
  private func object(of event: Event, by route: Route?) async -> JSON? {
    // Another thing may have the name by now.
    guard let route, !event.type.hasSuffix(".deleted"),
      let target = try? RequestTarget(path(of: event, by: route))
    else { return nil }
    let call = Call(
      service: service, watchers: watchers, traffic: traffic, audit: audit, access: access,
      request: request, caller: caller, target: target, arguments: [event.subject])
    let reply = try? await route.handle(call)
    return reply?.status == 200 ? reply?.body : nil
  }
}

extension Router {
  private static let kinds: [String: Route] = {
    var kinds: [String: Route] = [:]
    // `/v1/devices/{id}` shows what a `device` is.
    for route in routes where route.method == "GET" {
      let parts = route.template.split(separator: "/")
      if parts.count == 3, parts[2].hasPrefix("{"), parts[1].hasSuffix("s") {
        kinds[String(parts[1].dropLast())] = route
      }
    }
    // Clients are shown with the export that they use.
    kinds["client"] = kinds["export"]
    return kinds
  }()

  /// The route that shows one of a kind of things.
  fileprivate static func route(of kind: String) -> Route? { kinds[kind] }
}
