internal import Logging
internal import PloopDevice
package import PloopFormat
internal import PloopIO

// Changes of a chain that are made while their caller waits (docs/crash-safety.md, "Changes of a
// chain"). Long ones are jobs.

extension Service {
  /// Freezes the state of a disk under a name, while it is used.
  ///
  /// It is durable when this returns, and so is the answer that is to be kept.
  package func addSnapshot(
    _ id: String, _ request: SnapshotRequest, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<SnapshotMade>?
  ) async throws(ServiceError) -> SnapshotMade {
    try requireServing()
    let controller = try controller(id)
    let made = try await controller.run { () throws(ServiceError) in
      try self.snapshot(controller, request, ifRevision: ifRevision, keeping: keeper)
    }
    log.info(
      "snapshot",
      metadata: [
        "device": "\(id)", "snapshot": "\(made.snapshot.guid)",
        "pause_ns": "\(made.pauseNanoseconds ?? 0)",
      ])
    return made
  }

  private func snapshot(
    _ controller: DeviceController, _ request: SnapshotRequest, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<SnapshotMade>?
  ) throws(ServiceError) -> SnapshotMade {
    if let key = keeper?.key, let guid = try outcome(of: key, for: controller.id) {
      // A crash came between the change and its answer.
      return try answer(guid, pause: nil, controller, keeper)
    }
    try request.note.check()
    let (device, chain) = try changeable(
      controller, ifRevision: ifRevision, isBesideBackup: true)
    if let key = keeper?.key, let guid = try outcome(of: key, for: controller.id) {
      // It was made, and could not be written down.
      return try answer(guid, pause: nil, controller, keeper)
    }
    let guid = request.guid ?? .random()
    let descriptor = try read(chain.location, in: chain.file.folder)
    guard descriptor.shot(guid) == nil else {
      throw ServiceError(
        .snapshotExists, "there is a snapshot \(guid)", errno: "EEXIST", pointer: "/uuid")
    }
    try requireSpace(
      request.deltaPath == nil ? device.geometry.headerBytes : 0, beside: descriptor, of: chain,
      for: "a new top of \(controller.id)")
    let checkpoint = try request.checkpoint.map { (request) throws(ServiceError) in
      try newCheckpoint(request, device, pointer: "/checkpoint")
    }
    let source = try topSource(request.deltaPath, of: device, chain)
    var note = request.note
    note.createdAt = wallClockSeconds()
    let notes: ImageFolder.Replacement?
    do throws(ServiceError) {
      notes = try firstNote(note, on: guid, descriptor, beside: chain.file, of: chain.device)
    } catch {
      if let record = controller.now.record { claimAnew(record) }
      throw error
    }
    let made: ChainChange.Made
    do throws(DeviceError) {
      made = try change(chain, controller.id, keeper?.key).snapshot(
        device, as: guid, onto: source, beginning: checkpoint, notes: notes,
        until: .after(seconds: configuration.quiesceSeconds))
    } catch {
      withdrawNote(on: guid, chain)
      throw snapshotRefused(error, request, device, controller)
    }
    return try ending(made, chain, controller) { (record, transaction) throws(ServiceError) in
      try transaction.note(
        .snapshotCreated, guid.description, device: record.id,
        at: try transaction.nextRevision())
      if let name = request.checkpoint?.name {
        try transaction.note(
          .checkpointCreated, name, device: record.id, at: try transaction.nextRevision())
      }
      let info = SnapshotMade(
        device: record.id, snapshot: try snapshot(guid, of: record),
        pauseNanoseconds: made.pauseNanoseconds,
        revision: record.revision)
      try keeper?.keep(info, in: transaction)
      return info
    }
  }

  private func answer(
    _ guid: GUID, pause: UInt64?, _ controller: DeviceController,
    _ keeper: AnswerKeeper<SnapshotMade>?
  ) throws(ServiceError) -> SnapshotMade {
    guard let record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    let made = SnapshotMade(
      device: record.id, snapshot: try snapshot(guid, of: record), pauseNanoseconds: pause,
      revision: record.revision)
    if let keeper {
      try store.write { transaction throws(ServiceError) in
        try keeper.keep(made, in: transaction)
        try transaction.endOutcome(of: keeper.key)
      }
    }
    return made
  }

  private func topSource(
    _ path: String?, of device: Device, _ chain: ChangeableChain
  ) throws(ServiceError) -> ChainChange.TopSource {
    guard let path else { return .made }
    let location = try roots.locate(path, pointer: "/delta_path")
    do throws(ServiceError) {
      let folder = try roots.folder(of: location, pointer: "/delta_path")
      let file = try roots.open(location, in: folder, writable: false, pointer: "/delta_path")
      guard !device.levels().contains(where: { $0.path == location.path }) else {
        throw ServiceError(.imageInUse, "it belongs to the disk already", errno: "EBUSY")
      }
      try requireOfNoDisk(location, [location.sibling(Descriptor.fileName), chain.location])
      try state.withLock { state throws(ServiceError) in
        try state.files.claim(
          [(location, file.identity)], for: .device(chain.device), readonly: false)
      }
      return .taken(
        name: location.name, in: folder, file: roots.reference(to: location, from: chain.location))
    } catch {
      throw Service.unusable(path, error)
    }
  }

  /// An image that a descriptor names is a state of its disk, however empty it is.
  private func requireOfNoDisk(
    _ image: Roots.Location, _ descriptors: [Roots.Location]
  ) throws(ServiceError) {
    for location in descriptors {
      let folder = try roots.folder(of: location, pointer: "")
      guard folder.contains(location.name), let descriptor = try? read(location, in: folder),
        let shot = descriptor.shots.first(where: { shot in
          (try? roots.resolve(shot.file, from: location, pointer: "")) == image
        })
      else { continue }
      throw ServiceError(
        .imageInUse, "it is the image of \(shot.guid) in \(location.path)", errno: "EBUSY",
        holder: ServiceError.Holder(kind: "descriptor", id: location.path))
    }
  }

  /// Whatever is wrong with an image that was to become the top, it is the request that is wrong.
  private static func unusable(_ path: String, _ error: ServiceError) -> ServiceError {
    guard error.code != .pathOutsideRoot else { return error }
    return ServiceError(
      .imageInvalid, "\(path) cannot become the top: \(error.detail)", cause: error.code.rawValue,
      remedy: "name an empty image of the disk's size and cluster size, or none",
      errno: error.errno, holder: error.holder, pointer: "/delta_path", facts: error.facts)
  }

  private func snapshotRefused(
    _ error: DeviceError, _ request: SnapshotRequest, _ device: Device,
    _ controller: DeviceController
  ) -> ServiceError {
    writeFailure(of: controller)
    if let record = controller.now.record { claimAnew(record) }
    let refusal = ServiceError(error)
    switch error.kind {
    case .format, .locked, .rawNotBase:
      guard let path = request.deltaPath else { return refusal }
      return Service.unusable(path, refusal)
    default: return refusal
    }
  }

  // MARK: Going back

  /// Makes a snapshot the state of the disk. Nobody may be connected; the disk is closed meanwhile.
  package func switchTop(
    _ id: String, to guid: GUID, keepingTopAs name: String?, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo {
    try requireServing()
    let controller = try controller(id)
    let info = try await controller.run { () throws(ServiceError) in
      try self.switchTop(controller, to: guid, name, ifRevision: ifRevision, keeping: keeper)
    }
    log.info("switched", metadata: ["device": "\(id)", "snapshot": "\(guid)"])
    return info
  }

  private func switchTop(
    _ controller: DeviceController, to guid: GUID, _ name: String?, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    if let keeper, try outcome(of: keeper.key, for: controller.id) != nil {
      let info = self.info(of: controller)
      try store.write { transaction throws(ServiceError) in
        try keeper.keep(info, in: transaction)
        try transaction.endOutcome(of: keeper.key)
      }
      return info
    }
    let (device, chain) = try changeable(controller, ifRevision: ifRevision)
    let geometry = try geometry(of: guid, chain, like: device.geometry)
    let descriptor = try read(chain.location, in: chain.file.folder)
    try requireSpace(
      geometry.headerBytes, beside: descriptor, of: chain, for: "a new top of \(controller.id)")
    let kept = name.map { GUID(lenient: $0) ?? .random() }
    if let name, let kept {
      var note = SnapshotNote()
      note.name = GUID(lenient: name) == nil ? name : nil
      note.createdAt = wallClockSeconds()
      try note.check()
      // Ahead: what is noted of a snapshot that is not made means nothing.
      if let notes = try firstNote(
        note, on: kept, descriptor, beside: chain.file, of: chain.device)
      {
        do throws(IOError) { try chain.file.folder.replace(notes.name, with: notes.bytes) } catch {
          throw ServiceError(storing: error)
        }
      }
    }
    let doors = table.entries(of: controller.id).map(\.record.name)
    do throws(ServiceError) {
      try closeDoors(doors, .safe, refusal: .deviceInUse, of: "the device \(controller.id)")
    } catch {
      if let kept { withdrawNote(on: kept, chain) }
      throw error
    }
    // Another program must not take the lock while the disk is closed.
    let lock = try descriptorLock(of: chain)
    defer { withExtendedLifetime(lock) {} }
    do throws(ServiceError) {
      try converting { () throws(DeviceError) in
        try device.detach(until: .after(seconds: configuration.quiesceSeconds))
      }
    } catch {
      if let kept { withdrawNote(on: kept, chain) }
      if error.code == .drainTimeout {
        table.set(doors, open: true)
      } else {
        fail(controller, error)
      }
      throw error
    }
    closeSnapshots(of: controller.id)
    controller.enter(.attaching)
    let made: ChainChange.Made
    do throws(DeviceError) {
      made = try change(chain, controller.id, keeper?.key).switchTop(
        to: guid, geometry: geometry, keepingTopAs: kept)
    } catch {
      // The disk is as it was, or as its descriptor says now.
      do throws(ServiceError) { _ = try reopen(controller, keeping: nil) } catch {
        fail(controller, error)
      }
      throw ServiceError(error)
    }
    do throws(ServiceError) {
      let info = try reopen(controller, keeping: keeper)
      end(made, chain)
      return info
    } catch {
      fail(controller, error)
      throw error
    }
  }

  /// Attaches the chain that the device's descriptor has now.
  private func reopen(
    _ controller: DeviceController, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    guard var record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    let chain = try plan(record)
    state.withLock { $0.files.release(.device(record.id)) }
    var options = AttachOptions()
    options.suspended = record.suspended
    options.bitmapsInImage = record.bitmapsInImage == true
    let device = try openChain(chain, for: record.id, options)
    record.deltas = chain.deltas
    record.sizeBytes = device.geometry.sizeBytes
    let info: DeviceInfo
    do throws(ServiceError) {
      info = try commit(record, of: controller, as: .deviceChanged, entering: .attached(device)) {
        (record, transaction) throws(ServiceError) in
        let info = self.info(
          of: record.id,
          DeviceController.Facts(
            phase: .attached(device), record: record, since: record.updatedAt,
            attachedAt: record.updatedAt))
        try keeper?.keep(info, in: transaction)
        try transaction.endIntent(of: record.id)
        return info
      }
      state.withLock { $0.unfinished[controller.id] = nil }
    } catch {
      try? device.detach(until: .after(seconds: configuration.quiesceSeconds))
      throw error
    }
    openDoors(to: device, controller)
    return info
  }

  /// What an empty delta above a snapshot looks like.
  private func geometry(
    of guid: GUID, _ chain: ChangeableChain, like geometry: Geometry
  ) throws(ServiceError) -> Geometry {
    let descriptor = try read(chain.location, in: chain.file.folder)
    guard let shot = descriptor.shot(guid), guid != descriptor.topGUID else {
      throw ServiceError(.snapshotNotFound, "there is no snapshot \(guid)", errno: "ENOENT")
    }
    let location = try roots.resolve(shot.file, from: chain.location, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let file = try roots.open(location, in: folder, writable: false, pointer: "")
    return try converting { () throws(DeviceError) in
      try Device.geometry(of: file, isRaw: descriptor.isRaw(shot), like: geometry)
    }
  }
}
