internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// Deltas that other programs have written, moved or merged (docs/crash-safety.md, "Files that other
// programs write"). What they say is held against the files before anything changes.

extension Service {
  /// Has a lower delta read from where another program has put it. Nobody reads the old places once
  /// this returns.
  package func changeDelta(
    _ id: String, _ place: DeltaPlace, _ change: DeltaChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> DeltaChanged {
    try requireServing()
    let controller = try controller(id)
    let changed = try await controller.run { () throws(ServiceError) in
      try self.changeDelta(controller, place, change, ifRevision: ifRevision)
    }
    log.info(
      "delta changed",
      metadata: [
        "device": "\(id)", "level": "\(changed.delta.level)", "path": "\(changed.delta.path)",
        "applied": "\(changed.applied ?? 0)", "skipped": "\(changed.skipped ?? 0)",
      ])
    return changed
  }

  private func changeDelta(
    _ controller: DeviceController, _ place: DeltaPlace, _ change: DeltaChange,
    ifRevision: UInt64?
  ) throws(ServiceError) -> DeltaChanged {
    let (device, record, level) = try lower(place, of: controller, ifRevision: ifRevision)
    // Exports of snapshots are disks of their own, which nobody tells.
    if let guid = record.deltas[level].guid.flatMap({ GUID($0) }) {
      try requireNotExported(guid, of: record.id)
    }
    switch change {
    case .index(let entries, let isWholeChecked):
      let moves = entries.map { IndexMove(cluster: $0.cluster, physical: $0.to) }
      let applied = try converting { () throws(DeviceError) in
        try device.updateIndex(
          level: level, moves, isWholeChecked: isWholeChecked,
          until: .after(seconds: configuration.quiesceSeconds))
      }
      return try commit(record, of: controller, as: .deviceChanged) {
        (record, transaction) throws(ServiceError) in
        try noteRewritten(record, level, in: transaction)
        return DeltaChanged(
          delta: Service.deltas(device.levels(), record)[level], applied: applied,
          skipped: moves.count - applied, revision: record.revision)
      }
    case .path(let path, let isContentChecked):
      return try replaceFile(
        controller, device, record, level, by: path, isContentChecked: isContentChecked)
    }
  }

  private func replaceFile(
    _ controller: DeviceController, _ device: Device, _ record: DeviceRecord, _ level: Int,
    by path: String, isContentChecked: Bool
  ) throws(ServiceError) -> DeltaChanged {
    let old = record.deltas[level]
    let location = try roots.locate(path, pointer: "/path")
    guard location.path != old.path else {
      return DeltaChanged(
        delta: Service.deltas(device.levels(), record)[level], revision: record.revision)
    }
    let folder = try roots.folder(of: location, pointer: "/path")
    let file = try roots.open(location, in: folder, writable: false, pointer: "/path")
    let source = DeltaSource(file: file, folder: folder, name: location.name, isRaw: old.isRaw)
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    var after = record
    after.deltas[level].path = location.path
    do throws(ServiceError) {
      try claimLower(location, file, for: record.id)
      guard record.descriptor != nil else {
        return try recording { (noting) throws(DeviceError) in
          _ = try device.replaceFile(
            level: level, with: source, isContentChecked: isContentChecked, until: deadline
          ) { (levels) throws(DeviceError) in
            try noting { () throws(ServiceError) in
              try commit(after, of: controller, as: .deviceChanged) {
                (record, transaction) throws(ServiceError) in
                try replaced(level, levels, record, transaction)
              }
            }
          }
        } show: {
          claimAnew(after)
        }
      }
      let (_, chain) = try described(controller)
      guard let guid = old.guid.flatMap({ GUID($0) }) else {
        throw ServiceError(.deltaNotFound, "the descriptor has no shot of level \(level)")
      }
      let made = try converting { () throws(DeviceError) in
        try self.change(chain, record.id, nil).replaceFile(
          device, level: level, of: guid, with: source,
          named: roots.reference(to: location, from: chain.location),
          isContentChecked: isContentChecked, until: deadline)
      }
      return try ending(made, chain, controller) { (record, transaction) throws(ServiceError) in
        try replaced(level, device.levels(), record, transaction)
      }
    } catch {
      writeFailure(of: controller)
      if let record = controller.now.record { claimAnew(record) }
      throw error.pointing(at: "/path")
    }
  }

  private func replaced(
    _ level: Int, _ levels: [Device.LevelStatus], _ record: DeviceRecord,
    _ transaction: StateTransaction
  ) throws(ServiceError) -> DeltaChanged {
    try noteRewritten(record, level, in: transaction)
    return DeltaChanged(delta: Service.deltas(levels, record)[level], revision: record.revision)
  }

  // MARK: Merged

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
      let (_, chain) = try described(controller)
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

  /// Whether the program that merged has changed the descriptor as well.
  ///
  /// - Throws: `descriptor-exists` when it says neither what the chain was nor what it is to be.
  private func isDescribed(
    _ after: DeviceRecord, before: DeviceRecord, _ chain: ChangeableChain
  ) throws(ServiceError) -> Bool {
    let descriptor = try read(chain.location, in: chain.file.folder)
    let deltas = try deltas(of: descriptor, to: descriptor.topGUID, at: chain.location)
    if Service.haveSameFiles(deltas, before.deltas) { return false }
    guard Service.haveSameFiles(deltas, after.deltas) else {
      throw ServiceError(
        .descriptorExists,
        "\(chain.location.path) says neither the chain that \(after.id) has, nor that without the delta",
        remedy: "make it say either, or detach the device and attach it anew", errno: "EEXIST",
        holder: ServiceError.Holder(kind: "descriptor", id: chain.location.path))
    }
    return true
  }

  /// A snapshot goes that nobody protects or reads; one that is in the descriptor no more is gone.
  private func requireDisposable(
    _ gone: GUID, isDescribed: Bool, _ chain: ChangeableChain
  ) throws(ServiceError) {
    guard isDescribed else { return try requireDisposable(gone, chain) }
    try requireNotExported(gone, of: chain.device)
  }

  /// The answer to a request whose effect a crash has cut off from it.
  private func answer(
    _ keeper: AnswerKeeper<DeviceInfo>, _ controller: DeviceController
  ) throws(ServiceError) -> DeviceInfo {
    let info = self.info(of: controller)
    try store.write { transaction throws(ServiceError) in
      try keeper.keep(info, in: transaction)
      try transaction.endOutcome(of: keeper.key)
    }
    return info
  }

  // MARK: Pieces

  /// What everybody who records clusters of the disk has to hear of: another program has written them.
  private func noteRewritten(
    _ record: DeviceRecord, _ level: Int, in transaction: StateTransaction
  ) throws(ServiceError) {
    guard record.deltas.indices.contains(level) else { return }
    try transaction.note(
      .deltaRewritten, record.deltas[level].path, device: record.id,
      at: try transaction.nextRevision())
  }

  private func lower(
    _ place: DeltaPlace, of controller: DeviceController, ifRevision: UInt64?
  ) throws(ServiceError) -> (Device, DeviceRecord, level: Int) {
    let (device, record) = try changeableByHand(controller, ifRevision: ifRevision)
    let level =
      switch place {
      case .top: record.deltas.count - 1
      case .level(let level): level
      }
    try converting { () throws(DeviceError) in try device.requireLower(level) }
    return (device, record, level)
  }
}

extension DeviceController.Facts {
  /// The same with the record that is about to be the device's.
  fileprivate func with(_ record: DeviceRecord) -> DeviceController.Facts {
    var facts = self
    facts.record = record
    return facts
  }
}
