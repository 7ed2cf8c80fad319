internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// Deltas that other programs have merged into a neighbour's file (docs/crash-safety.md, "Files that other
// programs write").

extension Service {
  /// Drops a delta that another program has merged into a neighbour's file. Its own file stays.
  ///
  /// It is durable when this returns, and so is the answer that is to be kept.
  package func takeMerged(
    _ id: String, _ place: DeltaPlace, _ direction: MergedInto, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo {
    try requireServing()
    let controller = try controller(id)
    let info = try await controller.run { () throws(ServiceError) in
      if let keeper, try self.outcome(of: keeper.key, for: id) != nil {
        return try self.answer(keeper, controller)
      }
      let direction: MergeDirection =
        switch direction {
        case .forward: .forward
        case .backward: .backward
        }
      return try self.takeMerged(
        controller, place, direction, ifRevision: ifRevision, keeping: keeper)
    }
    log.info(
      "merged delta dropped", metadata: ["device": "\(id)", "direction": "\(direction.rawValue)"])
    return info
  }

  private func takeMerged(
    _ controller: DeviceController, _ place: DeltaPlace, _ direction: MergeDirection,
    ifRevision: UInt64?, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    let (device, record, level) = try lower(place, of: controller, ifRevision: ifRevision)
    let neighbour = try converting { () throws(DeviceError) in
      try device.receiver(of: level, direction)
    }
    var after = record
    after.deltas.remove(at: level)
    // As it is called without the merged delta.
    let receiver = min(level, neighbour)
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    do throws(ServiceError) {
      guard record.descriptor != nil else {
        let before = info(of: controller)
        return try recording { (noting) throws(DeviceError) in
          _ = try device.takeMerged(level: level, direction, until: deadline) {
            (levels) throws(DeviceError) in
            try noting { () throws(ServiceError) in
              try commit(after, of: controller, as: .deviceChanged) {
                (record, transaction) throws(ServiceError) in
                try noteRewritten(record, receiver, in: transaction)
                // The disk cannot be asked in the middle of its change.
                var info = before
                info.deltas = Service.deltas(levels, record)
                info.revision = record.revision
                info.updatedAt = record.updatedAt
                try keeper?.keep(info, in: transaction)
                return info
              }
            }
          }
        } show: {
          claimAnew(after)
        }
      }
      // Whose state no file holds any more: of the merged delta, or of the one that was overwritten.
      guard
        let gone = record.deltas[direction == .forward ? level : receiver].guid
          .flatMap({ GUID($0) })
      else {
        throw ServiceError(.deltaNotFound, "the descriptor has no shot of level \(level)")
      }
      let (_, chain) = try described(controller, isAsItWas: false)
      let isDescribed = try isDescribed(after, before: record, chain)
      try requireDisposable(gone, isDescribed: isDescribed, chain)
      let made = try converting { () throws(DeviceError) in
        try self.change(chain, record.id, keeper?.key).takeMerged(
          device, level: level, direction, without: gone, isDescribed: isDescribed,
          until: deadline)
      }
      return try ending(made, chain, controller) { (record, transaction) throws(ServiceError) in
        try transaction.note(
          .snapshotDeleted, gone.description, device: record.id,
          at: try transaction.nextRevision())
        try noteRewritten(record, receiver, in: transaction)
        let info = self.info(of: controller.id, controller.now.with(record))
        try keeper?.keep(info, in: transaction)
        return info
      }
    } catch {
      writeFailure(of: controller)
      throw error
    }
  }

  /// A snapshot goes that nobody protects or reads; one that is in the descriptor no more is gone.
  private func requireDisposable(
    _ gone: GUID, isDescribed: Bool, _ chain: ChangeableChain
  ) throws(ServiceError) {
    guard isDescribed else { return try requireDisposable(gone, chain) }
    try requireNotExported(gone, of: chain.device)
  }

  /// The answer to a request whose effect a crash has cut off from it.
  func answer(
    _ keeper: AnswerKeeper<DeviceInfo>, _ controller: DeviceController
  ) throws(ServiceError) -> DeviceInfo {
    let info = self.info(of: controller)
    try store.write { transaction throws(ServiceError) in
      try keeper.keep(info, in: transaction)
      try transaction.endOutcome(of: keeper.key)
    }
    return info
  }
}

extension DeviceController.Facts {
  /// The same with the record that is about to be the device's.
  func with(_ record: DeviceRecord) -> DeviceController.Facts {
    var facts = self
    facts.record = record
    return facts
  }
}
