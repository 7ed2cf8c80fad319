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

  mutating func takeAll(of owner: String) -> [Device] {
    let taken = opened.filter { $0.value.owner == owner }
    for name in taken.keys { opened[name] = nil }
    return taken.values.map(\.device)
  }

  /// The export, if any, that reads a snapshot, its own or one above it.
  func export(reading guid: GUID, of owner: String) -> String? {
    opened.filter { $0.value.owner == owner && $0.value.shots.contains(guid) }.keys.min()
  }
}

/// A snapshot that is open for reading.
struct OpenSnapshot: Sendable {
  let guid: GUID
  let device: Device
  /// All snapshots that it builds on, oldest first, and itself.
  let shots: [GUID]
}

extension Service {
  /// Opens a snapshot for an export, beside whatever else uses its disk.
  func openSnapshot(
    _ guid: GUID, for export: String, of controller: DeviceController
  ) throws(ServiceError) -> Device {
    let snapshot = try openSnapshot(
      guid, for: .export(export, of: controller.id), of: controller, pointer: "/snapshot")
    state.withLock {
      $0.snapshotDoors.add(snapshot.device, export, of: controller.id, Set(snapshot.shots))
    }
    return snapshot.device
  }

  /// Opens a snapshot for reading.
  ///
  /// - Parameter pointer: to the member of a request that names it.
  func openSnapshot(
    _ guid: GUID, for user: FileRegistry.User, of controller: DeviceController, pointer: String
  ) throws(ServiceError) -> OpenSnapshot {
    let chain = try snapshotChain(guid, of: controller, pointer: pointer)
    let sources = try claim(chain, for: user)
    var options = AttachOptions()
    options.readonly = true
    options.clusterBytes = chain.clusterBytes
    options.indexCache = indexCache
    options.descriptorLocks = chain.locks
    let device = try converting { [options] () throws(DeviceError) in
      try Device.attach(sources, options)
    }
    return OpenSnapshot(
      guid: guid, device: device, shots: chain.deltas.compactMap { $0.guid.flatMap { GUID($0) } })
  }

  /// The files of a snapshot.
  func snapshotChain(
    _ guid: GUID, of controller: DeviceController, pointer: String
  ) throws(ServiceError) -> ChainPlan {
    guard let record = controller.now.record, let path = record.descriptor else {
      throw ServiceError(
        .snapshotNotFound, "the device \(controller.id) has no snapshot \(guid)", errno: "ENOENT",
        pointer: pointer)
    }
    let chain: ChainPlan
    do throws(ServiceError) {
      chain = try plan(descriptor: path, at: guid, readonly: true)
    } catch {
      var error = error
      if error.pointer == "/at" { error.pointer = pointer }
      throw error
    }
    let descriptor = try read(
      try roots.locate(path, pointer: ""),
      in: try roots.folder(of: try roots.locate(path, pointer: ""), pointer: ""))
    guard guid != descriptor.topGUID else {
      throw ServiceError(
        .snapshotNotPossible, "\(guid) is the top; take the device itself", pointer: pointer)
    }
    guard chain.deltas.contains(where: { !$0.isRaw }) else {
      throw ServiceError(
        .snapshotNotPossible,
        "\(guid) is a raw file alone, which is no disk of its own: \(chain.deltas.last?.path ?? "")",
        remedy: "take its file: {\"from\":{\"image\":…,\"format\":\"raw\"}}", pointer: pointer)
    }
    return chain
  }

  /// Opens the files of a snapshot's chain and keeps others from writing them. A file that cannot be
  /// opened is kept from them as well: the export wants it again when it can be.
  @discardableResult
  func claim(
    _ chain: ChainPlan, for user: FileRegistry.User
  ) throws(ServiceError) -> [DeltaSource] {
    var sources: [DeltaSource] = []
    var files: [(location: Roots.Location, identity: FileIdentity?)] = []
    var refusal: ServiceError?
    for delta in chain.deltas {
      let location = try roots.locate(delta.path, pointer: "/snapshot")
      var identity: FileIdentity?
      do throws(ServiceError) {
        let folder = try roots.folder(of: location, pointer: "/snapshot")
        let file = try roots.open(location, in: folder, writable: false, pointer: "/snapshot")
        identity = file.identity
        sources.append(
          DeltaSource(file: file, folder: folder, name: location.name, isRaw: delta.isRaw))
      } catch { refusal = refusal ?? error }
      files.append((location, identity))
    }
    try state.withLock { [files] state throws(ServiceError) in
      state.files.release(user)
      try state.files.claim(files, for: user, readonly: true)
    }
    if let refusal { throw refusal }
    return sources
  }

  /// Closes what is behind a device's doors to snapshots; no client is inside. Their files stay its
  /// own until it is forgotten.
  func closeSnapshots(of device: String, until deadline: Deadline = .never) {
    close(state.withLock { $0.snapshotDoors.takeAll(of: device) }, until: deadline)
  }

  /// The same of one door that there is no longer.
  func closeSnapshot(behind export: String, of device: String) {
    close(state.withLock { $0.snapshotDoors.take(export) }.map { [$0] } ?? [], until: .never)
    state.withLock { $0.files.release(.export(export, of: device)) }
  }

  private func close(_ devices: [Device], until deadline: Deadline) {
    let deadline = Deadline.after(seconds: configuration.quiesceSeconds).orEarlier(deadline)
    for device in devices { try? device.detach(until: deadline) }
  }

  /// The export, if any, that reads a snapshot.
  func export(reading guid: GUID, of device: String) -> String? {
    // One that could not be opened reads its snapshot again when it can be.
    let closed = record(of: device)?.exports.first { $0.snapshot == guid.description }?.name
    return state.withLock { $0.snapshotDoors.export(reading: guid, of: device) } ?? closed
  }
}
