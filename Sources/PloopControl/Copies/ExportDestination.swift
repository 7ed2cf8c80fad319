internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// Where a disk is exported to.
enum ExportDestination: Equatable, Sendable {
  /// An image; its version is the disk's own when nil.
  case image(String, version: ImageVersion?)
  /// A file with the disk's bytes as they are, and holes where it is zero.
  case raw(String)
  /// What an NBD server exports, written over.
  case nbd(String)

  static let pointer = "/params/to/image"

  init(_ to: JobParameters) throws(ServiceError) {
    var to = to
    if let uri = try to.text("nbd") {
      self = .nbd(uri)
    } else {
      let path = try to.requiredText("image")
      switch try to.requiredText("format") {
      case TargetPlace.FileFormat.ploop.rawValue: self = .image(path, version: try to.version())
      case TargetPlace.FileFormat.raw.rawValue: self = .raw(path)
      default: throw to.wrong("format", "raw or ploop1 is expected")
      }
    }
    try to.finish()
  }

  /// Of a job that copies a disk to what is no device of this service then.
  init?(_ job: JobRecord) {
    guard case .object(let to)? = job.parameters["to"] else { return nil }
    switch job.type {
    case ExportJob.type:
      guard let place = try? ExportDestination(JobParameters(to)) else { return nil }
      self = place
    case MigrateJob.type:
      guard case .text(let uri)? = to["nbd"] else { return nil }
      self = .nbd(uri)
    default: return nil
    }
  }

  /// The same as a place that backups may be kept in.
  var place: TargetPlace {
    switch self {
    case .image(let path, _): .file(path: path, format: .ploop)
    case .raw(let path): .file(path: path, format: .raw)
    case .nbd(let uri): .nbd(uri: uri)
    }
  }

  /// Of a file.
  var path: String? {
    switch self {
    case .image(let path, _), .raw(let path): path
    case .nbd: nil
    }
  }

  /// As it is written down: with its root, whatever roots there are later.
  ///
  /// - Throws: `path-outside-root`, `invalid-value`.
  func pinned(_ service: Service) throws(ServiceError) -> ExportDestination {
    let roots = service.roots
    switch self {
    case .image(let path, let version):
      return .image(
        try roots.locate(path, pointer: ExportDestination.pointer).path, version: version)
    case .raw(let path):
      return .raw(try roots.locate(path, pointer: ExportDestination.pointer).path)
    case .nbd(let uri):
      try service.requireAddress(uri, pointer: "/params/to/nbd")
      return self
    }
  }

  var value: JobValue {
    switch self {
    case .image(let path, let version):
      var members: [String: JobValue] = [
        "image": .text(path), "format": .text(TargetPlace.FileFormat.ploop.rawValue),
      ]
      members["version"] = version.map { .number(UInt64($0.rawValue)) }
      return .object(members)
    case .raw(let path):
      return .object([
        "image": .text(path), "format": .text(TargetPlace.FileFormat.raw.rawValue),
      ])
    case .nbd(let uri): return .object(["nbd": .text(uri)])
    }
  }
}

extension Service {
  /// - Throws: `image-exists` where a file is in the way, or another job makes it; `target-exists` where
  ///   backups are kept.
  func requireUnused(
    _ destination: ExportDestination, before job: String? = nil
  ) throws(ServiceError) {
    let place = destination.place
    for target in targets.targets where target.place.isOne(with: place) {
      throw ServiceError(
        .targetExists, "the target \(target.name) keeps backups there", errno: "EEXIST",
        holder: ServiceError.Holder(kind: "target", id: target.name), pointer: "/params/to")
    }
    for (other, own) in placesOfJobs where own.place.isOne(with: place) {
      var error = Service.taken(by: other)
      error.pointer = "/params/to"
      throw error
    }
    for other in jobs.makers() where job.map({ other.id < $0 }) ?? true {
      guard ExportDestination(other)?.place.isOne(with: place) == true else { continue }
      throw ServiceError(
        .imageExists, "the job \(other.id) (\(other.type)) copies a disk to there", errno: "EEXIST",
        holder: ServiceError.Holder(kind: "job", id: other.id), pointer: "/params/to")
    }
  }

  func requireNoFile(at location: Roots.Location) throws(ServiceError) {
    guard let folder = try? roots.folder(of: location, pointer: ExportDestination.pointer) else {
      return
    }
    for name in [location.name, FileTarget.journal(of: location.name)]
    where folder.contains(name) {
      throw ServiceError(
        .imageExists, "\(location.sibling(name).path) exists", errno: "EEXIST",
        pointer: ExportDestination.pointer)
    }
  }
}
