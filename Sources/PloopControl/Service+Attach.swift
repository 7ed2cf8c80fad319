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

  private func open(
    _ request: AttachRequest, _ controller: DeviceController,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    var export: DeviceRecord.Export?
    if let name = request.exportName {
      let new = DeviceRecord.Export(
        name: name, readonly: request.readonly, sharedWriters: false, summary: "", revision: 0)
      try table.reserve(new, device: request.id)
      export = new
    }
    switch request.source {
    case .deltas(let references):
      let deltas = try located(references)
      let intent = try begin(AttachIntent(id: request.id, deltas: deltas, wasClosed: false))
      return try ending(intent) { () throws(ServiceError) in
        try open(deltas, request, export, controller, keeping: keeper)
      }
    case .create(let create):
      let image = try plan(create)
      let deltas = [DeviceRecord.Delta(path: image.location.path, isRaw: false)]
      let intent = try begin(
        AttachIntent(
          id: request.id, deltas: deltas, creates: image.location.path, wasClosed: true))
      return try ending(intent) { () throws(ServiceError) in
        try image.make()
        do throws(ServiceError) {
          return try open(deltas, request, export, controller, keeping: keeper)
        } catch {
          image.remove()
          throw error
        }
      }
    }
  }

  private func open(
    _ deltas: [DeviceRecord.Delta], _ request: AttachRequest, _ export: DeviceRecord.Export?,
    _ controller: DeviceController, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) throws(ServiceError) -> DeviceInfo {
    var options = AttachOptions()
    options.readonly = request.readonly
    options.suspended = request.suspended
    options.repairSafely = request.repair == .safe || wasOurs(request.id, deltas)
    let device = try openChain(deltas, for: request.id, options)
    let now = wallClockSeconds()
    let info: DeviceInfo
    do throws(ServiceError) {
      let record = DeviceRecord(
        id: request.id, uuid: UUID().uuidString.lowercased(), revision: 0, deltas: deltas,
        readonly: request.readonly, suspended: request.suspended, autostart: request.autostart,
        labels: request.labels, sizeBytes: device.geometry.sizeBytes,
        clusterBytes: device.geometry.clusterBytes, version: device.geometry.version.rawValue,
        isAttached: true, failure: nil, createdAt: now, updatedAt: now)
      info = try commit(record, of: controller, as: .deviceCreated) {
        (record, transaction) throws(ServiceError) -> DeviceInfo in
        if let export { _ = try add(export, to: &record, in: transaction) }
        try transaction.endIntent(of: request.id)
        let facts = DeviceController.Facts(
          phase: .attached(device), record: record, since: now, attachedAt: now)
        let info = self.info(of: request.id, facts)
        try keeper?.keep(info, in: transaction)
        return info
      }
    } catch {
      try? device.detach(until: .after(seconds: configuration.quiesceSeconds))
      throw error
    }
    state.withLock { state in
      state.unclosed[request.id] = nil
      state.unfinished[request.id] = nil
    }
    serve(device, controller)
    log.info(
      "attached",
      metadata: [
        "device": "\(request.id)", "top": "\(deltas.last?.path ?? "")",
        "deltas": "\(deltas.count)", "repairs": "\(device.repairs.count)",
      ])
    return info
  }

  /// Opens the doors of a device that has just been attached.
  func serve(_ device: Device, _ controller: DeviceController) {
    controller.enter(.attached(device))
    for export in controller.now.record?.exports ?? [] {
      table.open(
        export, DeviceExport(device, readonly: export.readonly, summary: export.summary))
    }
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

  /// Opens the files, keeps other devices from them, and attaches the disk.
  func openChain(
    _ deltas: [DeviceRecord.Delta], for id: String, _ options: AttachOptions
  ) throws(ServiceError) -> Device {
    var sources: [DeltaSource] = []
    var files: [(location: Roots.Location, identity: FileIdentity?)] = []
    for (level, delta) in deltas.enumerated() {
      let pointer = "/deltas/\(level)/path"
      let location = try roots.locate(delta.path, pointer: pointer)
      let folder = try roots.folder(of: location, pointer: pointer)
      let isWritten = level == deltas.count - 1 && !options.readonly
      let file = try roots.open(location, in: folder, writable: isWritten, pointer: pointer)
      sources.append(
        DeltaSource(file: file, folder: folder, name: location.name, isRaw: delta.isRaw))
      files.append((location, file.identity))
    }
    try state.withLock { [files] state throws(ServiceError) in
      try state.files.claim(files, for: id, readonly: options.readonly)
    }
    do throws(ServiceError) {
      return try converting { () throws(DeviceError) in try Device.attach(sources, options) }
    } catch {
      state.withLock { $0.files.release(id) }
      throw error
    }
  }
}

/// An image that is made for a device, and can be unmade while nobody has used it.
private struct NewImage {
  let location: Roots.Location
  let folder: ImageFolder
  let geometry: Geometry
  /// An attempt of ours that a crash has ended is in its place, and nobody's bytes.
  let replacesOurs: Bool

  func make() throws(ServiceError) {
    if replacesOurs { remove() }
    try converting { () throws(DeviceError) in
      try ImageCreator.create(in: folder, name: location.name, geometry: geometry)
    }
  }

  func remove() {
    try? folder.unlink(location.name)
    try? folder.sync()
  }
}

extension Service {
  /// The name of a new disk's image in its folder, as OpenVZ's tools have it.
  private static let imageName = "root.hds"

  /// Everything that can be refused about a new image, before it is made.
  private func plan(_ create: AttachRequest.CreateRequest) throws(ServiceError) -> NewImage {
    let geometry = try Service.geometry(create)
    let location = try roots.locate(create.directory, pointer: "/create/directory")
      .appending(Service.imageName)
    let needed = geometry.headerBytes + geometry.clusterBytes
    if let free = roots.freeBytes(of: location.root), free < needed {
      throw ServiceError(
        .insufficientSpace, "\(location.path) needs \(needed) bytes; \(free) are free",
        errno: "ENOSPC", facts: ["required_bytes": .number(needed), "free_bytes": .number(free)])
    }
    let folder = try roots.makeFolder(of: location, pointer: "/create/directory")
    let isThere = folder.contains(location.name)
    guard !isThere || wasBegun(location, in: folder) else {
      throw ServiceError(
        .imageExists, "\(location.path) exists", remedy: "attach it, or choose another directory",
        errno: "EEXIST", pointer: "/create/directory")
    }
    return NewImage(
      location: location, folder: folder, geometry: geometry, replacesOurs: isThere)
  }

  private static func geometry(
    _ create: AttachRequest.CreateRequest
  ) throws(ServiceError) -> Geometry {
    do throws(NewDiskFault) {
      return try Geometry(
        newDisk: create.version, clusterBytes: create.clusterBytes, sizeBytes: create.sizeBytes)
    } catch {
      switch error {
      case .clusterSize:
        throw ServiceError(
          .invalidValue, "a cluster is a power of two from 4096 to 67108864 bytes",
          pointer: "/create/cluster_size")
      case .empty:
        throw ServiceError(.invalidValue, "the disk has no bytes", pointer: "/create/size")
      case .tooLarge(let limit):
        throw ServiceError(
          .sizeTooLarge,
          "\(create.sizeBytes) bytes; with clusters of \(create.clusterBytes) bytes \(limit) are the most",
          errno: "EINVAL", pointer: "/create/size", facts: ["limit_bytes": .number(limit)])
      case .misaligned(let nearest):
        throw ServiceError(
          .sizeMisaligned,
          "\(create.sizeBytes) bytes are no whole number of clusters of \(create.clusterBytes) bytes",
          errno: "EINVAL", pointer: "/create/size", facts: ["nearest": .numbers(nearest)])
      }
    }
  }
}
