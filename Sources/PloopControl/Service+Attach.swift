internal import FoundationEssentials
internal import Logging
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

extension Service {
  /// Opens a disk, remembers it, and serves it.
  ///
  /// The order: names are taken in memory; the image is created if asked for; the chain is checked,
  /// repaired if asked for and marked as in use (`Device.attach`); the record is durable; the export
  /// is opened; the caller is answered. A crash before the record is durable leaves an image with
  /// its in-use mark and no device: the caller was told nothing, and attaches it with safe repair.
  package func attach(_ request: AttachRequest) async throws(ServiceError) -> DeviceInfo {
    try Names.require(request.id, as: "the id", pointer: "/id")
    try Names.require(labels: request.labels)
    if let name = request.exportName {
      try Names.require(name, as: "the export", pointer: "/export/name")
    }
    let controller = try reserve(request.id)
    do throws(ServiceError) {
      try await controller.run { () throws(ServiceError) in try self.open(request, controller) }
    } catch {
      forget(request.id)
      log.info(
        "attach refused",
        metadata: ["device": "\(request.id)", "code": "\(error.code.rawValue)"])
      throw error
    }
    return info(of: controller)
  }

  private func open(
    _ request: AttachRequest, _ controller: DeviceController
  ) throws(ServiceError) {
    var export: DeviceRecord.Export?
    if let name = request.exportName {
      let new = DeviceRecord.Export(
        name: name, readonly: request.readonly, sharedWriters: false, summary: "",
        revision: try store.nextRevision())
      try table.reserve(new, device: request.id)
      export = new
    }
    var created: CreatedImage?
    do throws(ServiceError) {
      let chain: ChainPlan
      switch request.source {
      case .deltas(let references):
        chain = ChainPlan(deltas: try located(references), readonly: request.readonly)
      case .descriptor(let reference):
        chain = try plan(
          descriptor: reference.path, at: reference.snapshot, readonly: request.readonly)
      case .create(let create):
        let image = try make(create)
        created = image
        chain = try plan(descriptor: image.descriptor.path, at: nil, readonly: request.readonly)
      }
      try open(chain, request, export, controller)
    } catch {
      created?.remove()
      throw error
    }
  }

  private func open(
    _ chain: ChainPlan, _ request: AttachRequest, _ export: DeviceRecord.Export?,
    _ controller: DeviceController
  ) throws(ServiceError) {
    var options = AttachOptions()
    options.readonly = chain.readonly
    options.suspended = request.suspended
    options.repairSafely = request.repair == .safe || wasOurs(request.id, chain.deltas)
    let device = try openChain(chain, for: request.id, options)
    let now = wallClockSeconds()
    do throws(ServiceError) {
      var record = DeviceRecord(
        id: request.id, uuid: UUID().uuidString.lowercased(), revision: 0, deltas: chain.deltas,
        descriptor: chain.descriptor?.path, snapshot: chain.snapshot?.description,
        readonly: chain.readonly, suspended: request.suspended, autostart: request.autostart,
        labels: request.labels, sizeBytes: device.geometry.sizeBytes,
        clusterBytes: device.geometry.clusterBytes, version: device.geometry.version.rawValue,
        isAttached: true, failure: nil, createdAt: now, updatedAt: now)
      record.exports = export.map { [$0] } ?? []
      try commit(record, of: controller)
    } catch {
      try? device.detach(until: .after(seconds: configuration.quiesceSeconds))
      throw error
    }
    state.withLock { _ = $0.unclosed.removeValue(forKey: request.id) }
    serve(device, controller)
    log.info(
      "attached",
      metadata: [
        "device": "\(request.id)", "top": "\(chain.deltas.last?.path ?? "")",
        "deltas": "\(chain.deltas.count)", "repairs": "\(device.repairs.count)",
      ])
  }

  /// Opens the doors of a device that has just been attached.
  func serve(_ device: Device, _ controller: DeviceController) {
    controller.enter(.attached(device))
    for export in controller.now.record?.exports ?? [] {
      table.open(
        export.name, DeviceExport(device, readonly: export.readonly, summary: export.summary))
    }
  }

  /// Whether an image that was not closed was left so by this service itself.
  private func wasOurs(_ id: String, _ deltas: [DeviceRecord.Delta]) -> Bool {
    let ours = state.withLock { $0.unclosed[id] }
    return ours.map { Service.haveSameFiles($0.deltas, deltas) } ?? false
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

/// An image that was made for a device, and can be unmade while nobody has used it.
private struct CreatedImage {
  let location: Roots.Location
  let descriptor: Roots.Location
  let folder: ImageFolder

  func remove() {
    for name in [descriptor.name, "\(descriptor.name).lck", location.name] {
      try? folder.unlink(name)
    }
    try? folder.sync()
  }
}

extension Service {
  /// The name of a new disk's image in its folder, as OpenVZ's tools have it.
  private static let imageName = "root.hds"

  private func make(_ create: AttachRequest.CreateRequest) throws(ServiceError) -> CreatedImage {
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
    let descriptor = location.sibling(Descriptor.fileName)
    for file in [location, descriptor] where folder.contains(file.name) {
      throw ServiceError(
        .imageExists, "\(file.path) exists", remedy: "attach it, or choose another directory",
        errno: "EEXIST", pointer: "/create/directory")
    }
    let created = CreatedImage(location: location, descriptor: descriptor, folder: folder)
    try converting { () throws(DeviceError) in
      try ImageCreator.create(in: folder, name: location.name, geometry: geometry)
      do throws(DeviceError) {
        try DescriptorFile(in: folder, name: descriptor.name)
          .replace(with: Descriptor(new: geometry, file: location.name))
      } catch {
        created.remove()
        throw error
      }
    }
    return created
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
