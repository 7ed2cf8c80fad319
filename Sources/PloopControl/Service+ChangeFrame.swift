internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What all changes of a chain have in common on the side of the service: the descriptor, who may, and
// what is written down.

/// A chain that has a descriptor and is attached for writing.
struct ChangeableChain: Sendable {
  let device: String
  let file: DescriptorFile
  let location: Roots.Location
}

extension Service {
  /// The disk, and the descriptor by which its chain is changed. A disk that was attached by a list of
  /// files gets one.
  ///
  /// - Parameter job: the one that changes it; nobody else may have it.
  func changeable(
    _ controller: DeviceController, ifRevision: UInt64?, by job: String? = nil
  ) throws(ServiceError) -> (Device, ChangeableChain) {
    try requireFree(controller, but: job)
    if let record = controller.now.record { try Service.require(ifRevision, is: record.revision) }
    return try described(controller)
  }

  /// The same, whoever has the device.
  func described(
    _ controller: DeviceController
  ) throws(ServiceError) -> (Device, ChangeableChain) {
    let device = try controller.device()
    guard let record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    guard !device.isReadOnly else {
      throw ServiceError(
        .deviceReadOnly, "the device \(record.id) is attached for reading", errno: "EROFS")
    }
    if let failure = device.failure { throw ServiceError(.ioError, failure, errno: "EIO") }
    guard let path = record.descriptor else {
      return (device, try describe(record, device, controller))
    }
    let location = try roots.locate(path, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let file = DescriptorFile(in: folder, name: location.name)
    try noteOutcome(beside: file, location)
    return (device, ChangeableChain(device: record.id, file: file, location: location))
  }

  func change(
    _ chain: ChangeableChain, _ device: String, _ key: RequestKey?
  ) -> ChainChange {
    ChainChange(
      of: chain.file, device: device,
      request: key.map {
        ChainIntent.Request(key: $0.text, route: $0.route, fingerprint: $0.fingerprint)
      })
  }

  /// Writes down what a change has made of the device, and then removes what nobody needs any more.
  func ending<Result>(
    _ made: ChainChange.Made, _ chain: ChangeableChain, _ controller: DeviceController,
    _ more: (DeviceRecord, StateTransaction) throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    guard var record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    record.deltas = try deltas(
      of: made.descriptor, to: made.descriptor.topGUID, at: chain.location)
    claimAnew(record)
    do throws(ServiceError) {
      let result = try commit(record, of: controller, as: .deviceChanged) {
        (record, transaction) throws(ServiceError) in try more(record, transaction)
      }
      end(made, chain)
      return result
    } catch {
      // The chain has changed all the same. The intent stays, and tells so after a restart.
      controller.keep(record)
      throw error
    }
  }

  /// The change counts by now: what cannot be removed is tried again by the next one.
  func end(_ made: ChainChange.Made, _ chain: ChangeableChain) {
    do throws(DeviceError) {
      try change(chain, chain.device, nil).end(made)
    } catch {
      log.warning(
        "a file that is needed no longer was not removed",
        metadata: ["descriptor": "\(chain.location.path)", "reason": "\(error)"])
    }
  }

  /// The files of a device are those of its record, and no others that were taken for a change.
  func claimAnew(_ record: DeviceRecord) {
    state.withLock { state in
      state.files.release(record.id)
      try? state.files.claim(identified(record.deltas), for: record.id, readonly: record.readonly)
    }
  }

  private func identified(
    _ deltas: [DeviceRecord.Delta]
  ) -> [(location: Roots.Location, identity: FileIdentity?)] {
    deltas.compactMap { delta in
      guard let location = try? roots.locate(delta.path, pointer: "") else { return nil }
      let folder = try? roots.folder(of: location, pointer: "")
      let file = folder.flatMap {
        try? roots.open(location, in: $0, writable: false, pointer: "")
      }
      return (location, file?.identity)
    }
  }

  // MARK: Whose snapshot may go

  /// The shot that builds on a snapshot; nil when nothing does.
  ///
  /// - Throws: `snapshot-not-found`; `snapshot-has-branches` when several do.
  func onlyChild(
    of guid: GUID, _ descriptor: Descriptor
  ) throws(ServiceError) -> Descriptor.Shot? {
    guard descriptor.shot(guid) != nil, guid != descriptor.topGUID else {
      throw ServiceError(.snapshotNotFound, "there is no snapshot \(guid)", errno: "ENOENT")
    }
    let children = descriptor.children(of: guid)
    guard children.count <= 1 else {
      let names = children.map(\.guid.description).joined(separator: ", ")
      throw ServiceError(
        .snapshotHasBranches, "\(children.count) states build on \(guid): \(names)",
        holder: .init(kind: "snapshot", id: children[0].guid.description))
    }
    return children.first
  }

  /// - Throws: `snapshot-protected` or `export-in-use` for a snapshot that is to stay.
  func requireDisposable(
    _ guid: GUID, _ chain: ChangeableChain
  ) throws(ServiceError) {
    let notes = SnapshotNotes(beside: chain.file)
    guard !notes[guid].isProtected, !notes.isDamaged else {
      throw ServiceError(
        .snapshotProtected,
        notes.isDamaged
          ? "the notes beside \(chain.location.path) cannot be read; they may protect \(guid)"
          : "the snapshot \(guid) is protected",
        remedy: notes.isDamaged
          ? "PATCH the snapshot: the damaged file is set aside then" : nil, errno: "EBUSY",
        holder: ServiceError.Holder(kind: "snapshot", id: guid.description))
    }
    try requireNotExported(guid, of: chain.device)
    let descriptor = try read(chain.location, in: chain.file.folder)
    guard let shot = descriptor.shot(guid),
      let file = try? roots.resolve(shot.file, from: chain.location, pointer: ""),
      let other = state.withLock({ $0.files.user(of: file, but: chain.device) })
    else { return }
    throw ServiceError(
      .imageInUse, "\(file.path) is a part of the device \(other)", errno: "EBUSY",
      holder: ServiceError.Holder(kind: "device", id: other))
  }

  /// Whether a delta's file stays when its snapshot goes: it was there before the descriptor, and
  /// nobody knows what else builds on it.
  func keepsFile(_ guid: GUID, _ chain: ChangeableChain) -> Bool {
    SnapshotNotes(beside: chain.file).keepsFile(guid)
  }

  /// - Throws: as ``onlyChild(of:_:)``, and `nothing-to-merge` where nothing builds on it.
  func child(of guid: GUID, _ descriptor: Descriptor) throws(ServiceError) -> Descriptor.Shot {
    guard let child = try onlyChild(of: guid, descriptor) else {
      throw ServiceError(
        .nothingToMerge, "nothing builds on the snapshot \(guid)",
        remedy: "DELETE it, if it is needed no longer", errno: "ENOENT")
    }
    return child
  }

  func descriptorLock(of chain: ChangeableChain) throws(ServiceError) -> DescriptorLock? {
    do throws(LockError) {
      return try descriptorLocks.acquire(
        chain.location.name, in: chain.file.folder, exclusive: true)
    } catch { throw ServiceError(DeviceError(error)) }
  }
}
