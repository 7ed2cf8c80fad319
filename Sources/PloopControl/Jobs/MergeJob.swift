internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Merges a snapshot away, while the disk is used: its delta and the one above it become one. `level` or
/// `snapshot` says which is given up, the newest if neither does; `direction` which file remains.
struct MergeJob: JobWork {
  static let type = "merge"
  static let phases = ["copying", "committing"]
  static let isResumable = true

  private let device: String
  private let snapshot: GUID?
  private let level: UInt64?
  private let direction: MergeDirection?

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {
    self.device = device
    var parameters = JobParameters(parameters)
    level = try parameters.number("level")
    snapshot = try parameters.guid("snapshot")
    direction = try parameters.direction()
    try parameters.finish()
    guard level == nil || snapshot == nil else {
      throw parameters.wrong("level", "only one of level and snapshot is expected")
    }
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    let controller = try service.controller(device)
    let (_, chain) = try service.described(controller)
    let descriptor = try service.read(chain.location, in: chain.file.folder)
    let guid: GUID
    if let snapshot {
      guid = snapshot
    } else {
      let deltas = controller.now.record?.deltas ?? []
      let level = try self.level(below: deltas.count - 1)
      guard let name = deltas[level].guid.flatMap({ GUID($0) }) else {
        throw ServiceError(.nothingToMerge, "the delta at level \(level) has no name")
      }
      guid = name
    }
    _ = try service.child(of: guid, descriptor)
    try service.requireDisposable(guid, chain)
    return try service.pinned(guid, direction, controller)
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let controller = try service.controller(device)
    guard let snapshot else {
      let deltas = controller.now.record?.deltas ?? []
      let level = try level(below: deltas.count - 1)
      guard let guid = deltas[level].guid.flatMap({ GUID($0) }) else {
        return try service.mergePlan(controller, level: level, direction)
      }
      return try service.mergePlan(controller, guid, direction)
    }
    return try service.mergePlan(controller, snapshot, direction)
  }

  private func level(below top: Int) throws(ServiceError) -> Int {
    let wanted = level.map { Int(clamping: $0) } ?? top - 1
    guard (0..<max(0, top)).contains(wanted) else {
      throw ServiceError(
        .nothingToMerge, "the device \(device) has no delta at level \(wanted) below its top",
        errno: "ENOENT", pointer: level == nil ? nil : "/params/level")
    }
    return wanted
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    guard let snapshot else {
      throw .failed(ServiceError(.nothingToMerge, "the job names no snapshot"))
    }
    return try SnapshotMerge(device: device, guid: snapshot, direction: direction ?? .forward).run(
      control, service)
  }
}

/// Removes a snapshot: merged into its only child, or dropped when nothing builds on it.
struct DeleteSnapshotJob: JobWork {
  static let type = "delete_snapshot"
  static let phases = ["copying", "committing"]
  static let isResumable = true

  private let device: String
  private let snapshot: GUID
  private let direction: MergeDirection?

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {
    self.device = device
    var parameters = JobParameters(parameters)
    guard let snapshot = try parameters.guid("snapshot") else {
      throw parameters.wrong("snapshot", "is missing")
    }
    self.snapshot = snapshot
    direction = try parameters.direction()
    try parameters.finish()
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    let controller = try service.controller(device)
    let (_, chain) = try service.described(controller)
    _ = try service.onlyChild(
      of: snapshot, try service.read(chain.location, in: chain.file.folder))
    try service.requireDisposable(snapshot, chain)
    return try service.pinned(snapshot, direction, controller)
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    try service.mergePlan(try service.controller(device), snapshot, direction)
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    try SnapshotMerge.remove(snapshot, of: device, direction ?? .forward, control, service)
  }
}

extension JobParameters {
  mutating func guid(_ name: String) throws(ServiceError) -> GUID? {
    guard let text = try text(name) else { return nil }
    guard let guid = GUID(lenient: text) else { throw wrong(name, "a GUID is expected") }
    return guid
  }

  /// - Returns: nil for `auto`, which is what nobody has to say.
  mutating func direction() throws(ServiceError) -> MergeDirection? {
    guard let text = try text("direction"), text != "auto" else { return nil }
    guard let direction = MergeDirection(rawValue: text) else {
      throw wrong("direction", "auto, forward or backward is expected")
    }
    return direction
  }
}
