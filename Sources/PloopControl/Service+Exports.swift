internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import PloopNBD

extension Service {
  package func exports(after: String?, limit: Int) async -> Page<ExportInfo> {
    let revision = store.shownRevision
    let all = table.entries().filter { entry in after.map { entry.record.name > $0 } ?? true }
    let items = all.prefix(limit).compactMap { entry in
      record(of: entry.device).map { info(of: entry.record, $0) }
    }
    return Page(
      items: items, next: all.count > limit ? items.last?.name : nil,
      revision: revision)
  }

  package func export(_ name: String) async throws(ServiceError) -> ExportInfo {
    try exportInfo(name)
  }

  private func exportInfo(_ name: String) throws(ServiceError) -> ExportInfo {
    guard let entry = table.entry(name), let record = record(of: entry.device) else {
      throw ServiceError(
        .exportNotFound, "there is no export \(name.prefix(80))", errno: "ENOENT")
    }
    return info(of: entry.record, record)
  }

  /// Opens a further door to a disk; it is durable when this returns, and so is the answer that is
  /// to be kept.
  package func addExport(
    _ request: ExportRequest, keeping keeper: AnswerKeeper<ExportInfo>?
  ) async throws(ServiceError) -> ExportInfo {
    try Names.require(request.name, as: "the export", pointer: "/name")
    guard request.summary.characterCount <= 1024 else {
      throw ServiceError(
        .invalidValue, "a description has at most 1024 characters", pointer: "/description")
    }
    if let access = request.access { try require(access) }
    try requireServing()
    let controller = try controller(request.device)
    return try await controller.run { () throws(ServiceError) in
      try self.open(request, of: controller, keeping: keeper)
    }
  }

  /// - Throws: where nobody could be meant by the rules, or none of this service's listeners could let anybody in by them.
  ///
  /// - Parameter pointer: to the member of the request that has them.
  func require(_ access: ExportAccess, within pointer: String = "") throws(ServiceError) {
    try access.validate(within: pointer)
    let doors = state.withLock { $0.listeners.map(\.security) }
    guard !access.needsTLS || doors.contains(where: { $0.mode != .off }) else {
      throw ServiceError(
        .valueImpossible, "this service serves nobody by TLS",
        cause: "it has no certificates or keys",
        remedy: "set nbd-tls-certificates or nbd-tls-psk", pointer: "\(pointer)/access")
    }
    guard access.names == nil || doors.contains(where: \.vouchesForNames) else {
      throw ServiceError(
        .valueImpossible, "nobody vouches for any name here",
        cause: "there are neither authorities of clients nor pre-shared keys",
        remedy: "put a ca-cert.pem beside the certificates, or set nbd-tls-psk",
        pointer: "\(pointer)/access/names")
    }
  }

  private func open(
    _ request: ExportRequest, of controller: DeviceController,
    keeping keeper: AnswerKeeper<ExportInfo>?
  ) throws(ServiceError) -> ExportInfo {
    let device = try controller.device()
    guard let record = controller.now.record else {
      throw ServiceError(.deviceBusy, "the device \(controller.id) is going", errno: "EBUSY")
    }
    let export = DeviceRecord.Export(
      name: request.name,
      readonly: request.readonly || device.isReadOnly || request.snapshot != nil,
      sharedWriters: request.sharedWriters, summary: request.summary, revision: 0,
      snapshot: request.snapshot?.description, access: request.access)
    try fleet?.requireFree(export: export.name, for: controller.id)
    try table.reserve(export, device: controller.id)
    do throws(ServiceError) {
      let door = try self.door(export, to: device, controller)
      return try commit(
        record, of: controller, as: .deviceChanged, adding: export,
        show: { added, _ in table.open(added, door) },
        { (record, transaction) throws(ServiceError) -> (DeviceRecord.Export, ExportInfo) in
          let added = record.exports.last ?? export
          var info = self.info(of: added, record)
          info.sizeBytes = door.size
          try keeper?.keep(info, in: transaction)
          return (added, info)
        }
      ).1
    } catch {
      table.remove(export.name)
      closeSnapshot(behind: export.name, of: controller.id)
      throw error
    }
  }

  /// What is behind an export: the device's own disk, or a snapshot that is opened for it.
  func door(
    _ export: DeviceRecord.Export, to device: Device, _ controller: DeviceController
  ) throws(ServiceError) -> DeviceExport {
    var disk = device
    if let guid = export.snapshot.flatMap({ GUID($0) }) {
      disk = try openSnapshot(guid, for: export.name, of: controller)
    }
    return DeviceExport(
      disk, readonly: export.readonly, summary: export.summary, throttle: controller.throttle,
      lease: fleet?.lease(of: controller.id))
  }

  /// Closes a door; it stays closed after a restart.
  package func removeExport(
    _ name: String, mode: DetachMode, ifRevision: UInt64?
  ) async throws(ServiceError) {
    try requireServing()
    let info = try exportInfo(name)
    let controller = try controller(info.device)
    try await controller.run { () throws(ServiceError) in
      try self.close(name, of: controller, mode: mode, ifRevision: ifRevision)
    }
  }

  private func close(
    _ name: String, of controller: DeviceController, mode: DetachMode, ifRevision: UInt64?
  ) throws(ServiceError) {
    guard var record = controller.now.record,
      let export = record.exports.first(where: { $0.name == name })
    else { throw ServiceError(.exportNotFound, "there is no export \(name)", errno: "ENOENT") }
    try Service.require(ifRevision, is: export.revision)
    try closeDoors([name], mode, refusal: .exportInUse, of: "the export \(name)")
    do throws(ServiceError) {
      try dropClients(of: [name], until: .after(seconds: configuration.quiesceSeconds))
      record.exports.removeAll { $0.name == name }
      try commit(
        record, of: controller, as: .deviceChanged, show: { table.remove(name) }
      ) { record, transaction throws(ServiceError) in
        try transaction.note(
          .exportDeleted, name, device: record.id, at: try transaction.nextRevision())
      }
    } catch {
      table.set([name], open: true)
      throw error
    }
    closeSnapshot(behind: name, of: controller.id)
    waiting.changed([.export(name)])
  }
}
