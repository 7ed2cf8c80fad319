internal import Logging
internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What the job `backup` asks of the service beside its instant (Service+Freeze.swift).

extension Service {
  /// What a target has of a device; nil where it keeps no points.
  func history(
    of device: String, on target: Target
  ) throws(ServiceError) -> BackupHistory? {
    guard case .directory(let directory) = try open(target) else { return nil }
    return try backingUp { () throws(BackupError) in
      try BackupHistory(of: device, on: directory)
    }
  }

  /// Free bytes of the file system that a target lies on; nil where that is not known.
  func freeBytes(at place: TargetPlace) -> UInt64? {
    switch place {
    case .directory(let path), .file(let path, _):
      guard let location = try? roots.locate(path, pointer: "") else { return nil }
      return roots.space(around: location)?.freeBytes
    case .nbd: return nil
    }
  }

  // MARK: Snapshots

  func requireSnapshot(
    _ guid: GUID, of controller: DeviceController
  ) throws(ServiceError) {
    _ = try snapshotChain(guid, of: controller, pointer: "/params/snapshot")
  }

  /// Opens a snapshot for as long as `body` runs.
  func withSnapshot<Result, Failure: Error>(
    _ guid: GUID, for job: String, of controller: DeviceController,
    failing convert: (ServiceError) -> Failure,
    _ body: (OpenSnapshot) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let user = FileRegistry.User.job(job, of: controller.id)
    defer { state.withLock { $0.files.release(user) } }
    let snapshot: OpenSnapshot
    do throws(ServiceError) {
      snapshot = try openSnapshot(guid, for: user, of: controller, pointer: "/params/snapshot")
    } catch { throw convert(error) }
    defer { try? snapshot.device.detach(until: .after(seconds: configuration.quiesceSeconds)) }
    return try body(snapshot)
  }

  // MARK: What is left

  /// Removes a point that a job has begun and will not go on with. A whole one stays.
  func removeBegunBackup(_ id: String, of device: String, on target: BackupDestination) {
    do throws(ServiceError) {
      switch try open(target) {
      case .directory(let directory):
        try backingUp { () throws(BackupError) in
          for name in try directory.chains(of: device) {
            let chain = try directory.chain(name, of: device)
            guard chain.has(id), try !chain.isWhole(id) else { continue }
            try chain.remove(id)
          }
        }
      case .single(let single):
        try backingUp { () throws(BackupError) in
          guard try single.points().contains(where: { $0.id == id && $0.state != .whole }) else {
            return
          }
          try single.remove(id)
        }
      }
    } catch {
      log.warning(
        "a backup that was begun is left on its target",
        metadata: ["backup": "\(id)", "target": "\(target.name)", "reason": "\(error.detail)"])
    }
  }

  /// Tells of a backup that is whole.
  func tellBackup(
    _ id: String, of device: String, on target: BackupDestination, read: UInt64, written: UInt64
  ) throws(ServiceError) {
    // Places without a name count together: there may be any number of them.
    let target = target.place == nil ? target.name : ""
    backedUp.withLock { backedUp in
      backedUp[target, default: (0, 0)].read += read
      backedUp[target, default: (0, 0)].written += written
    }
    try store.write { transaction throws(ServiceError) in
      try transaction.note(
        .backupComplete, id, device: device, at: try transaction.nextRevision())
    }
  }
}
