internal import FoundationEssentials
internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

extension Service {
  /// Opens a disk, remembers it, and serves it.
  ///
  /// The order: names are taken in memory; the intent is durable; the image is created if asked for;
  /// the chain is checked, repaired if asked for and marked as in use (`Device.attach`); the record
  /// is durable, and with it the answer that is to be kept, and the end of the intent; the export is
  /// opened; the caller is answered. A crash before the record is durable leaves an image and no
  /// device: the intent says that the image is as we left it, so the same request does it all.
  package func attach(
    _ request: AttachRequest, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo {
    try Names.require(request.id, as: "the id", pointer: "/id")
    try Names.require(labels: request.labels)
    if let name = request.exportName {
      try Names.require(name, as: "the export", pointer: "/export/name")
      if let access = request.exportAccess { try require(access, within: "/export") }
    }
    let controller = try reserve(request.id)
    do throws(ServiceError) {
      return try await controller.run { () throws(ServiceError) in
        try self.open(request, controller, keeping: keeper)
      }
    } catch {
      forget(request.id)
      log.info(
        "attach refused",
        metadata: ["device": "\(request.id)", "code": "\(error.code.rawValue)"])
      throw error
    }
  }

  /// Attaches what the request says, for a controller that was reserved for it.
  func open(
    _ request: AttachRequest, _ controller: DeviceController,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    try claiming(request.id) { () throws(ServiceError) in
      try openOurs(request, controller, keeping: keeper)
    }
  }

  private func openOurs(
    _ request: AttachRequest, _ controller: DeviceController,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    var export: DeviceRecord.Export?
    if let name = request.exportName {
      let new = DeviceRecord.Export(
        name: name, readonly: request.readonly, sharedWriters: false, summary: "", revision: 0,
        access: request.exportAccess)
      try fleet?.requireFree(export: name, for: request.id)
      try table.reserve(new, device: request.id)
      export = new
    }
    switch request.source {
    case .deltas(let references):
      return try open(
        ChainPlan(deltas: try located(references), readonly: request.readonly), request, export,
        controller, keeping: keeper)
    case .descriptor(let reference):
      let chain = try plan(
        descriptor: reference.path, at: reference.snapshot, readonly: request.readonly)
      return try open(chain, request, export, controller, keeping: keeper)
    case .create(let create):
      let image = try plan(create, for: request.id)
      let intent = try begin(
        AttachIntent(
          id: request.id, deltas: [DeviceRecord.Delta(path: image.location.path, isRaw: false)],
          creates: image.location.path, wasClosed: true))
      return try ending(intent) { () throws(ServiceError) in
        try image.make()
        do throws(ServiceError) {
          let chain = try plan(
            descriptor: image.descriptor.path, at: nil, readonly: request.readonly)
          return try serve(chain, request, export, controller, keeping: keeper)
        } catch {
          image.remove()
          throw error
        }
      }
    }
  }

  /// A chain that is there.
  private func open(
    _ chain: ChainPlan, _ request: AttachRequest, _ export: DeviceRecord.Export?,
    _ controller: DeviceController, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    let intent = try begin(
      AttachIntent(id: request.id, deltas: chain.deltas, wasClosed: false))
    return try ending(intent) { () throws(ServiceError) in
      try serve(chain, request, export, controller, keeping: keeper)
    }
  }

  private func serve(
    _ chain: ChainPlan, _ request: AttachRequest, _ export: DeviceRecord.Export?,
    _ controller: DeviceController, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    var options = AttachOptions()
    options.readonly = chain.readonly
    options.suspended = request.suspended
    options.repairSafely = request.repair == .safe || wasOurs(request.id, chain.deltas)
    options.bitmapsInImage = request.bitmapsInImage
    let device = try openChain(chain, for: request.id, options)
    lookAtNotes(chain, of: request.id)
    let now = wallClockSeconds()
    let finished = intents(finishedBy: request.id, chain.deltas)
    let info: DeviceInfo
    do throws(ServiceError) {
      let record = DeviceRecord(
        id: request.id, uuid: UUID().uuidString.lowercased(), revision: 0, deltas: chain.deltas,
        descriptor: chain.descriptor?.path, snapshot: chain.snapshot?.description,
        readonly: chain.readonly, suspended: request.suspended,
        suspension: request.suspended ? Suspension(holder: request.caller, since: now) : nil,
        autostart: request.autostart,
        labels: request.labels, sizeBytes: device.geometry.sizeBytes,
        clusterBytes: device.geometry.clusterBytes, version: device.geometry.version.rawValue,
        isAttached: true, bitmapsInImage: request.bitmapsInImage ? true : nil,
        incoming: request.incoming, failure: nil,
        createdAt: now, updatedAt: now)
      info = try commit(
        record, of: controller, as: .deviceCreated, adding: export, entering: .attached(device),
        show: { _ in openDoors(to: device, controller) }
      ) { (record, transaction) throws(ServiceError) -> DeviceInfo in
        for id in finished { try transaction.endIntent(of: id) }
        let facts = DeviceController.Facts(
          phase: .attached(device), record: record, since: now, attachedAt: now)
        let info = self.info(of: request.id, facts)
        try keeper?.keep(info, in: transaction)
        return info
      }
    } catch {
      let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
      if isOurs(request.id)() {
        try? device.detach(until: deadline)
      } else {
        try? device.abandon(until: deadline)
      }
      throw error
    }
    state.withLock { state in
      state.unclosed[request.id] = nil
      for id in finished { state.unfinished[id] = nil }
    }
    log.info(
      "attached",
      metadata: [
        "device": "\(request.id)", "top": "\(chain.deltas.last?.path ?? "")",
        "deltas": "\(chain.deltas.count)", "repairs": "\(device.repairs.count)",
      ])
    return info
  }

  /// Lets clients in to a device that has just been attached.
  func openDoors(to device: Device, _ controller: DeviceController) {
    for export in controller.now.record?.exports ?? [] {
      do throws(ServiceError) {
        table.open(export, try door(export, to: device, controller))
      } catch {
        // The export stays, and lets nobody in.
        log.error(
          "an export of a snapshot cannot be opened",
          metadata: ["export": "\(export.name)", "reason": "\(error.detail)"])
      }
    }
  }

  static func haveSameFiles(_ one: [DeviceRecord.Delta], _ other: [DeviceRecord.Delta]) -> Bool {
    one.count == other.count && zip(one, other).allSatisfy { $0.hasSameFile(as: $1) }
  }

  private func located(
    _ references: [AttachRequest.DeltaReference]
  ) throws(ServiceError) -> [DeviceRecord.Delta] {
    let limit = configuration.limits.maxReadOnlyDeltas + 1
    guard references.count <= limit else {
      throw ServiceError(
        .tooManyDeltas, "\(references.count) deltas; \(limit - 1) under one top are the most",
        errno: "EMFILE", pointer: "/deltas")
    }
    var deltas: [DeviceRecord.Delta] = []
    for (level, reference) in references.enumerated() {
      let location = try roots.locate(reference.path, pointer: "/deltas/\(level)/path")
      deltas.append(DeviceRecord.Delta(path: location.path, isRaw: reference.isRaw))
    }
    return deltas
  }
}
