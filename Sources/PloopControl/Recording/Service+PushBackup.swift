internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// The kernel driver's push backup: a copier outside saves the disk as it was at one instant, and guests
// wait where it has not come yet, or have what they overwrite saved first.

extension Service {
  package func startPushBackup(
    _ id: String, _ request: PushBackupRequest, keeping keeper: AnswerKeeper<PushBackupInfo>?
  ) async throws(ServiceError) -> PushBackupInfo {
    try requireServing()
    let controller = try controller(id)
    let info = try await controller.run { () throws(ServiceError) in
      try self.begin(request, controller, keeping: keeper)
    }
    log.info(
      "push backup",
      metadata: ["device": "\(id)", "uuid": "\(info.uuid)", "clusters": "\(info.clustersTotal)"])
    return info
  }

  private func begin(
    _ request: PushBackupRequest, _ controller: DeviceController,
    keeping keeper: AnswerKeeper<PushBackupInfo>?
  ) throws(ServiceError) -> PushBackupInfo {
    let device = try controller.device()
    if case .pushBackup(let session) = controller.now.maintenance {
      throw ServiceError(
        .pushBackupActive, "\(controller.id) has the push backup \(session.backup.uuid)",
        errno: "EEXIST", holder: controller.now.maintenance?.holder)
    }
    try requireFree(controller)
    let (uuid, options) = try options(request, device)
    let backup = PushBackup(uuid, of: device, options, engine: engine) {
      [weak self, weak controller] change in
      guard let self, let controller else { return }
      self.hear(change, uuid, controller)
    }
    let checkpoint = try request.checkpoint.map { (request) throws(ServiceError) in
      try newCheckpoint(request, device, by: keeper?.key, pointer: "/checkpoint")
    }
    // Of the same request, which a crash has cut short: its backup is over, and so is the checkpoint.
    if let old = checkpoint.flatMap({ Service.made($0.name, by: keeper?.key, on: device) }) {
      dropCheckpoint(old.name, device, controller.id)
    }
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    let pause = try converting { () throws(DeviceError) in
      try backup.start(until: deadline, beginning: checkpoint)
    }
    let session = PushBackupSession(
      backup: backup, export: request.hasExport ? "\(controller.id)@backup" : nil,
      since: backup.since?.name, fullReason: backup.fullReason,
      checkpoint: request.checkpoint?.name,
      pauseNanoseconds: pause)
    do throws(ServiceError) {
      try openDoor(session, controller, device)
      let info = PushBackupInfo(session)
      try hold(controller, by: .pushBackup(session), info, keeping: keeper) {
        $0.pushBackup = uuid
        $0.pushBackupCheckpoint = session.checkpoint
      }
      return info
    } catch {
      if let export = session.export { table.remove(export) }
      try? backup.stop(until: deadline)
      if let name = session.checkpoint { dropCheckpoint(name, device, controller.id) }
      throw error
    }
  }

  private func options(
    _ request: PushBackupRequest, _ device: Device
  ) throws(ServiceError) -> (String, PushBackup.Options) {
    let uuid = request.uuid ?? ULID.make()
    guard (1...64).contains(uuid.utf8.count), uuid.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
    else {
      throw ServiceError(
        .invalidValue, "a uuid is 1 to 64 visible characters", pointer: "/uuid")
    }
    var options = PushBackup.Options()
    options.deadlineNanoseconds = UInt64(request.deadlineSeconds) * 1_000_000_000
    options.onDeadline =
      switch request.onDeadline {
      case .abort: .abort
      case .wait: .wait
      case .spill: .spill
      }
    let count = Int(device.geometry.clusterCount)
    switch request.clusters {
    case .all: break
    case .since(let name):
      options.clusters = .since(
        try converting { () throws(DeviceError) in try device.checkpoint(name) })
    case .bitmap(let bytes):
      let all = Bitmap(bytes: bytes, count: bytes.count * 8)
      if let last = all.lastSet, last >= count {
        throw ServiceError(
          .clusterOutOfRange, "the disk has \(count) clusters; the bitmap has cluster \(last)",
          errno: "E2BIG", pointer: "/clusters/bitmap")
      }
      options.clusters = .these(all)
    }
    if let spill = request.spill {
      options.scratch = try scratch(spill, clusterBytes: device.geometry.clusterBytes)
    }
    return (uuid, options)
  }

  private func scratch(
    _ spill: PushBackupRequest.Spill, clusterBytes: UInt64
  ) throws(ServiceError) -> Scratch {
    guard spill.limitBytes >= clusterBytes else {
      throw ServiceError(
        .valueImpossible, "a cluster has \(clusterBytes) bytes; there is no room for one",
        pointer: "/spill/max_bytes")
    }
    let location = try roots.locate(spill.path, pointer: "/spill/path")
    let folder = try roots.folder(of: location, pointer: "/spill/path")
    guard !folder.contains(location.name) else {
      throw ServiceError(
        .imageExists, "\(location.path) exists", errno: "EEXIST", pointer: "/spill/path")
    }
    do throws(IOError) {
      return try Scratch(
        location.name, in: folder, clusterBytes: clusterBytes, limitBytes: spill.limitBytes)
    } catch { throw ServiceError(opening: location.path, error, pointer: "/spill/path") }
  }

  private func openDoor(
    _ session: PushBackupSession, _ controller: DeviceController, _ device: Device
  ) throws(ServiceError) {
    guard let name = session.export else { return }
    let summary = "\(controller.id) as it was when its backup \(session.backup.uuid) began"
    let record = DeviceRecord.Export(
      name: name, readonly: true, sharedWriters: false, summary: summary,
      revision: controller.now.record?.revision ?? 0, access: try backupAccess(controller))
    try table.reserve(record, device: controller.id)
    table.open(
      record,
      DeviceExport(
        session.backup, of: device, summary: summary, lease: fleet?.lease(of: controller.id)))
  }

  /// The same bytes are behind the backup's door as behind the device's, so it is not for more than these are.
  ///
  /// - Throws: where two of these are for different clients, as one set of rules cannot say both.
  private func backupAccess(_ controller: DeviceController) throws(ServiceError) -> ExportAccess? {
    let rules = (controller.now.record?.exports ?? []).compactMap(\.access)
    guard let first = rules.first else { return nil }
    guard rules.allSatisfy({ $0 == first }) else {
      throw ServiceError(
        .valueImpossible, "the exports of \(controller.id) are for different clients",
        cause: "the backup's export takes over their `access`",
        remedy:
          "say \"export\":false and read the backup over HTTP, or give them the same `access`",
        pointer: "/export")
    }
    return first
  }

  /// What the backup says of itself, on the thread of a guest's request.
  private func hear(
    _ change: PushBackup.Change, _ uuid: String, _ controller: DeviceController
  ) {
    switch change {
    case .pending:
      tell(.pushBackupPending, uuid, controller.id)
      waiting.changed([.pushBackup(controller.id)])
    case .failed:
      waiting.changed([.pushBackup(controller.id)])
      Task { [weak self] in
        guard let self else { return }
        try? await controller.run { () throws(ServiceError) in
          try self.noteFailure(of: uuid, controller)
        }
      }
    }
  }

  /// Writes down that a backup is over. It still has the device, until somebody has been told.
  private func noteFailure(
    of uuid: String, _ controller: DeviceController
  ) throws(ServiceError) {
    guard var record = controller.now.record, record.pushBackup == uuid else { return }
    record.pushBackup = nil
    if let name = record.pushBackupCheckpoint, let device = try? controller.device() {
      dropCheckpoint(name, device, record.id)
    }
    record.pushBackupCheckpoint = nil
    log.warning(
      "a push backup has failed", metadata: ["device": "\(record.id)", "uuid": "\(uuid)"])
    try commit(record, of: controller, as: .deviceChanged) {
      record, transaction throws(ServiceError) in
      try transaction.note(
        .pushBackupFailed, uuid, device: record.id, at: try transaction.nextRevision())
    }
  }

  // MARK: The end

  /// Ends it, with what became of it.
  ///
  /// - Throws: `push-backup-incomplete` and `push-backup-expired` where it is said to be complete.
  package func stopPushBackup(
    _ id: String, uuid: String, isComplete: Bool
  ) async throws(ServiceError) -> PushBackupInfo {
    let controller = try controller(id)
    let info = try await controller.run { () throws(ServiceError) in
      let session = try self.session(of: id, uuid)
      if isComplete { try Service.requireComplete(session) }
      var info = PushBackupInfo(session)
      info.state = isComplete ? .complete : .aborted
      try self.end(
        session, controller, isComplete: isComplete,
        until: .after(seconds: self.configuration.quiesceSeconds))
      return info
    }
    log.info(
      "push backup ended", metadata: ["device": "\(id)", "uuid": "\(uuid)", "as": "\(info.state)"])
    return info
  }

  private static func requireComplete(_ session: PushBackupSession) throws(ServiceError) {
    let facts = session.backup.facts
    if case .failed(let reason) = facts.end {
      throw ServiceError(.pushBackupExpired, "it is over: \(reason)", errno: "ESTALE")
    }
    guard facts.remaining > 0 else { return }
    throw ServiceError(
      .pushBackupIncomplete, "\(facts.remaining) clusters are not confirmed",
      remedy: "copy and confirm them, or stop it with outcome=abort",
      facts: ["remaining": .number(UInt64(facts.remaining))])
  }

  private func end(
    _ session: PushBackupSession, _ controller: DeviceController, isComplete: Bool,
    until deadline: Deadline
  ) throws(ServiceError) {
    defer { waiting.changed([.pushBackup(controller.id)]) }
    try converting { () throws(DeviceError) in try session.backup.stop(until: deadline) }
    if let export = session.export {
      table.set([export], open: false)
      try dropClients(of: [export], until: deadline)
      table.remove(export)
    }
    if !isComplete, let name = controller.now.record?.pushBackupCheckpoint,
      let device = try? controller.device()
    {
      dropCheckpoint(name, device, controller.id, until: deadline)
    }
    let uuid = session.backup.uuid
    let event: EventType? =
      isComplete
      ? .pushBackupComplete : controller.now.record?.pushBackup == uuid ? .pushBackupFailed : nil
    try release(controller, telling: event, of: uuid) {
      $0.pushBackup = nil
      $0.pushBackupCheckpoint = nil
    }
  }

  /// Removes the checkpoint of a backup that has failed: the next one has to copy what this was to.
  ///
  /// - Parameter deadline: how long that may take; as long as it takes to drain, where nobody says so.
  func dropCheckpoint(
    _ name: String, _ device: Device, _ id: String, until deadline: Deadline? = nil
  ) {
    do throws(DeviceError) {
      try device.removeCheckpoint(
        name, until: deadline ?? .after(seconds: configuration.quiesceSeconds))
    } catch {
      log.error(
        "the checkpoint of a failed backup was not removed",
        metadata: ["device": "\(id)", "checkpoint": "\(name)", "reason": "\(error)"])
    }
  }

  /// The device goes, and its backup with it.
  func abandon(
    _ session: PushBackupSession, _ controller: DeviceController, until deadline: Deadline
  ) {
    do throws(ServiceError) {
      try end(session, controller, isComplete: false, until: deadline)
    } catch {
      // Nobody waits for it any more; the next start tells that it has failed.
      session.backup.fail("the device goes")
      log.error(
        "a push backup was not ended",
        metadata: ["device": "\(controller.id)", "reason": "\(error.detail)"])
    }
  }
}
