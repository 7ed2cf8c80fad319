internal import PloopBackup
internal import PloopIO

/// Where a backup is copied to: a target that has a name, or a place that is named in the job alone.
struct BackupDestination: Equatable, Sendable {
  static let member = "to"
  static let pointer = "/params/to"

  /// The target's; of a place of the job's own its path or address, as which no target can be called.
  let name: String
  /// Nil for a target that has a name.
  let place: Target?

  init(target name: String) {
    self.name = name
    place = nil
  }

  init(_ parameters: inout JobParameters) throws(ServiceError) {
    guard let to = try parameters.object(BackupDestination.member) else {
      self.init(target: try parameters.requiredText("target"))
      return
    }
    guard try parameters.text("target") == nil else {
      throw parameters.wrong("target", "none is expected beside \"to\"")
    }
    self.init(try Target(of: to))
  }

  init(_ place: Target) {
    name = place.name
    self.place = place
  }

  /// The place that a job names itself, as its record has it.
  init?(_ job: JobRecord) {
    guard job.type == BackupJob.type,
      case .object(let to)? = job.parameters[BackupDestination.member],
      let place = try? Target(of: JobParameters(to))
    else { return nil }
    self.init(place)
  }

  /// Of a job's parameters.
  var values: [String: JobValue] {
    guard let place else { return ["target": .text(name)] }
    var to: [String: JobValue] = ["type": .text(place.place.kind.rawValue)]
    switch place.place {
    case .directory(let path): to["path"] = .text(path)
    case .file(let path, let format):
      to["path"] = .text(path)
      to["format"] = .text(format.rawValue)
    case .nbd(let uri): to["uri"] = .text(uri)
    }
    to["mark"] = place.mark.map(JobValue.text)
    to["tls"] = place.tls?.value
    return [BackupDestination.member: .object(to)]
  }
}

extension Target {
  /// A place that has no name but what it is.
  ///
  /// - Parameter to: what a request for a target says of one, but for name, slots and limits.
  fileprivate init(of to: JobParameters) throws(ServiceError) {
    var to = to
    let place: TargetPlace
    var (mark, tls) = (String?.none, TargetTLS?.none)
    switch TargetPlace.Kind(rawValue: try to.requiredText("type")) {
    case .directory?:
      place = .directory(path: try to.requiredText("path"))
      mark = try to.text("mark")
    case .file?:
      let path = try to.requiredText("path")
      let format = try to.text("format") ?? TargetPlace.FileFormat.raw.rawValue
      guard let format = TargetPlace.FileFormat(rawValue: format) else {
        throw to.wrong("format", "raw or ploop1 is expected")
      }
      place = .file(path: path, format: format)
      mark = try to.text("mark")
    case .nbd?:
      place = .nbd(uri: try to.requiredText("uri"))
      tls = try to.tls()
    case nil: throw to.wrong("type", "directory, file or nbd is expected")
    }
    self.init(name: place.words, place: place, createdAt: 0)
    // Nobody has said how many jobs may work with it.
    slots = 1
    self.mark = mark
    self.tls = tls
    try to.finish()
  }
}

extension TargetPlace {
  /// The path, or the address.
  var words: String {
    switch self {
    case .directory(let path), .file(let path, _): path
    case .nbd(let uri): uri
    }
  }

  /// Whether what is written to one of two files or exports is written to the other.
  func isOne(with other: TargetPlace) -> Bool { kind == other.kind && overlaps(other) }
}

extension Service {
  /// - Throws: `target-not-found`.
  func find(
    _ destination: BackupDestination, pointer: String? = nil
  ) throws(ServiceError) -> Target {
    guard let place = destination.place else {
      return try existing(target: destination.name, pointer: pointer)
    }
    return place
  }

  /// - Throws: as ``open(target:pointer:)``.
  func open(_ destination: BackupDestination) throws(ServiceError) -> OpenTarget {
    try open(try find(destination))
  }

  /// A place that keeps points: a folder.
  ///
  /// - Throws: `target-unsuitable` for others, and as ``open(target:pointer:)``.
  func openDirectory(_ destination: BackupDestination) throws(ServiceError) -> DirectoryTarget {
    guard case .directory(let directory) = try open(destination) else {
      throw ServiceError(.targetUnsuitable, "\(destination.name) is no folder")
    }
    return directory
  }

  /// What a job works with, whether it has a name or is the job's own.
  func target(of job: JobRecord) -> Target? {
    BackupDestination(job)?.place ?? job.target.flatMap { targets.entry($0)?.target }
  }

  /// Places that jobs name themselves, of all that are not over.
  var placesOfJobs: [(job: JobRecord, target: Target)] {
    jobs.makers().compactMap { job in BackupDestination(job)?.place.map { (job, $0) } }
  }

  /// A job's own place as it is written down: with its root, and the mark of its folder, which is made.
  ///
  /// - Parameter isMade: whether it is to be made, as for a job, or only looked at.
  /// - Throws: what a target of that place would be refused with; `target-exists` where one has it already, and as
  ///   ``requireUnused(_:but:)``.
  func settled(
    _ destination: BackupDestination, isMade: Bool
  ) throws(ServiceError) -> BackupDestination {
    guard let place = destination.place else { return destination }
    do throws(ServiceError) {
      var target = Target(
        name: "", place: try canonical(place.place), createdAt: place.createdAt)
      target.name = target.place.words
      target.slots = place.slots
      target.tls = try canonical(place.tls, of: target.place)
      target.mark = place.mark
      try requireUnused(target)
      if isMade {
        // Whoever says which folder it is to be means no other one, and has none made.
        if target.mark == nil { target.mark = try prepare(target.place) }
        _ = try open(target)
      }
      return BackupDestination(target)
    } catch {
      var error = error
      error.pointer = BackupDestination.pointer + (error.pointer ?? "")
      throw error
    }
  }

  /// A place of a job's own is nobody else's: two jobs with the very same one wait for each other.
  ///
  /// - Parameter job: which has it already.
  /// - Throws: `target-exists` with the target or the job that has the place, or one within or around it.
  func requireUnused(_ place: Target, but job: String? = nil) throws(ServiceError) {
    if let other = targets.targets.first(where: { $0.place.overlaps(place.place) }) {
      throw ServiceError(
        .targetExists, "the target \(other.name) has that place", remedy: "name the target",
        errno: "EEXIST", holder: ServiceError.Holder(kind: "target", id: other.name))
    }
    for (other, own) in placesOfJobs
    where other.id != job && own.place != place.place && own.place.overlaps(place.place) {
      throw Service.taken(by: other)
    }
    for other in jobs.makers()
    where ExportDestination(other)?.place.isOne(with: place.place) == true {
      throw Service.taken(by: other)
    }
  }

  static func taken(by job: JobRecord) -> ServiceError {
    ServiceError(
      .targetExists, "the job \(job.id) (\(job.type)) writes to there", errno: "EEXIST",
      holder: ServiceError.Holder(kind: "job", id: job.id))
  }
}
