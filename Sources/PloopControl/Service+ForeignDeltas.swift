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
      let (_, chain) = try described(controller, isAsItWas: false)
      _ = try isDescribed(after, before: record, chain)
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

  // MARK: Pieces

  /// Whether the program that wrote the files has changed the descriptor as well.
  ///
  /// - Throws: `descriptor-exists` when it says neither what the chain was nor what it is to be.
  func isDescribed(
    _ after: DeviceRecord, before: DeviceRecord, _ chain: ChangeableChain
  ) throws(ServiceError) -> Bool {
    let descriptor = try read(chain.location, in: chain.file.folder)
    let deltas = try deltas(of: descriptor, to: descriptor.topGUID, at: chain.location)
    if Service.haveSameFiles(deltas, before.deltas) { return false }
    guard Service.haveSameFiles(deltas, after.deltas) else {
      throw ServiceError(
        .descriptorExists,
        "\(chain.location.path) says neither the chain that \(after.id) has, nor the changed one",
        remedy: "make it say either, or detach the device and attach it anew", errno: "EEXIST",
        holder: ServiceError.Holder(kind: "descriptor", id: chain.location.path))
    }
    return true
  }

  /// What everybody who records clusters of the disk has to hear of: another program has written them.
  func noteRewritten(
    _ record: DeviceRecord, _ level: Int, in transaction: StateTransaction
  ) throws(ServiceError) {
    guard record.deltas.indices.contains(level) else { return }
    try transaction.note(
      .deltaRewritten, record.deltas[level].path, device: record.id,
      at: try transaction.nextRevision())
  }

  func lower(
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
