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
  /// - Parameters:
  ///   - job: the one that changes it; nobody else may have it.
  ///   - isBesideBackup: whether a backup that copies it is in nobody's way.
  func changeable(
    _ controller: DeviceController, ifRevision: UInt64?, by job: String? = nil,
    isBesideBackup: Bool = false
  ) throws(ServiceError) -> (Device, ChangeableChain) {
    try requireFree(controller, but: job ?? (isBesideBackup ? backup(of: controller) : nil))
    if let record = controller.now.record { try Service.require(ifRevision, is: record.revision) }
    if let device = try? controller.device() { try requireChecked(device) }
    return try described(controller)
  }

  /// Waits for the check of a disk's index, if there is one, before anything is written down; not for long, since the
  /// detach that would give it up comes behind whoever has the disk's turn.
  ///
  /// - Throws: `drain-timeout`.
  func requireChecked(_ device: Device) throws(ServiceError) {
    try converting { () throws(DeviceError) in
      try device.requireChecked(until: .after(seconds: configuration.quiesceSeconds))
    }
  }

  /// The job, if any, that copies a device. What it reads stays where it is when a snapshot is taken.
  private func backup(of controller: DeviceController) -> String? {
    jobs.holder(of: controller.id).flatMap {
      [BackupJob.type, CloneJob.type, ExportJob.type].contains($0.type) ? $0.id : nil
    }
  }

  /// The same, whoever has the device.
  ///
  /// - Parameter isAsItWas: whether the descriptor has to have the chain that the disk has; another
  ///   program may have changed it on purpose.
  func described(
    _ controller: DeviceController, isAsItWas: Bool = true
  ) throws(ServiceError) -> (Device, ChangeableChain) {
    let (device, record) = try writable(controller)
    guard let path = record.descriptor else {
      return (device, try describe(record, device, controller))
    }
    let location = try roots.locate(path, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let file = DescriptorFile(in: folder, name: location.name)
    try noteOutcome(beside: file, location)
    if isAsItWas {
      let descriptor = try read(location, in: folder)
      try requireSame(
        try deltas(of: descriptor, to: descriptor.topGUID, at: location), record, location)
    }
    return (device, ChangeableChain(device: record.id, file: file, location: location))
  }

  /// The disk, if its chain can be changed at all.
  ///
  /// - Throws: `device-read-only`; `io-error` for one that takes no more writes; as
  ///   ``DeviceController/device()``.
  func writable(
    _ controller: DeviceController
  ) throws(ServiceError) -> (Device, DeviceRecord) {
    let device = try controller.device()
    guard let record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    guard !device.isReadOnly else {
      throw ServiceError(
        .deviceReadOnly, "the device \(record.id) is attached for reading", errno: "EROFS")
    }
    if let failure = device.failure { throw ServiceError(.ioError, failure, errno: "EIO") }
    return (device, record)
  }

  /// - Throws: `descriptor-exists` where a descriptor has another chain than the disk: somebody has
  ///   replaced it, whatever its lock says.
  func requireSame(
    _ deltas: [DeviceRecord.Delta], _ record: DeviceRecord, _ location: Roots.Location
  ) throws(ServiceError) {
    guard !Service.haveSameFiles(deltas, record.deltas) else { return }
    throw ServiceError(
      .descriptorExists, "\(location.path) describes another chain than that of \(record.id)",
      cause: "the chain of a disk is changed through its descriptor",
      errno: "EEXIST", holder: .init(kind: "descriptor", id: location.path))
  }

  func change(
    _ chain: ChangeableChain, _ device: String, _ key: RequestKey?
  ) -> ChainChange {
    ChainChange(
      of: chain.file, device: device,
      request: key.map {
        ChainIntent.Request(key: $0.text, route: $0.route, fingerprint: $0.fingerprint)
      }, helpers: .engine(engine), isOurs: isOurs(device))
  }

  /// Tells whether a device is still ours, where others may have it; nil for whatever has no device.
  func isOurs(_ device: String?) -> @Sendable () -> Bool {
    guard let fleet, let device else { return { true } }
    let lease = fleet.lease(of: device)
    return { lease.isHeld }
  }

  /// Writes down what a change has made of the device, and then removes what nobody needs any more.
  func ending<Result>(
    _ made: ChainChange.Made, _ chain: ChangeableChain, _ controller: DeviceController,
    _ more: (DeviceRecord, StateTransaction) throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    defer { made.settleDown() }
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
    // Before: files are opened for it, which may take its time.
    let files = identified(record.deltas)
    state.withLock { state in
      state.files.release(.device(record.id))
      try? state.files.claim(files, for: .device(record.id), readonly: record.readonly)
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

  func descriptorLock(of chain: ChangeableChain) throws(ServiceError) -> DescriptorLock? {
    do throws(LockError) {
      return try descriptorLocks.acquire(
        chain.location.name, in: chain.file.folder, exclusive: true)
    } catch { throw ServiceError(DeviceError(error)) }
  }
}
