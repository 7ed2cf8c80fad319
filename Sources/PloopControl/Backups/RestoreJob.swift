internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// Makes a disk of a point of a backup: `backup` of `target`, `to` a new one, which is attached at the end.
///
/// What is read is held against the checksums of what was stored. Nothing half made stays behind.
struct RestoreJob: QueuedWork {
  static let type = "restore"
  static let phases = ["copying", "committing"]
  static let isResumable = true
  static let hasDevice = false

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

  private let target: String
  private let backup: String
  private let disk: NewDisk

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> RestoreJob {
    var parameters = JobParameters(parameters)
    let target = try parameters.requiredText("target")
    let backup = try parameters.requiredText("backup")
    guard var to = try parameters.object("to") else { throw parameters.wrong("to", "is missing") }
    let disk = NewDisk(
      id: try to.requiredText("id"), directory: try to.requiredText("directory"),
      export: try to.text("export"))
    try to.finish()
    try parameters.finish()
    try Names.require(disk.id, as: "the id", pointer: to.pointer("id"))
    if let export = disk.export {
      try Names.require(export, as: "the export", pointer: to.pointer("export"))
    }
    return RestoreJob(target: target, backup: backup, disk: disk)
  }

  var newDevice: String? { disk.id }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try plan(service)
    var disk = disk
    disk.directory = try service.roots.locate(disk.directory, pointer: RestoreJob.directory).path
    return ["target": .text(target), "backup": .text(backup), "to": disk.value]
  }

  static let directory = "/params/to/directory"

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let source = try service.source(backup, on: target)
    try service.requireUnknown(disk)
    let location = try service.restoredImage(of: disk)
    try service.requireNothing(at: location)
    let clusters = try backingUp { () throws(BackupError) in try source.storedClusters() }
    let bytes = clusters * source.geometry.clusterBytes
    let space = service.roots.space(around: location)
    var plan = JobPlan(
      clusters: clusters, bytes: bytes, requiredBytes: source.geometry.headerBytes + bytes,
      freeBytes: space?.freeBytes)
    if space?.copiesTakeRoom == true { plan.leastBytes = plan.requiredBytes }
    return plan
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let place = try failing { () throws(ServiceError) in
      try RestoredDisk(disk, job: control.id, service)
    }
    return try place.make(of: backup, on: target, control)
  }

  func discard(job: String, _ service: Service) {
    (try? RestoredDisk(disk, job: job, service))?.remove()
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
