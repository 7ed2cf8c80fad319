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

  /// Whether the caller may see and change a job.
  func owns(_ job: JobInfo) -> Bool {
    caller.grant.devices == nil || job.record.device.map(caller.mayUse(device:)) ?? false
  }

  /// The job of the path; another caller's is as good as not there.
  func ownJob() async throws(Problem) -> JobInfo {
    let job = try await converting { () async throws(ServiceError) in
      try await service.job(arguments[0])
    }
    guard owns(job) else {
      throw Problem("job-not-found", "there is no job \(arguments[0])")
    }
    return job
  }

  func requireOwnJob() async throws(Problem) {
    if caller.grant.devices != nil { _ = try await ownJob() }
  }

  /// The job that the body asks for, if the caller may ask for it.
  func jobRequest() throws(Problem) -> JobRequest {
    let request = try PloopHTTP.jobRequest(try body())
    try caller.require(JobScopes.scope(of: request))
    guard caller.grant.devices != nil else { return request }
    guard let device = request.device, JobScopes.staysWithDevice(request) else {
      try caller.requireAllDevices()
      return request
    }
    try caller.require(device: device)
    return request
  }
}

/// What jobs need of who asks for them, by their types.
enum JobScopes {
  /// Those that work with what is there. All others make or remove disks, or name files or hosts.
  private static let operating: Set = [
    "backup", "check", "compact", "delete_snapshot", "hash", "merge", "prune", "verify",
  ]
  /// Of those, the ones that touch nothing but their device.
  private static let ofOneDevice: Set = [
    "backup", "check", "compact", "delete_snapshot", "hash", "merge",
  ]
  /// Parameters by which a job is told of files, hosts and other devices.
  private static let places: Set = [
    "deltas", "descriptor", "from", "image", "into", "path", "to", "uri",
  ]

  static func scope(of request: JobRequest) -> Scope {
    operating.contains(request.type) && places.isDisjoint(with: request.parameters.keys)
      ? .operate : .admin
  }

  static func staysWithDevice(_ request: JobRequest) -> Bool {
    ofOneDevice.contains(request.type) && places.isDisjoint(with: request.parameters.keys)
  }
}
