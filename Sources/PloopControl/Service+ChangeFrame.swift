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
  /// - Parameter job: the one that changes it; no other may.
  func changeable(
    _ controller: DeviceController, ifRevision: UInt64?, by job: String? = nil
  ) throws(ServiceError) -> (Device, ChangeableChain) {
    try requireNoJob(on: controller.id, but: job)
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
    SnapshotNotes(beside: chain.file)[guid].keepsFile ?? false
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

  // MARK: The first descriptor

  /// Writes a descriptor beside the top of a disk that was attached by a list of files, or finds the
  /// one that says the same. From then on the device is attached by it.
  ///
  /// A crash in between leaves a descriptor of the same chain: attaching by the list goes on working.
  private func describe(
    _ record: DeviceRecord, _ device: Device, _ controller: DeviceController
  ) throws(ServiceError) -> ChangeableChain {
    guard let path = record.deltas.last?.path else {
      throw ServiceError(.deviceBusy, "the device \(record.id) has no files")
    }
    let location = try roots.locate(path, pointer: "").sibling(Descriptor.fileName)
    let folder = try roots.folder(of: location, pointer: "")
    let file = DescriptorFile(in: folder, name: location.name)
    let chain = ChangeableChain(device: record.id, file: file, location: location)
    if folder.contains(location.name) {
      try noteOutcome(beside: file, location)
    } else {
      let files = try record.deltas.map { (delta) throws(ServiceError) in
        roots.reference(to: try roots.locate(delta.path, pointer: ""), from: location)
      }
      let descriptor: Descriptor
      do throws(DescriptorError) {
        descriptor = try Descriptor(
          chain: files, of: device.geometry, isBaseRaw: record.deltas[0].isRaw)
      } catch { throw ServiceError(DeviceError(error, path: location.path)) }
      try noteShared(descriptor, beside: file)
      try converting { () throws(DeviceError) in try file.replace(with: descriptor) }
      if let lock = try descriptorLock(of: chain) { device.hold(lock) }
    }
    let descriptor = try read(location, in: folder)
    let deltas = try deltas(of: descriptor, to: descriptor.topGUID, at: location)
    guard Service.haveSameFiles(deltas, record.deltas) else {
      throw ServiceError(
        .descriptorExists, "\(location.path) describes another chain than that of \(record.id)",
        cause: "the chain of a disk is changed through the descriptor beside its top",
        errno: "EEXIST", holder: .init(kind: "descriptor", id: location.path))
    }
    var record = record
    record.descriptor = location.path
    record.deltas = deltas
    try commit(record, of: controller, as: .deviceChanged)
    return chain
  }

  /// The lower deltas of a list may be below other disks as well: they are never removed.
  private func noteShared(
    _ descriptor: Descriptor, beside file: DescriptorFile
  ) throws(ServiceError) {
    var notes = SnapshotNotes(beside: file)
    for shot in descriptor.shots where shot.guid != descriptor.topGUID {
      var note = SnapshotNote()
      note.keepsFile = true
      try notes.write(note, on: shot.guid, of: descriptor)
    }
  }

  // MARK: What a crash left

  /// Notes, durably, which request an interrupted change was made for, if it was made; call it before
  /// the intent is settled.
  func noteOutcome(
    beside file: DescriptorFile, _ location: Roots.Location
  ) throws(ServiceError) {
    let (intent, descriptor) = try converting {
      () throws(DeviceError) -> (ChainIntent?, Descriptor?) in
      guard let intent = try IntentFile(beside: file).read() else { return (nil, nil) }
      return (intent, try file.read())
    }
    guard let intent, let descriptor else { return }
    try noteOurs(intent, descriptor, location)
    guard intent.isMade(by: descriptor) else { return }
    log.notice(
      "a change that a crash interrupted had been made",
      metadata: [
        "descriptor": "\(location.path)", "operation": "\(intent.operation.rawValue)",
        "snapshot": "\(intent.snapshot)",
      ])
    guard let request = intent.request else { return }
    let key = RequestKey(
      request.key, route: request.route, fingerprint: request.fingerprint)
    try store.write { transaction throws(ServiceError) in
      guard try transaction.answer(of: key) == nil else { return }
      try transaction.keepOutcome(
        of: key, device: intent.device, snapshot: intent.snapshot)
    }
  }

  /// A change is only made by who has the disk open: marks in the images of its chain are our own.
  private func noteOurs(
    _ intent: ChainIntent, _ descriptor: Descriptor, _ location: Roots.Location
  ) throws(ServiceError) {
    let isAttached = state.withLock { state in
      state.unfinished[intent.device] != nil || state.devices[intent.device]?.hasDisk == true
    }
    guard !isAttached,
      let deltas = try? deltas(of: descriptor, to: descriptor.topGUID, at: location)
    else { return }
    let ours = AttachIntent(id: intent.device, deltas: deltas, wasClosed: true)
    try store.write { transaction throws(ServiceError) in try transaction.begin(ours) }
    state.withLock { $0.unfinished[intent.device] = ours }
  }

  /// Ends what a crash has left of a change, before the chain is used.
  ///
  /// What a device has that is attached is its own: an intent is then one of a change that goes on.
  func settle(_ file: DescriptorFile, at location: Roots.Location) throws(ServiceError) {
    let isUsed = state.withLock { state in
      state.devices.values.contains { controller in
        controller.hasDisk && controller.now.record?.descriptor == location.path
          && controller.now.record?.readonly == false
      }
    }
    guard !isUsed else { return }
    try noteOutcome(beside: file, location)
    _ = try converting { () throws(DeviceError) in try ChainChange.settle(file) }
  }

  /// The snapshot that a request with this key has made, where a crash came before its answer.
  func outcome(of key: RequestKey, for device: String) throws(ServiceError) -> GUID? {
    let outcome = try store.read { transaction throws(ServiceError) in
      try transaction.outcome(of: key)
    }
    guard let outcome, outcome.device == device else { return nil }
    guard outcome.fingerprint == key.fingerprint else {
      throw ServiceError(
        .idempotencyKeyReused, "the key \(key.text) belongs to another request",
        remedy: "use a new key for each request")
    }
    return GUID(outcome.snapshot)
  }
}
