internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// Makes a new disk of another one, which stays as it is: of the `device` as it is at one instant, of its
/// `snapshot`, or of what `from` names; and attaches it. A full one shares nothing with what it was made of; a
/// linked one lies over a snapshot, and has its files below its own.
///
/// It is what a restore is, of anything else.
struct CloneJob: QueuedWork {
  static let type = "clone"
  static let phases = RestoreJob.phases
  static let isResumable = true
  static let device = JobDevice.oneOrNone

  enum Mode: String, Sendable {
    case full, linked
  }

  let origin: CopyOrigin
  let mode: Mode
  let disk: MadeDisk

  /// The instant of a live disk does not survive.
  static func isResumable(with parameters: [String: JobValue]) -> Bool {
    !CopyOrigin.isDevice(parameters) || parameters["snapshot"] != nil
  }

  static func device(with parameters: [String: JobValue]) -> JobDevice {
    CopyOrigin.isDevice(parameters) ? .one : .none
  }

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> CloneJob {
    var parameters = JobParameters(parameters)
    let origin = try CopyOrigin(&parameters, device: device)
    var mode = Mode.full
    if let text = try parameters.text("mode") {
      guard let wanted = Mode(rawValue: text) else {
        throw parameters.wrong("mode", "full or linked is expected")
      }
      mode = wanted
    }
    guard let to = try parameters.object("to") else { throw parameters.wrong("to", "is missing") }
    let disk = try MadeDisk(to)
    try parameters.finish()
    if mode == .linked {
      guard case .device(_, .some) = origin else {
        throw parameters.wrong("mode", "only a snapshot of a device does not change: name one")
      }
      guard disk.version == nil else {
        throw to.wrong("version", "a linked clone has that of its base")
      }
    }
    return CloneJob(origin: origin, mode: mode, disk: disk)
  }

  var newDevice: String? { disk.id }

  private var base: LinkedBase? {
    guard mode == .linked, case .device(let device, let snapshot?) = origin else { return nil }
    return LinkedBase(device: device, snapshot: snapshot)
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try plan(service)
    var parameters = try service.pinned(origin).values
    parameters["mode"] = .text(mode.rawValue)
    parameters["to"] = try service.pinned(disk)
    return parameters
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let location = try service.place(for: disk)
    if let base { try service.requireLinkable(base) }
    var (clusters, geometry) = try service.planCopy(of: origin, as: disk.version)
    if mode == .linked { clusters = 0 }
    let bytes = clusters * geometry.clusterBytes
    let space = service.roots.space(around: location)
    var plan = JobPlan(
      clusters: clusters, bytes: bytes, requiredBytes: geometry.headerBytes + bytes,
      freeBytes: space?.freeBytes)
    plan.mode = mode.rawValue
    plan.leastBytes = geometry.headerBytes
    return plan
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    control.log("a \(mode.rawValue) clone of \(origin.words)")
    let place = try failing { () throws(ServiceError) in
      try RestoredDisk(disk, job: control.id, service)
    }
    return try place.make(from: origin, over: base, control).merging(["mode": .text(mode.rawValue)])
    { $1 }
  }

  func discard(job: String, _ service: Service) {
    (try? RestoredDisk(disk, job: job, service))?.remove()
  }
}

/// A full clone of what is no disk of this service: a file, or an export of an NBD server.
struct ImportJob: QueuedWork {
  static let type = "import"
  static let phases = CloneJob.phases
  static let isResumable = true
  static let device = JobDevice.none

  private let clone: CloneJob

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> ImportJob {
    var named = JobParameters(parameters)
    guard try named.object("from") != nil else { throw named.wrong("from", "is missing") }
    let clone = try CloneJob.make(parameters, device: nil)
    if case .backup = clone.origin {
      throw named.wrong("from", "a point of a backup is what restore takes")
    }
    return ImportJob(clone: clone)
  }

  var newDevice: String? { clone.newDevice }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    try clone.pinned(service)
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan { try clone.plan(service) }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    try clone.run(control, service)
  }

  func discard(job: String, _ service: Service) { clone.discard(job: job, service) }
}
