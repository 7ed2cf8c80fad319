internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// Named bitmaps of what was written to a device since an instant. They lie beside its top, and survive
// what the disk survives; the database knows nothing of them.

extension Service {
  package func checkpoints(_ id: String) async throws(ServiceError) -> Page<CheckpointInfo> {
    let controller = try controller(id)
    let device = try controller.device()
    let items = device.checkpoints.map { info(of: $0, device, controller) }
    return Page(items: items, next: nil, revision: controller.now.record?.revision ?? 0)
  }

  /// - Throws: `checkpoint-not-found`.
  package func checkpoint(
    _ id: String, _ name: String
  ) async throws(ServiceError) -> CheckpointInfo {
    let controller = try controller(id)
    let device = try controller.device()
    let found = try converting { () throws(DeviceError) in try device.checkpoint(name) }
    return info(of: found, device, controller)
  }

  package func checkpointBits(
    _ id: String, _ name: String
  ) async throws(ServiceError) -> CheckpointBits {
    let device = try controller(id).device()
    let found = try converting { () throws(DeviceError) in try device.checkpoint(name) }
    var extents: [Range<UInt64>] = []
    var offset: UInt64 = 0
    for run in found.runs(of: 0..<device.geometry.sizeBytes, limit: .max) {
      if run.isDirty { extents.append(offset..<offset + run.length) }
      offset += run.length
    }
    return CheckpointBits(
      granularityBytes: found.granularityBytes, inconsistency: found.inconsistency,
      extents: extents, bytes: found.bytes)
  }

  package func addCheckpoint(
    _ id: String, _ request: CheckpointRequest, keeping keeper: AnswerKeeper<CheckpointInfo>?
  ) async throws(ServiceError) -> CheckpointInfo {
    try requireServing()
    let controller = try controller(id)
    let made = try await controller.run { () throws(ServiceError) in
      try self.make(request, controller, keeping: keeper)
    }
    log.info("checkpoint", metadata: ["device": "\(id)", "checkpoint": "\(request.name)"])
    return made
  }

  private func make(
    _ request: CheckpointRequest, _ controller: DeviceController,
    keeping keeper: AnswerKeeper<CheckpointInfo>?
  ) throws(ServiceError) -> CheckpointInfo {
    let (device, record) = try writable(controller)
    let new = try newCheckpoint(request, device, by: keeper?.key, pointer: "/name")
    var pause: UInt64?
    // A crash may have come between the checkpoint and the answer.
    if Service.made(request.name, by: keeper?.key, on: device) == nil {
      pause = try converting { () throws(DeviceError) in
        try device.makeCheckpoint(new, until: .after(seconds: configuration.quiesceSeconds))
      }
    }
    let found = try converting { () throws(DeviceError) in try device.checkpoint(request.name) }
    return try note(.checkpointCreated, request.name, record, controller) {
      (record, transaction) throws(ServiceError) in
      var info = self.info(of: found, device, controller)
      info.pauseNanoseconds = pause
      info.revision = record.revision
      try keeper?.keep(info, in: transaction)
      return info
    }
  }

  /// - Throws: `checkpoint-not-found`; `checkpoint-in-use` with the push backup that needs it.
  package func removeCheckpoint(_ id: String, _ name: String) async throws(ServiceError) {
    try requireServing()
    let controller = try controller(id)
    try await controller.run { () throws(ServiceError) in
      let (device, record) = try self.writable(controller)
      let found = try converting { () throws(DeviceError) in try device.checkpoint(name) }
      if let user = self.users(of: found.name, controller).first {
        throw ServiceError(
          .checkpointInUse, "the checkpoint \(name) is needed by \(user.words)",
          remedy: "end that first", errno: "EBUSY", holder: user)
      }
      try converting { () throws(DeviceError) in
        try device.removeCheckpoint(
          name, until: .after(seconds: self.configuration.quiesceSeconds))
      }
      try self.note(.checkpointDeleted, name, record, controller) { _, _ in }
    }
    log.info("checkpoint removed", metadata: ["device": "\(id)", "checkpoint": "\(name)"])
  }

  // MARK: Pieces

  /// The checkpoint, if there is one, that the same request has made before.
  static func made(_ name: String, by key: RequestKey?, on device: Device) -> Checkpoint? {
    guard let key else { return nil }
    return device.checkpoints.first { $0.name == name && $0.request == key.words }
  }

  /// What a request asks for, if it makes sense.
  ///
  /// - Parameters:
  ///   - key: of the request, if it can come again.
  ///   - pointer: of the name in the request's body.
  func newCheckpoint(
    _ request: CheckpointRequest, _ device: Device, by key: RequestKey? = nil, pointer: String
  ) throws(ServiceError) -> NewCheckpoint {
    try Names.require(request.name, as: "checkpoint", pointer: pointer)
    let shifts = CheckpointFile.granularityShifts
    let bytes = request.granularityBytes ?? device.geometry.clusterBytes
    guard bytes.nonzeroBitCount == 1, shifts.contains(bytes.trailingZeroBitCount) else {
      throw ServiceError(
        .invalidValue, "a granularity is a power of two from 4096 to 67108864",
        pointer: "/granularity")
    }
    return NewCheckpoint(
      request.name, granularityShift: bytes.trailingZeroBitCount, createdAt: wallClockSeconds(),
      request: key?.words)
  }

  private func note<Result>(
    _ event: EventType, _ name: String, _ record: DeviceRecord, _ controller: DeviceController,
    _ more: (DeviceRecord, StateTransaction) throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    try commit(record, of: controller, as: .deviceChanged) {
      (record, transaction) throws(ServiceError) in
      try transaction.note(
        event, name, device: record.id, at: try transaction.nextRevision())
      return try more(record, transaction)
    }
  }

  /// Backups that copy what was written since a checkpoint, or began with it.
  private func users(
    of checkpoint: String, _ controller: DeviceController
  ) -> [ServiceError.Holder] {
    if let frozen = frozen.withLock({ $0[controller.id] }) {
      let names = [frozen.backup.since?.name, frozen.checkpoints.base, frozen.checkpoints.working]
      guard names.contains(checkpoint) else { return [] }
      return [ServiceError.Holder(kind: "job", id: frozen.backup.uuid)]
    }
    guard case .pushBackup(let session)? = controller.now.maintenance,
      session.since == checkpoint || session.checkpoint == checkpoint
    else { return [] }
    return [ServiceError.Holder(kind: "push_backup", id: session.backup.uuid)]
  }

  func info(
    of checkpoint: Checkpoint, _ device: Device, _ controller: DeviceController
  ) -> CheckpointInfo {
    let reason = checkpoint.inconsistency
    return CheckpointInfo(
      device: controller.id, name: checkpoint.name,
      granularityBytes: checkpoint.granularityBytes, dirtyBytes: checkpoint.dirtyBytes,
      isRecording: reason == nil && !device.isReadOnly, inconsistency: reason,
      parent: checkpoint.parent, usedBy: users(of: checkpoint.name, controller).map(\.id),
      createdAt: checkpoint.createdAt, revision: controller.now.record?.revision ?? 0)
  }
}
