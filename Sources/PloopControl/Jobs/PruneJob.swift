internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Removes what is not worth keeping by the rules of a ``Retention``: snapshots of the `device`, or points of
/// backups on a `target`.
///
/// Which that is is decided anew by each attempt. What has been removed was the newest of no period, so the rest
/// is judged the same as before.
struct PruneJob: QueuedWork {
  static let type = "prune"
  static let phases = ["copying", "committing"]
  static let isResumable = true
  static let device = JobDevice.oneOrNone

  private enum Kept: Sendable {
    case snapshots(of: String)
    /// Of one device, or of all.
    case backups(on: String, of: String?)
  }

  private let kept: Kept
  private let retention: Retention

  static func device(with parameters: [String: JobValue]) -> JobDevice {
    parameters["target"] == nil ? .one : .none
  }

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> PruneJob {
    var parameters = JobParameters(parameters)
    let retention = try parameters.retention()
    let kept: Kept
    if let target = try parameters.text("target") {
      kept = .backups(on: target, of: try parameters.name("device"))
    } else {
      guard let device else {
        throw ServiceError(.invalidValue, "device: is missing", pointer: "/device")
      }
      kept = .snapshots(of: device)
    }
    try parameters.finish()
    return PruneJob(kept: kept, retention: retention)
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try plan(service)
    var values = retention.values
    if case .backups(let target, let device) = kept {
      values["target"] = .text(target)
      values["device"] = device.map(JobValue.text)
    }
    return values
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    switch kept {
    case .snapshots(let device):
      let controller = try service.controller(device)
      let verdicts = try service.verdicts(on: controller, retention)
      var plan = JobPlan(clusters: 0, bytes: 0, requiredBytes: 0)
      plan.freeBytes = try? controller.device().space()?.freeBytes
      for verdict in verdicts where verdict.isRemoved {
        // By itself: what is merged into it before is copied once more.
        let merge = try service.mergePlan(controller, verdict.guid, nil)
        plan.clusters += merge.clusters
        plan.bytes += merge.bytes
        plan.requiredBytes = max(plan.requiredBytes, merge.requiredBytes)
      }
      plan.details = ["snapshots": .list(verdicts.map(\.value))]
      return plan
    case .backups(let target, let device):
      let verdicts = try service.verdicts(on: target, of: device, retention)
      var plan = JobPlan(clusters: 0, bytes: 0, requiredBytes: 0)
      plan.details = ["backups": .list(verdicts.map(\.value))]
      return plan
    }
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    switch kept {
    case .snapshots(let device): try removeSnapshots(of: device, control, service)
    case .backups(let target, let device):
      try removeBackups(on: target, of: device, control, service)
    }
  }

  // MARK: Snapshots

  private func removeSnapshots(
    of device: String, _ control: JobControl, _ service: Service
  ) throws(JobStop) -> [String: JobValue] {
    let controller = try failing { () throws(ServiceError) in try service.controller(device) }
    let retention = retention
    let verdicts = try failing { () throws(ServiceError) in
      try controller.runAndWait { () throws(ServiceError) in
        try service.verdicts(on: controller, retention)
      }
    }
    tell(verdicts.map(\.words), control)
    var removed: [JobValue] = []
    var freed: UInt64 = 0
    for verdict in verdicts where verdict.isRemoved {
      let result: [String: JobValue]
      do throws(JobStop) {
        result = try SnapshotMerge.remove(verdict.guid, of: device, nil, control, service)
      } catch {
        // Somebody has come to need it since.
        guard case .failed(let reason) = error, Self.passing.contains(reason.code) else {
          throw error
        }
        control.log("\(verdict.guid) stays: \(reason.detail)", level: "warning")
        continue
      }
      removed.append(.text(verdict.guid.description))
      if case .number(let bytes)? = result["bytes_freed"] { freed += bytes }
      // Between two of them it can be cancelled again.
      control.reopen()
    }
    let kept = verdicts.count - removed.count
    return [
      "removed": .list(removed), "kept": .number(UInt64(kept)), "bytes_freed": .number(freed),
    ]
  }

  private static let passing: Set<ServiceError.Code> = [
    .snapshotProtected, .snapshotHasBranches, .exportInUse, .imageInUse, .imageHasChildren,
    .snapshotNotFound,
  ]

  // MARK: Backups

  private func removeBackups(
    on target: String, of device: String?, _ control: JobControl, _ service: Service
  ) throws(JobStop) -> [String: JobValue] {
    let verdicts = try failing { () throws(ServiceError) in
      try service.verdicts(on: target, of: device, retention)
    }
    tell(verdicts.map(\.words), control)
    var removed: [JobValue] = []
    for verdict in verdicts where verdict.isRemoved {
      try control.checkpoint()
      try failing { () throws(ServiceError) in try service.removePoint(verdict.id, on: target) }
      removed.append(.text(verdict.id))
    }
    let kept = verdicts.count - removed.count
    return ["removed": .list(removed), "kept": .number(UInt64(kept))]
  }

  private func tell(_ verdicts: [String], _ control: JobControl) {
    for words in verdicts { control.log(words) }
  }
}
