internal import Logging
internal import PloopDevice
internal import PloopIO

// Chains that are put together by hand, as the kernel's driver has them put together
// (docs/crash-safety.md, "A chain without descriptor").

extension Service {
  /// Puts a delta directly below a disk's top.
  ///
  /// It is durable when this returns, and so is the answer that is to be kept.
  package func addDelta(
    _ id: String, _ request: AttachRequest.DeltaReference, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeltaAdded>?
  ) async throws(ServiceError) -> DeltaAdded {
    try requireServing()
    let controller = try controller(id)
    let added = try await controller.run { () throws(ServiceError) in
      try self.add(request, to: controller, ifRevision: ifRevision, keeping: keeper)
    }
    log.info(
      "delta added",
      metadata: ["device": "\(id)", "path": "\(added.delta.path)", "level": "\(added.delta.level)"])
    return added
  }

  private func add(
    _ request: AttachRequest.DeltaReference, to controller: DeviceController,
    ifRevision: UInt64?, keeping keeper: AnswerKeeper<DeltaAdded>?
  ) throws(ServiceError) -> DeltaAdded {
    let (device, record) = try listed(controller, ifRevision: ifRevision)
    let location = try roots.locate(request.path, pointer: "/path")
    let folder = try roots.folder(of: location, pointer: "/path")
    let file = try roots.open(location, in: folder, writable: false, pointer: "/path")
    let level = record.deltas.count - 1
    guard level < configuration.limits.maxReadOnlyDeltas else {
      throw ServiceError(
        .tooManyDeltas, "the device \(record.id) has \(level) read-only deltas; that is the limit",
        errno: "EMFILE", pointer: "/path")
    }
    var after = record
    after.deltas.insert(
      DeviceRecord.Delta(path: location.path, isRaw: request.isRaw), at: level)
    let source = DeltaSource(
      file: file, folder: folder, name: location.name, isRaw: request.isRaw)
    do throws(ServiceError) {
      try claimLower(location, file, for: record.id)
      return try recording { (noting) throws(DeviceError) in
        try device.addDelta(source, until: .after(seconds: configuration.quiesceSeconds)) {
          (levels) throws(DeviceError) in
          try noting { () throws(ServiceError) in
            try commit(after, of: controller, as: .deviceChanged) {
              (record, transaction) throws(ServiceError) in
              let added = DeltaAdded(
                device: record.id, delta: Service.deltas(levels, record)[level],
                revision: record.revision)
              try keeper?.keep(added, in: transaction)
              return added
            }
          }
        }
      } show: {
        claimAnew(after)
      }
    } catch {
      claimAnew(record)
      throw error.pointing(at: "/path")
    }
  }

  /// A disk that has no descriptor: its chain is what its record says.
  private func listed(
    _ controller: DeviceController, ifRevision: UInt64?
  ) throws(ServiceError) -> (Device, DeviceRecord) {
    let (device, record) = try changeableByHand(controller, ifRevision: ifRevision)
    if let path = record.descriptor {
      throw ServiceError(
        .descriptorExists, "the chain of \(record.id) is what \(path) says",
        cause: "a descriptor names all deltas of a disk; another one would change every snapshot",
        remedy: "attach the top by \"deltas\", suspended, and add deltas to that",
        holder: ServiceError.Holder(kind: "descriptor", id: path))
    }
    return (device, record)
  }

  /// A disk whose chain is not being changed by anybody; one that is only read may be.
  func changeableByHand(
    _ controller: DeviceController, ifRevision: UInt64?
  ) throws(ServiceError) -> (Device, DeviceRecord) {
    try requireFree(controller)
    let device = try controller.device()
    guard let record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    try Service.require(ifRevision, is: record.revision)
    if let failure = device.failure { throw ServiceError(.ioError, failure, errno: "EIO") }
    try requireChecked(device)
    return (device, record)
  }

  /// Notes that a file is to be a lower delta of a device, or says who is in the way.
  func claimLower(
    _ location: Roots.Location, _ file: ImageFile, for device: String
  ) throws(ServiceError) {
    try state.withLock { state throws(ServiceError) in
      try state.files.claim(
        [(location, file.identity)], for: .device(device), readonly: true, hasTop: false)
    }
  }

  /// Changes a chain that only the record names: what is noted inside is the moment of the change.
  ///
  /// - Parameter show: what else follows from the change.
  /// - Returns: what was noted.
  func recording<Result>(
    _ change: (
      _ noting: (() throws(ServiceError) -> Result) throws(DeviceError) -> Void
    ) throws(DeviceError) -> Void, show: () -> Void
  ) throws(ServiceError) -> Result {
    var result: Swift.Result<Result, ServiceError>?
    do throws(DeviceError) {
      try change { (note) throws(DeviceError) in
        do throws(ServiceError) { result = .success(try note()) } catch {
          result = .failure(error)
          throw DeviceError(.refused(.unrecorded), error.detail)
        }
      }
    } catch {
      if case .failure(let refusal)? = result { throw refusal }
      throw ServiceError(error)
    }
    guard let result else {
      throw ServiceError(.ioError, "a change of a chain was not written down")
    }
    show()
    return try result.get()
  }
}

extension ServiceError {
  /// An error about the one file that a request names.
  func pointing(at member: String) -> ServiceError {
    var error = self
    if pointer == "/deltas" || code == .imageInUse { error.pointer = member }
    return error
  }
}
