internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import PloopNBD

/// The disks behind exports of snapshots: each is a chain of its own, opened for reading beside the
/// live one.
struct SnapshotDoors: Sendable {
  private struct Opened: Sendable {
    let device: Device
    let owner: String
    /// The whole chain.
    let shots: Set<GUID>
  }

  private var opened: [String: Opened] = [:]

  mutating func add(_ device: Device, _ export: String, of owner: String, _ shots: Set<GUID>) {
    opened[export] = Opened(device: device, owner: owner, shots: shots)
  }

  mutating func take(_ export: String) -> Device? { opened.removeValue(forKey: export)?.device }

  mutating func takeAll(of owner: String? = nil) -> [Device] {
    let taken = opened.filter { owner == nil || $0.value.owner == owner }
    for name in taken.keys { opened[name] = nil }
    return taken.values.map(\.device)
  }

  /// The export, if any, that reads a snapshot, its own or one above it.
  func export(reading guid: GUID, of owner: String) -> String? {
    opened.filter { $0.value.owner == owner && $0.value.shots.contains(guid) }.keys.min()
  }
}

extension Service {
  /// Opens a snapshot for reading, beside whatever else uses its disk.
  func openSnapshot(
    _ guid: GUID, for export: String, of controller: DeviceController
  ) throws(ServiceError) -> Device {
    guard let record = controller.now.record, let path = record.descriptor else {
      throw ServiceError(
        .snapshotNotFound, "the device \(controller.id) has no snapshot \(guid)", errno: "ENOENT",
        pointer: "/snapshot")
    }
    // What is being merged away is gone when the export comes back.
    if let job = jobs.holder(of: controller.id),
      job.parameters["snapshot"] == .text(guid.description)
    {
      try requireNoJob(on: controller.id)
    }
    let chain: ChainPlan
    do throws(ServiceError) {
      chain = try plan(descriptor: path, at: guid, readonly: true)
    } catch {
      var error = error
      if error.pointer == "/at" { error.pointer = "/snapshot" }
      throw error
    }
    let descriptor = try read(
      try roots.locate(path, pointer: ""),
      in: try roots.folder(of: try roots.locate(path, pointer: ""), pointer: ""))
    guard guid != descriptor.topGUID else {
      throw ServiceError(
        .snapshotNotPossible, "\(guid) is the top; export the device itself", pointer: "/snapshot")
    }
    var sources: [DeltaSource] = []
    for delta in chain.deltas {
      let location = try roots.locate(delta.path, pointer: "/snapshot")
      let folder = try roots.folder(of: location, pointer: "/snapshot")
      sources.append(
        DeltaSource(
          file: try roots.open(location, in: folder, writable: false, pointer: "/snapshot"),
          folder: folder, name: location.name, isRaw: delta.isRaw))
    }
    var options = AttachOptions()
    options.readonly = true
    options.clusterBytes = chain.clusterBytes
    options.descriptorLocks = chain.locks
    let device = try converting { [sources, options] () throws(DeviceError) in
      try Device.attach(sources, options)
    }
    let shots = Set(chain.deltas.compactMap { $0.guid.flatMap { GUID($0) } })
    state.withLock { $0.snapshotDoors.add(device, export, of: controller.id, shots) }
    return device
  }

  /// Closes what is behind the doors to snapshots, all of a device's, or one. No client is inside.
  func closeSnapshots(of device: String) {
    close(state.withLock { $0.snapshotDoors.takeAll(of: device) })
  }

  func closeSnapshot(behind export: String) {
    close(state.withLock { $0.snapshotDoors.take(export) }.map { [$0] } ?? [])
  }

  func closeAllSnapshots() { close(state.withLock { $0.snapshotDoors.takeAll() }) }

  private func close(_ devices: [Device]) {
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds)
    for device in devices { try? device.detach(until: deadline) }
  }

  /// - Throws: `export-in-use` while a snapshot is read through an export.
  func requireNotExported(_ guid: GUID, of device: String) throws(ServiceError) {
    // One that could not be opened reads its snapshot again when it can be.
    let closed = record(of: device)?.exports.first { $0.snapshot == guid.description }?.name
    guard
      let export = state.withLock({ $0.snapshotDoors.export(reading: guid, of: device) }) ?? closed
    else { return }
    throw ServiceError(
      .exportInUse, "the snapshot \(guid) is read through the export \(export)",
      remedy: "DELETE that export first", errno: "EBUSY",
      holder: ServiceError.Holder(kind: "export", id: export))
  }
}
