internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// Makes a disk of a point of a backup: `backup` of `target`, `to` a new one, which is attached at the end, or
/// `into` one that nobody has attached, by its descriptor.
///
/// What is read is held against the checksums of what was stored. Nothing half made stays behind.
struct RestoreJob: QueuedWork {
  static let type = "restore"
  static let phases = ["copying", "committing"]
  static let isResumable = true
  static let device = JobDevice.none

  static let directory = "/params/to/directory"
  static let into = "/params/into"

  /// A disk that is to be made.
  struct NewDisk: Sendable {
    var id: String
    /// `root:relative`.
    var directory: String
    /// The name of a door to it, if it is to have one.
    var export: String?

    fileprivate var value: JobValue {
      var members = ["id": JobValue.text(id), "directory": .text(directory)]
      if let export { members["export"] = .text(export) }
      return .object(members)
    }
  }

  private enum Destination: Sendable {
    case new(NewDisk)
    /// By the path of its descriptor, `root:relative`.
    case disk(String)
  }

  private let target: String
  private let backup: String
  private let destination: Destination

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> RestoreJob {
    var parameters = JobParameters(parameters)
    let target = try parameters.requiredText("target")
    let backup = try parameters.requiredText("backup")
    let to = try parameters.object("to")
    let into = try parameters.text("into")
    try parameters.finish()
    let destination: Destination
    switch (to, into) {
    case (let to?, nil): destination = .new(try newDisk(to))
    case (nil, let into?): destination = .disk(into)
    default: throw parameters.wrong("to", "either to or into is expected")
    }
    return RestoreJob(target: target, backup: backup, destination: destination)
  }

  private static func newDisk(_ to: JobParameters) throws(ServiceError) -> NewDisk {
    var to = to
    let disk = NewDisk(
      id: try to.requiredText("id"), directory: try to.requiredText("directory"),
      export: try to.text("export"))
    try to.finish()
    try Names.require(disk.id, as: "the id", pointer: to.pointer("id"))
    if let export = disk.export {
      try Names.require(export, as: "the export", pointer: to.pointer("export"))
    }
    return disk
  }

  var newDevice: String? {
    guard case .new(let disk) = destination else { return nil }
    return disk.id
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try plan(service)
    var parameters = ["target": JobValue.text(target), "backup": .text(backup)]
    switch destination {
    case .new(var disk):
      disk.directory = try service.roots.locate(disk.directory, pointer: RestoreJob.directory).path
      parameters["to"] = disk.value
    case .disk(let path):
      let location = try service.roots.locate(path, pointer: RestoreJob.into)
      try service.requireDetached(location, pointer: RestoreJob.into)
      parameters["into"] = .text(location.path)
    }
    return parameters
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let source = try service.source(backup, on: target)
    let location: Roots.Location
    var wanted: any BackupSource = source
    switch destination {
    case .new(let disk):
      try service.requireUnknown(disk)
      location = try service.restoredImage(of: disk)
      try service.requireNobodyRestores(to: location)
      try service.requireNothing(at: location)
    case .disk(let path):
      location = try service.roots.locate(path, pointer: RestoreJob.into)
      let chain = try service.replaceable(location, for: source.geometry)
      wanted = CoveringSource(source, over: try chain.mappedClusters(in: source.geometry))
    }
    let (clusters, bytes) = wanted.extent(of: 0..<wanted.geometry.clusterCount)
    let space = service.roots.space(around: location)
    var plan = JobPlan(
      clusters: clusters, bytes: bytes,
      requiredBytes: source.geometry.headerBytes + clusters * source.geometry.clusterBytes,
      freeBytes: space?.freeBytes)
    if space?.copiesTakeRoom == true { plan.leastBytes = plan.requiredBytes }
    return plan
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    switch destination {
    case .new(let disk):
      let place = try failing { () throws(ServiceError) in
        try RestoredDisk(disk, job: control.id, service)
      }
      return try place.make(of: backup, on: target, control)
    case .disk(let path):
      let place = try failing { () throws(ServiceError) in
        try ReplacedDisk(path, job: control.id, service)
      }
      return try place.make(of: backup, on: target, control)
    }
  }

  func discard(job: String, _ service: Service) {
    switch destination {
    case .new(let disk): (try? RestoredDisk(disk, job: job, service))?.remove()
    case .disk(let path): (try? ReplacedDisk(path, job: job, service))?.remove()
    }
  }

  static func result(
    of backup: String, on target: String, _ source: RestoreSource, _ more: [String: JobValue]
  ) -> [String: JobValue] {
    let clusters = UInt64(source.stored.setCount)
    let result = [
      "backup": JobValue.text(backup), "target": .text(target),
      "clusters_copied": .number(clusters),
      "bytes_read": .number(clusters * source.geometry.clusterBytes),
    ]
    return result.merging(more) { $1 }
  }
}

extension Service {
  /// The image of a disk that is restored, called as OpenVZ's tools have it.
  func restoredImage(of disk: RestoreJob.NewDisk) throws(ServiceError) -> Roots.Location {
    try roots.locate(disk.directory, pointer: RestoreJob.directory).appending(Service.imageName)
  }

  /// - Throws: `device-exists`, also where another job is to make it; `export-exists`.
  func requireUnknown(_ disk: RestoreJob.NewDisk) throws(ServiceError) {
    if state.withLock({ $0.devices[disk.id] }) != nil {
      throw ServiceError(
        .deviceExists, "the device \(disk.id) exists", errno: "EEXIST", pointer: "/params/to/id")
    }
    if let maker = jobs.maker(of: disk.id) {
      throw ServiceError(
        .deviceExists, "the device \(disk.id) is being made by the job \(maker.id)",
        errno: "EEXIST", holder: ServiceError.Holder(kind: "job", id: maker.id),
        pointer: "/params/to/id")
    }
    if let export = disk.export, let entry = table.entry(export) {
      throw ServiceError(
        .exportExists, "the export \(export) exists, for the device \(entry.device)",
        errno: "EEXIST", holder: ServiceError.Holder(kind: "device", id: entry.device),
        pointer: "/params/to/export")
    }
  }

  /// - Parameter job: which asks; one that has come after it is not in its way.
  /// - Throws: `image-exists` where a job, waiting or not, is to make a disk of the same image.
  func requireNobodyRestores(
    to location: Roots.Location, before job: String? = nil
  ) throws(ServiceError) {
    for other in jobs.all(RestoreJob.type) where job.map({ other.id < $0 }) ?? true {
      guard case .object(let to)? = other.parameters["to"],
        case .text(let directory)? = to["directory"],
        let place = try? roots.locate(directory, pointer: RestoreJob.directory),
        place.appending(Service.imageName).path == location.path
      else { continue }
      throw ServiceError(
        .imageExists, "the job \(other.id) makes a disk in \(directory)",
        remedy: "choose another directory", errno: "EEXIST",
        holder: ServiceError.Holder(kind: "job", id: other.id), pointer: RestoreJob.directory)
    }
  }

  /// - Throws: `image-exists` where a disk, or the beginning of one, is in the way.
  func requireNothing(at location: Roots.Location) throws(ServiceError) {
    // A folder that is not there yet has nothing in it.
    guard let folder = try? roots.folder(of: location, pointer: RestoreJob.directory) else {
      return
    }
    for name in [location.name, FileTarget.journal(of: location.name), Descriptor.fileName]
    where folder.contains(name) {
      throw ServiceError(
        .imageExists, "\(location.sibling(name).path) exists",
        remedy: "attach it, or choose another directory", errno: "EEXIST",
        pointer: RestoreJob.directory)
    }
  }
}
