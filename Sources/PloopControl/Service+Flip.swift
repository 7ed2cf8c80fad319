internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// The top and the delta below it change places (docs/crash-safety.md).

extension Service {
  /// Has guests write the older of the two newest deltas from now on; what they wrote so far lies beneath
  /// it. The snapshot between the two is given up.
  ///
  /// It is durable when this returns, and so is the answer that is to be kept.
  ///
  /// - Throws: `not-suspended` and `resume-not-prohibited` unless the disk is both suspended and nobody
  ///   is to resume it; `nothing-below-top`, `raw-not-allowed`, `snapshot-has-branches`,
  ///   `image-has-children`, `flip-overlap`, and what keeps a snapshot from being given up.
  package func flipTop(
    _ id: String, ifRevision: UInt64?, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo {
    try requireServing()
    let controller = try controller(id)
    let info = try await controller.run { () throws(ServiceError) in
      if let keeper, try self.outcome(of: keeper.key, for: id) != nil {
        return try self.answer(keeper, controller)
      }
      return try self.flipTop(controller, ifRevision: ifRevision, keeping: keeper)
    }
    log.info(
      "top flipped", metadata: ["device": "\(id)", "top": "\(info.deltas.last?.path ?? "")"])
    return info
  }

  private func flipTop(
    _ controller: DeviceController, ifRevision: UInt64?, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    try requireFree(controller)
    let (device, record) = try writable(controller)
    try Service.require(ifRevision, is: record.revision)
    try requireStill(record)
    let guid = try flippable(record)
    let (_, chain) = try described(controller)
    let descriptor = try read(chain.location, in: chain.file.folder)
    _ = try child(of: guid, descriptor)
    guard !keepsFile(guid, chain) else { throw Service.mayBeShared(record) }
    try requireDisposable(guid, chain)
    let made: ChainChange.Made
    do throws(DeviceError) {
      made = try change(chain, controller.id, keeper?.key).flip(
        device, giving: guid, until: .after(seconds: configuration.quiesceSeconds))
    } catch {
      writeFailure(of: controller)
      throw ServiceError(error)
    }
    return try ending(made, chain, controller) { (record, transaction) throws(ServiceError) in
      let info = self.info(of: controller.id, controller.now.with(record))
      try keeper?.keep(info, in: transaction)
      return info
    }
  }

  /// Files are put in other places: nobody uses the disk, and nobody else has it used again meanwhile.
  private func requireStill(_ record: DeviceRecord) throws(ServiceError) {
    guard record.suspended else {
      throw ServiceError(.notSuspended, "the device \(record.id) is not suspended", errno: "EBUSY")
    }
    guard record.prohibition != nil else {
      throw ServiceError(
        .resumeNotProhibited, "anybody may resume the device \(record.id)", errno: "EBUSY")
    }
  }

  /// The snapshot whose delta would be the top.
  private func flippable(_ record: DeviceRecord) throws(ServiceError) -> GUID {
    guard let below = record.deltas.dropLast().last else {
      throw ServiceError(
        .nothingBelowTop, "the device \(record.id) has one delta", errno: "ENOENT")
    }
    guard !below.isRaw else {
      throw ServiceError(
        .rawNotAllowed, "\(below.path) is raw, and can only be the oldest", errno: "EBADSLT")
    }
    guard record.descriptor != nil, let guid = below.guid.flatMap({ GUID($0) }) else {
      throw Service.mayBeShared(record)
    }
    return guid
  }

  private static func mayBeShared(_ record: DeviceRecord) -> ServiceError {
    let path = record.deltas.dropLast().last?.path ?? ""
    return ServiceError(
      .imageHasChildren, "\(path) was there before its descriptor, or has none",
      cause: "other disks may build on it, and guests would write it",
      remedy: "merge the snapshot into the top", errno: "EBUSY",
      holder: ServiceError.Holder(kind: "image", id: path))
  }
}
