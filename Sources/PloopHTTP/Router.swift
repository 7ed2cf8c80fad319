package import PloopControl
internal import PloopIO
internal import PloopJSON

/// One line of the route table.
package struct Route: Sendable {
  package let method: String
  /// `{…}` stands for one segment.
  package let template: String
  /// The template's segments: fixed ones, and nil for each place.
  let segments: [String?]
  package let operationID: String
  /// What its caller has to be allowed; nil for everybody.
  package let scope: Scope?
  let reach: Reach
  package let parameters: Set<String>
  /// Whether its replies are the same for all who see every device, or for all who see its device
  /// (``ReplyCache``).
  let isKept: Bool
  /// What callers can wait to see changed, where the route shows one thing that has a revision.
  let topic: (@Sendable ([String]) -> Topic)?
  let handle: @Sendable (Call) async throws(Problem) -> HTTPReply

  /// What a caller who may work with some devices only finds behind a route.
  enum Reach {
    /// The device of its path: one of his, or none at all.
    case device
    /// What belongs to his devices: the route leaves out everything else.
    case own
    /// Nothing: it shows or names what may be anybody's.
    case all
  }

  /// - Parameter reach: that of its device where the path names one, else `all`.
  init(
    _ method: String, _ template: String, _ operationID: String, _ scope: Scope?,
    reach: Reach? = nil, parameters: Set<String> = [], isKept: Bool = false,
    watching topic: (@Sendable ([String]) -> Topic)? = nil,
    _ handle: @escaping @Sendable (Call) async throws(Problem) -> HTTPReply
  ) {
    self.method = method
    self.template = template
    // The path of `/` is one empty segment.
    segments = template.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
      .map { $0.hasPrefix("{") ? nil : String($0) }
    self.operationID = operationID
    self.scope = scope
    self.reach = reach ?? (template.hasPrefix("/v1/devices/{id}") ? .device : .all)
    self.isKept = isKept
    self.parameters = topic == nil ? parameters : parameters.union(Watch.parameters)
    self.topic = topic
    self.handle = handle
  }
}

/// A request that a route has matched, and what it needs to be answered.
struct Call: Sendable {
  let service: any ServiceAPI
  let watchers: EventWatchers
  let traffic: Traffic
  let audit: AuditLog?
  let access: AccessControl
  let request: HTTPRequest
  let caller: Caller
  let target: RequestTarget
  let arguments: [String]
  /// The longest that a request may wait, in seconds.
  var longestPatience = Int(Watch.longest)
  var diagnostics = DiagnosticsSource()

  func parameter(_ name: String) -> String? {
    target.query.first { $0.name == name }?.value
  }

  func number(_ name: String, in range: ClosedRange<UInt64>, default value: UInt64)
    throws(Problem) -> UInt64
  {
    guard let text = parameter(name) else { return value }
    guard text.allSatisfy(\.isASCIIDigit), let number = UInt64(text), range.contains(number) else {
      throw Problem(
        "invalid-value",
        "\(name) is a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  func body() throws(Problem) -> Fields {
    try Fields(try JSON.read(request.body))
  }

  /// Who asks: what they call themselves, or as what they are known.
  func caller(named name: String?) throws(Problem) -> String {
    guard let name else { return caller.actor }
    guard (1...128).contains(name.characterCount), !name.hasPrefix(Service.reservedHolder) else {
      throw Problem(
        "invalid-value",
        "holder: 1 to 128 characters are expected, and not \(Service.reservedHolder) at the beginning",
        pointer: "/holder")
    }
    return name
  }

  /// Of a request whose body says nothing.
  func requireNoMembers() throws(Problem) {
    if !request.body.isEmpty { try body().finish() }
  }

  func mode() throws(Problem) -> DetachMode {
    guard let text = parameter("mode") else { return .safe }
    guard let mode = DetachMode(rawValue: text) else {
      throw Problem("invalid-value", "mode is safe or hard")
    }
    return mode
  }
}

/// Judges a request by what HTTP and this service demand of any, finds its route, and answers.
package struct Router: Sendable {
  package static let routes: [Route] =
    serviceRoutes + diagnosticsRoutes + eventRoutes + deviceRoutes + snapshotRoutes + chainRoutes
    + trackingRoutes + checkpointRoutes + pushBackupRoutes + exportRoutes + dataRoutes + jobRoutes
    + targetRoutes + imageRoutes + fleetRoutes + dashboardRoutes + contractRoutes
  private static let index = RouteIndex(routes)

  private let service: any ServiceAPI
  private let access: AccessControl
  private let hosts: Set<String>
  private let audit: AuditLog?
  let watchers: EventWatchers
  private let traffic = Traffic()
  private let cache = ReplyCache()
  private let longestPatience: Int
  private let diagnostics: DiagnosticsSource

  /// - Parameters:
  ///   - audit: where it is written down who has changed what.
  ///   - hosts: names by which the service is called, without ports; those of this machine are known.
  ///   - longestPatience: seconds that a request may wait at most, whatever it prefers; as long as
  ///     those that watch something when nil.
  package init(
    _ service: any ServiceAPI, access: AccessControl, audit: AuditLog? = nil,
    hosts: [String] = [], watchers: EventWatchers = EventWatchers(),
    longestPatience: Int? = nil, diagnostics: DiagnosticsSource = DiagnosticsSource()
  ) {
    self.service = service
    self.access = access
    self.audit = audit
    self.hosts = RequestRules.ownHosts.union(hosts.map { $0.lowercased() })
    self.watchers = watchers
    self.diagnostics = diagnostics
    self.longestPatience = longestPatience ?? Int(Watch.longest)
  }

  /// Who has sent a request, or why nobody is taken for its sender; asked once of each request.
  func identify(_ request: HTTPRequest) -> Result<Caller, Problem> {
    do throws(Problem) { return .success(try access.caller(of: request)) } catch {
      return .failure(error)
    }
  }

  /// Whether a peer of the Unix socket may do nothing here, whatever it asks for.
  func isStranger(_ peer: SocketPeer) -> Bool { access.isStranger(peer) }

  /// - Parameter requestID: given back in the reply and in problems.
  package func answer(_ request: HTTPRequest, requestID: String) async -> HTTPReply {
    let start = monotonicNanoseconds()
    var request = request
    request.caller = request.caller ?? identify(request)
    var template: String?
    var route: Route?
    let reply: HTTPReply
    do throws(Problem) {
      let target = try RequestTarget(request.target)
      let matches = Router.matches(target)
      template = matches.first?.route.template
      route = matches.first { $0.route.method == request.method }?.route ?? matches.first?.route
      try RequestRules.check(request, authority: target.authority, hosts: hosts)
      reply = common(try await self.route(request, target, matches), requestID)
    } catch {
      reply = refuse(request, error, requestID: requestID)
    }
    audit?.note(request, route, reply, requestID: requestID)
    traffic.tally(request.method, template, reply.status).count(since: start)
    return reply
  }

  /// The reply that says why a request is not served.
  func refuse(_ request: HTTPRequest, _ problem: Problem, requestID: String) -> HTTPReply {
    var reply = HTTPReply(
      problem.status, problem.body(instance: request.path, requestID: requestID))
    reply.isProblem = true
    reply.isDenial = problem.isDenial
    if !problem.allowed.isEmpty {
      reply = reply.with("Allow", problem.allowed.joined(separator: ", "))
    }
    if let location = problem.location { reply = reply.with("Location", location) }
    if let size = problem.sizeBytes { reply = reply.with("Content-Range", "bytes */\(size)") }
    if problem.status == 429 {
      reply = reply.with("Retry-After", String(problem.retrySeconds ?? 1))
    }
    if problem.status == 401 {
      reply = reply.with("WWW-Authenticate", "Bearer realm=\"ploopd\"")
    }
    return common(reply, requestID)
  }

  private func common(_ reply: HTTPReply, _ requestID: String) -> HTTPReply {
    var reply = reply
    reply.headers.reserveCapacity(reply.headers.count + 3)
    if reply.header("Cache-Control") == nil { reply.headers.append(("Cache-Control", "no-store")) }
    reply.headers.append(("X-Content-Type-Options", "nosniff"))
    reply.headers.append(("X-Request-Id", requestID))
    return reply
  }

  /// The routes of a path, one for each method, and what stands in their places.
  private static func matches(_ target: RequestTarget) -> [(route: Route, arguments: [String])] {
    index.matches(target.segments)
  }

  private func route(
    _ request: HTTPRequest, _ target: RequestTarget,
    _ matches: [(route: Route, arguments: [String])]
  ) async throws(Problem) -> HTTPReply {
    guard !matches.isEmpty else { throw Problem("not-found", "no route is \(request.path)") }
    let methods = Set(matches.map(\.route.method))
    let allowed = (methods.contains("GET") ? methods.union(["HEAD"]) : methods)
      .union(["OPTIONS"]).sorted()
    if request.method == "OPTIONS" {
      return HTTPReply(204).with("Allow", allowed.joined(separator: ", "))
    }
    let method = request.method == "HEAD" ? "GET" : request.method
    guard let (route, arguments) = matches.first(where: { $0.route.method == method }) else {
      var problem = Problem("method-not-allowed", "\(request.path) has no \(request.method)")
      problem.allowed = allowed
      throw problem
    }
    let caller = try admit(request, to: route, arguments)
    try sendOn(request, route, arguments, caller)
    var seen: Set<String> = []
    for (name, _) in target.query {
      guard
        route.parameters.contains(name)
          || name.hasPrefix("label.") && route.parameters.contains("label.*")
      else { throw Problem("unknown-parameter", "unknown parameter \(name)") }
      guard seen.insert(name).inserted else {
        throw Problem("invalid-value", "the parameter \(name) is there twice")
      }
    }
    let call = Call(
      service: service, watchers: watchers, traffic: traffic, audit: audit, access: access,
      request: request, caller: caller, target: target, arguments: arguments,
      longestPatience: longestPatience, diagnostics: diagnostics)
    return try await Requester.$name.withValue(caller.actor) {
      () async -> Result<HTTPReply, Problem> in
      do throws(Problem) { return .success(try await keeping(call, by: route)) } catch {
        return .failure(caller.hearing(error))
      }
    }.get()
  }

  /// Answers, and keeps the answer where others may be given it too.
  private func keeping(_ call: Call, by route: Route) async throws(Problem) -> HTTPReply {
    guard route.isKept, call.request.method == "GET", call.target.authority == nil,
      route.reach == .device || call.caller.grant.devices == nil,
      Watch.parameters.allSatisfy({ call.parameter($0) == nil })
    else { return try await Router.answer(call, by: route) }
    let changes = service.changes
    // Many may have stood in line for the same: the first of them has made it.
    if let kept = cache.kept(for: call.request.target, changes: changes) {
      return kept.reply.unlessKnown(to: call.request)
    }
    let start = monotonicNanoseconds()
    let activity = route.reach == .device ? service.activity(of: call.arguments[0]) : nil
    let stamp = ReplyCache.Stamp(changes: changes, activity: activity)
    let reply = try await route.handle(call).shared
    if reply.status == 200 {
      let tally = traffic.tally(call.request.method, route.template, reply.status)
      cache.keep(
        reply, to: call.request.target, by: route, call.arguments, tally, stamp, begun: start)
    }
    return reply.unlessKnown(to: call.request)
  }

  /// The reply where it was made a moment ago, and may be given to who asks; it takes no time.
  ///
  /// - Parameter request: one whose caller has been asked for.
  func kept(for request: HTTPRequest, requestID: String) -> HTTPReply? {
    guard request.method == "GET", case .success(let caller)? = request.caller,
      let kept = cache.kept(for: request.target, changes: service.changes),
      kept.route.reach == .device || caller.grant.devices == nil
    else { return nil }
    let start = monotonicNanoseconds()
    // Whoever is refused is refused where that is written down.
    do throws(Problem) {
      try RequestRules.check(request, authority: nil, hosts: hosts)
      try admit(caller, to: kept.route, kept.arguments)
    } catch { return nil }
    let reply = kept.reply.unlessKnown(to: request)
    let tally =
      reply.status == kept.reply.status
      ? kept.tally : traffic.tally(request.method, kept.route.template, reply.status)
    tally.count(since: start)
    return common(reply, requestID)
  }

  private static func answer(_ call: Call, by route: Route) async throws(Problem) -> HTTPReply {
    // A POST waits where it is known whether it is a new one.
    if route.method == "PATCH" || route.method == "DELETE" {
      return try await call.patiently { () async throws(Problem) in try await route.handle(call) }
    }
    return try await Watch.answer(call, by: route).unlessKnown(to: call.request)
  }

  /// What another node of the fleet has is answered there; to who may not use it, it is not there at all.
  private func sendOn(
    _ request: HTTPRequest, _ route: Route, _ arguments: [String], _ caller: Caller
  ) throws(Problem) {
    guard let name = arguments.first else { return }
    let found: ServiceError? =
      if route.template.hasPrefix("/v1/devices/{id}") {
        service.elsewhere(device: name)
      } else if route.template.hasPrefix("/v1/exports/{name}") {
        service.elsewhere(export: name)
      } else {
        nil
      }
    guard let found, case .text(let device)? = found.facts["device"],
      caller.mayUse(device: device), case .text(let endpoint)? = found.facts["endpoint"],
      let path = request.target.firstRange(of: "/v1/")
    else { return }
    var problem = Problem(found)
    problem.location = endpoint + request.target[path.lowerBound...]
    throw problem
  }

  /// Lets those through who may use a route.
  private func admit(
    _ request: HTTPRequest, to route: Route, _ arguments: [String]
  ) throws(Problem) -> Caller {
    guard route.scope != nil else { return Caller(actor: "anonymous", grant: Grant([])) }
    guard let caller = try request.caller?.get() else {
      throw Problem("unauthorized", "nobody has asked who this is")
    }
    try admit(caller, to: route, arguments)
    return caller
  }

  private func admit(
    _ caller: Caller, to route: Route, _ arguments: [String]
  ) throws(Problem) {
    if let scope = route.scope { try caller.require(scope) }
    switch route.reach {
    case .device: try caller.require(device: arguments.first ?? "")
    case .own: break
    case .all: try caller.requireAllDevices()
    }
  }
}

/// Calls the service and converts its errors: the border between it and HTTP.
func converting<Result>(
  _ body: () async throws(ServiceError) -> Result
) async throws(Problem) -> Result {
  do { return try await body() } catch { throw Problem(error) }
}
