internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import PloopNBD

// What the service says about itself and its devices; nothing here changes anything.

extension Service {
  private static let features = [
    "attach.create", "attach.deltas", "attach.descriptor", "attach.readonly", "attach.repair",
    "backup", "backup.incremental", "check", "checkpoints", "checkpoints.in_image", "clone",
    "clone.linked", "compact", "deltas.add",
    "deltas.flip", "deltas.index",
    "deltas.notify_merged", "deltas.replace", "events", "export", "exports", "exports.snapshot",
    "hash", "http_data",
    "idempotency-keys", "images", "images.clean", "import", "jobs", "map", "merge.backward",
    "merge.forward",
    "metrics", "prune", "push_backup",
    "push_backup.incremental", "push_backup.spill", "resize", "restore", "snapshots", "stats",
    "suspend", "targets.directory", "targets.file", "targets.nbd", "tracking", "verify", "watch",
  ]

  /// Not everywhere: what needs a program of QEMU's.
  private static var allFeatures: [String] {
    (features + (NBDProgram.isInstalled ? ["import.qcow2"] : [])).sorted()
  }

  package func info() async -> ServiceInfo {
    ServiceInfo(
      version: ProductVersion.current, node: configuration.node, startedAt: startedAt,
      revision: store.lastRevision, features: Service.allFeatures, limits: configuration.limits,
      roots: roots.names.map { ServiceInfo.Root(name: $0, freeBytes: roots.freeBytes(of: $0)) },
      nbd: nbdListeners)
  }

  package func readiness() async -> Readiness {
    let (stage, damaged, listening) = state.withLock {
      ($0.stage, $0.damages, !$0.listeners.isEmpty)
    }
    let hasJobs = jobs.state.withLock { $0.hasStarted && !$0.isStopping }
    let unreachable = roots.names.filter { roots.freeBytes(of: $0) == nil }
    var recovery = Readiness.Check(name: "recovery", ok: true, detail: "")
    switch stage {
    case .starting: (recovery.ok, recovery.detail) = (false, "not begun")
    case .recovering(let missing, let all):
      let names = missing.sorted().prefix(5).joined(separator: ", ")
      let rest = missing.count > 5 ? " and \(missing.count - 5) more" : ""
      (recovery.ok, recovery.detail) = (
        false,
        "\(all - missing.count) of \(all) devices are back; repairing and opening \(names)\(rest)"
      )
    case .serving: break
    case .stopping: (recovery.ok, recovery.detail) = (false, "shutting down")
    }
    return Readiness(checks: [
      .init(name: "state", ok: true, detail: damaged.joined(separator: "; ")),
      .init(
        name: "roots", ok: unreachable.isEmpty,
        detail: unreachable.isEmpty ? "" : "cannot be read: \(unreachable.joined(separator: ", "))"),
      .init(name: "nbd_listener", ok: listening, detail: ""), recovery,
      .init(name: "jobs", ok: hasJobs, detail: hasJobs ? "" : "none begins yet"),
    ])
  }

  package func devices(
    after: String?, limit: Int, state wanted: DeviceState?, labels: [String: String]
  ) async -> Page<DeviceInfo> {
    // Before anything is looked at: whoever hears of changes from here on misses none.
    let revision = store.shownRevision
    let all = state.withLock { Array($0.devices.values) }
      .filter { controller in after.map { controller.id > $0 } ?? true }
      .sorted { $0.id < $1.id }
    var items: [DeviceInfo] = []
    for controller in all {
      let facts = controller.now
      guard let record = facts.record,
        labels.allSatisfy({ record.labels[$0.key] == $0.value }),
        wanted.map({ $0 == self.state(of: controller.id, facts) }) ?? true
      else { continue }
      // One more than asked for tells whether there is a next page.
      guard items.count < limit else {
        return Page(items: items, next: items.last?.id, revision: revision)
      }
      items.append(info(of: controller))
    }
    return Page(items: items, next: nil, revision: revision)
  }

  package func device(_ id: String) async throws(ServiceError) -> DeviceInfo {
    info(of: try controller(id))
  }

  /// A device whose node has no lease serves nobody, as one that is suspended.
  private func state(of id: String, _ facts: DeviceController.Facts) -> DeviceState {
    let state = Service.state(of: facts)
    return state == .online && !isOurs(id)() ? .suspended : state
  }

  static func state(of facts: DeviceController.Facts) -> DeviceState {
    switch facts.phase {
    case .attaching: .attaching
    case .detaching: .detaching
    case .failed: .failed
    case .attached(let device):
      device.failure != nil ? .degraded : device.isSuspended ? .suspended : .online
    }
  }

  func info(of controller: DeviceController) -> DeviceInfo {
    info(of: controller.id, controller.now)
  }

  func info(of id: String, _ facts: DeviceController.Facts) -> DeviceInfo {
    let record = facts.record
    let state = self.state(of: id, facts)
    var device: Device?
    switch facts.phase {
    case .attached(let open), .detaching(let open): device = open
    case .attaching, .failed: break
    }
    let clusterBytes = record?.clusterBytes ?? 0
    let sizeBytes = record?.sizeBytes ?? 0
    return DeviceInfo(
      id: id, uuid: record?.uuid ?? "", revision: record?.revision ?? 0, state: state,
      sizeBytes: sizeBytes, clusterBytes: clusterBytes,
      version: ImageVersion(rawValue: record?.version ?? 2) ?? .v2,
      readonly: record?.readonly ?? false, suspended: record?.suspended ?? false,
      noresume: record?.prohibition != nil,
      suspension: record?.suspended == true ? record?.suspension : nil,
      prohibition: record?.prohibition,
      autostart: record?.autostart ?? true, throttle: record?.throttle, incoming: record?.incoming,
      labels: record?.labels ?? [:],
      source: record?.descriptor.map { .descriptor(path: $0, snapshot: record?.snapshot) }
        ?? .deltas,
      deltas: Service.deltas(of: device, record),
      clustersTotal: clusterBytes == 0
        ? 0
        : sizeBytes / clusterBytes
          + (sizeBytes % clusterBytes == 0 ? 0 : 1),
      clustersMapped: device?.mappedClusters ?? 0, holesInTop: device?.holesInTop ?? 0,
      exports: record.map { record in record.exports.map { info(of: $0, record) } } ?? [],
      checkpoints: device?.checkpoints.map(\.name) ?? [],
      bitmapsInImage: record?.bitmapsInImage == true,
      conditions: conditions(of: id, facts, state, device),
      maintenance: facts.maintenance?.holder, repairs: device?.repairs ?? [],
      createdAt: record?.createdAt ?? facts.since, updatedAt: record?.updatedAt ?? facts.since)
  }

  private static func deltas(of device: Device?, _ record: DeviceRecord?) -> [DeltaInfo] {
    if let device { return Service.deltas(device.levels(), record) }
    let deltas = record?.deltas ?? []
    return deltas.enumerated().map { level, delta in
      let isTop = level == deltas.count - 1
      return DeltaInfo(
        level: level, path: delta.path, guid: delta.guid, isRaw: delta.isRaw,
        readonly: record?.readonly == true || !isTop, isTop: isTop, clusters: 0, fileBytes: 0,
        diskBytes: 0)
    }
  }

  static func deltas(_ levels: [Device.LevelStatus], _ record: DeviceRecord?) -> [DeltaInfo] {
    let deltas = record?.deltas ?? []
    return levels.enumerated().map { level, status in
      DeltaInfo(
        level: level, path: status.path,
        guid: deltas.indices.contains(level) ? deltas[level].guid : nil, isRaw: status.isRaw,
        readonly: status.isReadOnly,
        isTop: level == levels.count - 1, clusters: status.mappedClusters,
        fileBytes: status.fileBytes, diskBytes: status.diskBytes)
    }
  }

  package func map(
    _ id: String, offset: UInt64, length: UInt64?, limit: Int
  ) async throws(ServiceError) -> DeviceMap {
    let controller = try controller(id)
    return try await controller.run { () throws(ServiceError) in
      let device = try controller.device()
      let size = device.geometry.sizeBytes
      guard offset <= size else {
        throw ServiceError(
          .valueImpossible, "the offset \(offset) is beyond the disk's \(size) bytes")
      }
      let end = offset + min(length ?? size, size - offset)
      let runs = try converting { () throws(DeviceError) in
        try device.layout(offset: offset, length: end - offset, limit: limit)
      }
      let next = runs.last.map { $0.start + $0.length } ?? end
      return DeviceMap(
        runs: runs.map { run in
          MapRun(
            start: run.start, length: run.length, level: run.level, imageCluster: run.physical,
            state: run.level == nil ? .hole : .data)
        }, nextOffset: next < end ? next : nil, revision: controller.now.record?.revision ?? 0)
    }
  }

  package func statistics(_ id: String) async throws(ServiceError) -> DeviceStatistics {
    let controller = try controller(id)
    return statistics(of: try controller.device(), controller)
  }

  func statistics(of device: Device, _ controller: DeviceController) -> DeviceStatistics {
    let values = device.statistics()
    func operation(_ kind: Statistics.Operation) -> DeviceStatistics.Operation {
      guard let values = values.operations[kind] else { return DeviceStatistics.Operation() }
      return DeviceStatistics.Operation(
        ops: values.ops, bytes: values.bytes, errors: values.errors,
        latencyNanoseconds: values.latencyNanoseconds, histogram: values.histogram)
    }
    let clients = (controller.now.record?.exports ?? []).reduce(0) {
      $0 + self.clients(of: $1.name).count
    }
    let throttled = controller.throttle.waits
    func waits(_ waits: RequestThrottle.Waits) -> DeviceStatistics.Waits {
      DeviceStatistics.Waits(count: waits.count, nanoseconds: waits.nanoseconds)
    }
    return DeviceStatistics(
      device: controller.id, since: controller.now.attachedAt,
      boundariesMicroseconds: Statistics.boundariesMicroseconds, read: operation(.read),
      write: operation(.write), flush: operation(.flush), trim: operation(.trim),
      zero: operation(.zero), cache: operation(.cache),
      copyOnWriteClusters: values.copyOnWriteClusters,
      allocatedClusters: values.allocatedClusters, pauses: values.pauses,
      pauseNanoseconds: values.pauseNanoseconds,
      longestPauseNanoseconds: values.longestPauseNanoseconds,
      recordingWaits: values.recordingWaits,
      recordingWaitNanoseconds: values.recordingWaitNanoseconds,
      backupWaitNanoseconds: values.backupWaitNanoseconds, throttledReads: waits(throttled.reads),
      throttledWrites: waits(throttled.writes), inFlight: values.inFlight,
      clients: UInt64(clients),
      idleSeconds: Double(values.nanosecondsSinceLastRequest) / 1e9,
      revision: controller.now.record?.revision ?? 0)
  }

  // MARK: Exports

  func record(of device: String) -> DeviceRecord? {
    state.withLock { $0.devices[device] }?.now.record
  }

  func info(of export: DeviceRecord.Export, _ record: DeviceRecord) -> ExportInfo {
    ExportInfo(
      name: export.name, device: record.id, readonly: export.readonly, snapshot: export.snapshot,
      summary: export.summary,
      sizeBytes: export.snapshot == nil
        ? record.sizeBytes : table.entry(export.name)?.door?.size ?? 0,
      uris: uris(of: export.name, isSecret: export.access?.needsTLS ?? false),
      clients: clients(of: export.name), access: export.access, revision: export.revision)
  }

  /// Where clients find an export: an NBD URI for each socket.
  ///
  /// - Parameter isSecret: whether it is served by TLS only.
  private func uris(of export: String, isSecret: Bool = false) -> [String] {
    let listeners = state.withLock { $0.listeners }
    return listeners.filter { !isSecret || $0.security.mode != .off }.map { socket, security in
      uri(of: export, socket, isSecret: isSecret || security.mode == .require)
    }
  }

  private var nbdListeners: [ServiceInfo.Listener] {
    state.withLock { $0.listeners }.map { socket, security in
      ServiceInfo.Listener(
        uri: uri(of: "", socket, isSecret: security.mode == .require), tls: security.mode.rawValue)
    }
  }

  private func uri(of export: String, _ socket: ListeningSocket, isSecret: Bool) -> String {
    let scheme = isSecret ? "nbds" : "nbd"
    if socket.isUnix {
      let path = PercentEncoding.encode(socket.absoluteAddress, plain: "/")
      return "\(scheme)+unix:///\(export)?socket=\(path)"
    }
    if socket.family == .vsock {
      return "\(scheme)+vsock://\(socket.absoluteAddress)/\(export)"
    }
    // Nobody can connect to all addresses at once.
    let address =
      socket.isOfAllAddresses && !configuration.node.isEmpty
      ? "\(configuration.node):\(socket.port)" : socket.address
    return "\(scheme)://\(address)/\(export)"
  }
}
