internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// Copies a disk to where this service does not serve it: an image or a raw file, which must not be there yet, or
/// an export of an NBD server, which is written over. What is copied is what a clone is made of.
struct ExportJob: QueuedWork {
  static let type = "export"
  static let phases = RestoreJob.phases
  static let isResumable = true
  static let device = JobDevice.oneOrNone

  private let origin: CopyOrigin
  private let destination: ExportDestination

  static func isResumable(with parameters: [String: JobValue]) -> Bool {
    CloneJob.isResumable(with: parameters)
  }

  static func device(with parameters: [String: JobValue]) -> JobDevice {
    CloneJob.device(with: parameters)
  }

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> ExportJob {
    var parameters = JobParameters(parameters)
    let origin = try CopyOrigin(&parameters, device: device)
    guard let to = try parameters.object("to") else { throw parameters.wrong("to", "is missing") }
    let destination = try ExportDestination(to)
    try parameters.finish()
    return ExportJob(origin: origin, destination: destination)
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try plan(service)
    var parameters = try service.pinned(origin).values
    parameters["to"] = try destination.pinned(service).value
    return parameters
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let place = try destination.pinned(service)
    try service.requireUnused(place)
    var version: ImageVersion?
    if case .image(_, let wanted) = place { version = wanted }
    let (clusters, geometry) = try service.planCopy(of: origin, as: version)
    let bytes = clusters * geometry.clusterBytes
    var plan = JobPlan(clusters: clusters, bytes: bytes, requiredBytes: 0)
    guard let path = place.path else { return plan }
    let location = try service.roots.locate(path, pointer: ExportDestination.pointer)
    try service.requireNoFile(at: location)
    plan.requiredBytes = geometry.headerBytes + bytes
    plan.freeBytes = service.roots.space(around: location)?.freeBytes
    return plan
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    control.log("exports \(origin.words)")
    try failing { () throws(ServiceError) in
      try service.requireUnused(destination, before: control.id)
    }
    let user = FileRegistry.User.job(control.id, of: "export \(control.id)")
    defer { service.state.withLock { $0.files.release(user) } }
    try failing { () throws(ServiceError) in try claim(for: user, service) }
    let made: (clusters: UInt64, geometry: Geometry)
    switch destination {
    case .image(let path, let version):
      let file = try failing { () throws(ServiceError) in try image(path, control.id, service) }
      made = try makeImage(file, version, control, service)
    case .raw, .nbd:
      let point = try failing { () throws(ServiceError) in
        ExportedPoint(
          try single(service), job: control.id, destination: words, at: destination.path, service)
      }
      made = try point.make(of: origin, control)
    }
    return [
      "clusters_copied": .number(made.clusters), "to": .text(words),
      "bytes_read": .number(made.clusters * made.geometry.clusterBytes),
      "size": .number(made.geometry.sizeBytes),
    ]
  }

  /// Nobody else attaches what is made there meanwhile.
  private func claim(
    for user: FileRegistry.User, _ service: Service
  ) throws(ServiceError) {
    guard let path = destination.path else { return }
    let location = try service.roots.locate(path, pointer: ExportDestination.pointer)
    try service.state.withLock { state throws(ServiceError) in
      state.files.release(user)
      try state.files.claim([(location, nil)], for: user, readonly: false)
    }
  }

  func discard(job: String, _ service: Service) {
    switch destination {
    case .image(let path, _):
      guard let image = try? image(path, job, service), image.isBegun || image.isOwn else { return }
      image.remove()
    case .raw, .nbd:
      guard let target = try? single(service) else { return }
      ExportedPoint(target, job: job, destination: words, at: destination.path, service).remove()
    }
  }

  private var words: String {
    switch destination {
    case .image(let path, _), .raw(let path): path
    case .nbd(let uri): uri
    }
  }

  // MARK: An image

  private func image(
    _ path: String, _ job: String, _ service: Service
  ) throws(ServiceError) -> RestoredImage {
    let location = try service.roots.locate(path, pointer: ExportDestination.pointer)
    return RestoredImage(
      name: location.name,
      folder: try service.roots.makeFolder(of: location, pointer: ExportDestination.pointer),
      job: job, service: service)
  }

  private func makeImage(
    _ image: RestoredImage, _ version: ImageVersion?, _ control: JobControl, _ service: Service
  ) throws(JobStop) -> (clusters: UInt64, geometry: Geometry) {
    try failing { () throws(ServiceError) in
      guard !image.isOwn, !(try service.existing(control.id).hasBeenTried && image.isBegun) else {
        return
      }
      try service.requireNoFile(
        at: try service.roots.locate(
          destination.path ?? "", pointer: ExportDestination.pointer))
    }
    do throws(JobStop) {
      return try image.make(of: origin, as: version, control)
    } catch {
      if !image.isKept(after: error, isOwn: image.isOwn) {
        image.remove()
        if !image.folder.contains(image.name) { control.own(false) }
      }
      throw error
    }
  }

  // MARK: Bytes as they are

  /// Its records are the job's alone, and say nothing of a backup.
  private func single(_ service: Service) throws(ServiceError) -> any SinglePointTarget {
    switch destination {
    case .image(let path, _), .raw(let path):
      let location = try service.roots.locate(path, pointer: ExportDestination.pointer)
      return FilePointTarget(
        location.name,
        in: try service.roots.makeFolder(of: location, pointer: ExportDestination.pointer),
        as: .raw, records: try service.records("copies", of: path))
    case .nbd(let uri):
      return NBDTarget(
        uri, try service.nbdOptions(uri, nil), records: try service.records("copies", of: uri))
    }
  }
}
