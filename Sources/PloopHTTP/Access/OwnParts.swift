internal import PloopControl

// What those see who may work with some devices only.

extension Call {
  /// A part of a list, of what belongs to the caller. Not even a cursor names anything else.
  ///
  /// - Parameters:
  ///   - id: what a part that comes behind this one begins behind.
  ///   - fetch: parts of the whole list behind a cursor, with at most so many items.
  func ownPart<Item>(
    isOwn: (Item) -> Bool, id: (Item) -> String,
    _ fetch: (_ cursor: String?, _ limit: Int) async throws(Problem) -> Page<Item>
  ) async throws(Problem) -> Page<Item> {
    let limit = Int(try number("limit", in: 1...1000, default: 100))
    var page = try await fetch(parameter("cursor"), limit)
    guard caller.grant.devices != nil else { return page }
    // Whoever goes on from here is to miss nothing that came meanwhile.
    let revision = page.revision
    var items = page.items.filter(isOwn)
    while items.count <= limit, let cursor = page.next {
      page = try await fetch(cursor, 1000)
      items += page.items.filter(isOwn)
    }
    page.items = Array(items.prefix(limit))
    page.next = items.count > limit ? id(items[limit - 1]) : nil
    page.revision = revision
    return page
  }

  /// Whether the caller may see and change a job: one that stays with one of his devices. What others have asked
  /// for may name more than that.
  func owns(_ job: JobInfo) -> Bool {
    guard caller.grant.devices != nil else { return true }
    return JobScopes.staysWithDevice(job.record.type, job.record.parameters)
      && job.record.device.map(caller.mayUse(device:)) ?? false
  }

  /// The job of the path; another caller's is as good as not there.
  func ownJob() async throws(Problem) -> JobInfo { try await ownJob(arguments[0]) }

  private func ownJob(_ id: String) async throws(Problem) -> JobInfo {
    let job = try await converting { () async throws(ServiceError) in
      try await service.job(id)
    }
    guard owns(job) else { throw .foreign("job-not-found", "there is no job \(id)") }
    return job
  }

  func requireOwnJob() async throws(Problem) {
    if caller.grant.devices != nil { _ = try await ownJob() }
  }

  /// The job that the body asks for, if the caller may ask for it.
  func jobRequest() async throws(Problem) -> JobRequest {
    let request = try PloopHTTP.jobRequest(try body())
    try require(request.type, request.parameters, device: request.device)
    guard caller.grant.devices != nil else { return request }
    for (index, id) in request.after.enumerated() {
      guard let job = try? await ownJob(id), owns(job) else {
        throw Problem(
          "dependency-missing", "there is no job \(id.prefix(80))",
          pointer: ServiceError.pointer(["after", String(index)]))
      }
    }
    return request
  }

  /// That the job of the path may be begun once more, by who could have asked for it.
  func requireRetry() async throws(Problem) {
    let record = try await ownJob().record
    try require(record.type, record.parameters, device: record.device)
  }

  private func require(
    _ type: String, _ parameters: [String: JobValue], device: String?
  ) throws(Problem) {
    try caller.require(JobScopes.scope(of: type, parameters))
    guard caller.grant.devices != nil else { return }
    guard let device, JobScopes.staysWithDevice(type, parameters) else {
      return try caller.requireAllDevices()
    }
    try caller.require(device: device)
  }

  /// For what names a file by the way, on a route that is no admin's else.
  func requireForFiles() throws(Problem) {
    try caller.require(.admin)
    try caller.requireAllDevices()
  }
}

extension HTTPRequest {
  /// On routes that are open to everybody.
  var isOfSomebodyWhoSeesAll: Bool {
    guard case .success(let caller)? = caller else { return false }
    return caller.grant.allows(.read) && caller.grant.devices == nil
  }
}

extension Caller {
  /// A problem as this caller may hear it: not who of others is in the way, nor what is said of them.
  func hearing(_ problem: Problem) -> Problem {
    guard let holder = problem.error.holder, holder.kind == "device", !mayUse(device: holder.id)
    else { return problem }
    var problem = problem
    problem.error.holder = nil
    problem.error.facts = [:]
    problem.error.cause = nil
    problem.error.detail = ProblemCatalogue.entry(problem.error.code.rawValue).title
    return problem
  }
}

/// What jobs need of who asks for them, by their types.
enum JobScopes {
  /// Those that work with what is there. All others make or remove disks, or name files or hosts.
  private static let operating: Set = [
    "backup", "check", "compact", "copy_up", "delete_snapshot", "hash", "merge", "prune", "verify",
  ]
  /// Of those, the ones that touch nothing but their device.
  private static let ofOneDevice: Set = [
    "backup", "check", "compact", "copy_up", "delete_snapshot", "hash", "merge",
  ]
  /// Parameters by which a job is told of files, hosts and other devices.
  private static let places: Set = [
    "deltas", "descriptor", "from", "image", "into", "path", "to", "uri",
  ]

  static func scope(of type: String, _ parameters: [String: JobValue]) -> Scope {
    operating.contains(type) && !namesPlaces(parameters) ? .operate : .admin
  }

  static func staysWithDevice(_ type: String, _ parameters: [String: JobValue]) -> Bool {
    ofOneDevice.contains(type) && !namesPlaces(parameters)
  }

  /// Anywhere, however deep: `spill` has a path too.
  private static func namesPlaces(_ parameters: [String: JobValue]) -> Bool {
    parameters.contains { name, value in
      if places.contains(name) { return true }
      if case .object(let members) = value { return namesPlaces(members) }
      return false
    }
  }
}
