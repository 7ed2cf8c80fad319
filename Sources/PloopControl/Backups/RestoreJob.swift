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

  static let into = "/params/into"

  private enum Destination: Sendable {
    case new(MadeDisk)
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
    case (let to?, nil): destination = .new(try MadeDisk(to))
    case (nil, let into?): destination = .disk(into)
    default: throw parameters.wrong("to", "either to or into is expected")
    }
    return RestoreJob(target: target, backup: backup, destination: destination)
  }

  var newDevice: String? {
    guard case .new(let disk) = destination else { return nil }
    return disk.id
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try plan(service)
    var parameters = ["target": JobValue.text(target), "backup": .text(backup)]
    switch destination {
    case .new(let disk): parameters["to"] = try service.pinned(disk)
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
      location = try service.place(for: disk)
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
      let made = try place.make(from: .backup(backup, on: target), control)
      guard made["completed_earlier"] == nil else { return made }
      return made.merging(["backup": .text(backup), "target": .text(target)]) { $1 }
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
