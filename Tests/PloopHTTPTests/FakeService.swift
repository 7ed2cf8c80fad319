import PloopFormat
import PloopIO

@testable import PloopControl

/// A service without disks: it remembers what it was asked, and answers from a table.
final class FakeService: ServiceAPI {
  struct State {
    var devices: [String: DeviceInfo] = [:]
    var exports: [String: ExportInfo] = [:]
    var attached: [AttachRequest] = []
    var changes: [DeviceChange] = []
    var ifRevisions: [UInt64?] = []
    var modes: [DetachMode] = []
    var deltas: [AttachRequest.DeltaReference] = []
    /// Of all devices; nil where no reply about one is kept.
    var activity: UInt64?
    var snapshots: [SnapshotRequest] = []
    var backups: [PushBackupRequest] = []
    var jobs = [
      "01KAR7": Sample.job("merge", of: "vm1", id: "01KAR7"),
      // One for each way in which a larger disk may come about.
      "resize-21474836480": Sample.job("resize", of: "vm1", .succeeded),
      "resize-2147483648": Sample.job("resize", of: "vm1", .cancelled),
      "resize-1073741824": Sample.job("resize", of: "vm1", .failed),
    ]
    var jobRequests: [JobRequest] = []
    var targets = ["nas": Sample.target("nas")]
    var targetChanges: [TargetChange] = []
    /// What each removal of a target or backup was to do with what is there.
    var removals: [String] = []
    var queue = QueueSettings()
    var switches: [(to: GUID, keepingTopAs: String?)] = []
    var isReady = true
    /// What each call that can fail fails with.
    var failure: ServiceError?
    /// From which byte on exports cannot be read.
    var brokenFrom = UInt64.max
    var claimed: [String: RequestKey] = [:]
    var answers: [String: (key: RequestKey, text: String)] = [:]
    var events = Sample.events
    /// Cursors below have expired.
    var eventsFloor: UInt64 = 5

    mutating func keep<Created>(_ made: Created, _ keeper: AnswerKeeper<Created>?) {
      guard let keeper else { return }
      answers[keeper.key.text] = (keeper.key, keeper.encode(made))
    }
  }

  let state: Locked<State>
  /// Statistics wait until this is opened.
  let gate = Gate()
  /// Attaches wait until this is opened.
  let keyed = Gate()

  init(devices: [String] = ["vm1"], watchers: Int = 16) throws {
    waiting = try WaitingRoom(limit: watchers)
    var state = State()
    for id in devices {
      state.devices[id] = Sample.device(id)
      state.exports[id] = Sample.export(id)
    }
    self.state = Locked(state)
  }

  private func known<Value>(
    _ slug: ServiceError.Code, _ find: (State) -> Value?
  ) throws(ServiceError) -> Value {
    let (failure, value) = state.withLock { ($0.failure, find($0)) }
    if let failure { throw failure }
    guard let value else { throw ServiceError(slug, "there is none") }
    return value
  }

  func info() async -> ServiceInfo { Sample.service }

  func readiness() async -> Readiness {
    let isReady = state.withLock { $0.isReady }
    let detail = state.withLock { "\($0.devices.count) of \($0.devices.count) devices are back" }
    return Readiness(checks: [.init(name: "recovery", ok: isReady, detail: detail)])
  }

  func diagnostics() async -> ServiceDiagnostics { Sample.diagnostics }

  func metrics() async -> [Metric] {
    [Metric(.gauge, "ploopd_ready", "Ready.", await readiness().isReady ? 1 : 0)]
  }

  func devices(
    after: String?, limit: Int, state: DeviceState?, labels: [String: String]
  ) async -> Page<DeviceInfo> {
    let all = self.state.withLock { $0.devices.values.sorted { $0.id < $1.id } }
    let found = all.filter { device in
      device.id > after ?? "" && (state ?? device.state) == device.state
        && labels.allSatisfy { device.labels[$0.key] == $0.value }
    }
    let items = Array(found.prefix(limit))
    return Page(items: items, next: found.count > limit ? items.last?.id : nil, revision: 9)
  }

  func device(_ id: String) async throws(ServiceError) -> DeviceInfo {
    try known(.deviceNotFound) { $0.devices[id] }
  }

  func attach(
    _ request: AttachRequest, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo {
    await keyed.pass()
    let device = Sample.device(request.id)
    state.withLock { $0.attached.append(request) }
    let made = try known(.deviceExists) { state in
      state.devices[request.id] == nil ? device : nil
    }
    state.withLock { $0.keep(made, keeper) }
    return made
  }

  func change(
    _ id: String, _ change: DeviceChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> DeviceInfo {
    state.withLock {
      $0.changes.append(change)
      $0.ifRevisions.append(ifRevision)
    }
    return try known(.deviceNotFound) { $0.devices[id] }
  }

  func resize(
    _ id: String, to sizeBytes: UInt64, ifRevision: UInt64?
  ) async throws(ServiceError) -> Resizing {
    state.withLock { $0.ifRevisions.append(ifRevision) }
    let device = try known(.deviceNotFound) { $0.devices[id] }
    if device.sizeBytes == sizeBytes { return .done(device) }
    return .job(try known(.jobNotFound) { $0.jobs["resize-\(sizeBytes)"] })
  }

  func planResize(
    _ id: String, to sizeBytes: UInt64, ifRevision: UInt64?
  ) async throws(ServiceError) -> JobPlan {
    _ = try known(.deviceNotFound) { $0.devices[id] }
    return Sample.plan
  }

  func detach(_ id: String, mode: DetachMode, ifRevision: UInt64?) async throws(ServiceError) {
    state.withLock {
      $0.modes.append(mode)
      $0.ifRevisions.append(ifRevision)
    }
    _ = try known(.deviceNotFound) { $0.devices[id] }
  }

  func snapshots(_ id: String) async throws(ServiceError) -> Page<SnapshotInfo> {
    _ = try known(.deviceNotFound) { $0.devices[id] }
    return Page(items: Sample.snapshots, next: nil, revision: 41)
  }

  func snapshot(
    _ id: String, _ guid: GUID
  ) async throws(ServiceError) -> (snapshot: SnapshotInfo, revision: UInt64) {
    _ = try known(.deviceNotFound) { $0.devices[id] }
    return (Sample.snapshots[0], 41)
  }

  func changeSnapshot(
    _ id: String, _ guid: GUID, _ change: SnapshotChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> (snapshot: SnapshotInfo, revision: UInt64) {
    state.withLock { $0.ifRevisions.append(ifRevision) }
    return try await snapshot(id, guid)
  }

  func addSnapshot(
    _ id: String, _ request: SnapshotRequest, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<SnapshotMade>?
  ) async throws(ServiceError) -> SnapshotMade {
    let device = try known(.deviceNotFound) { $0.devices[id] }
    var snapshot = Sample.snapshots[0]
    if let guid = request.guid { snapshot.guid = guid }
    let made = SnapshotMade(
      device: id, snapshot: snapshot, pauseNanoseconds: 2_000_000, revision: device.revision)
    state.withLock { state in
      state.snapshots.append(request)
      state.ifRevisions.append(ifRevision)
      state.keep(made, keeper)
    }
    return made
  }

  func switchTop(
    _ id: String, to guid: GUID, keepingTopAs name: String?, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo {
    let device = try known(.deviceNotFound) { $0.devices[id] }
    state.withLock { state in
      state.switches.append((guid, name))
      state.keep(device, keeper)
    }
    return device
  }

  func addDelta(
    _ id: String, _ request: AttachRequest.DeltaReference, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeltaAdded>?
  ) async throws(ServiceError) -> DeltaAdded {
    let device = try known(.deviceNotFound) { $0.devices[id] }
    let added = DeltaAdded(device: id, delta: device.deltas[0], revision: 42)
    state.withLock { state in
      state.deltas.append(request)
      state.keep(added, keeper)
    }
    return added
  }

  func changeDelta(
    _ id: String, _ place: DeltaPlace, _ change: DeltaChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> DeltaChanged {
    let device = try known(.deviceNotFound) { $0.devices[id] }
    guard place != .top else { throw ServiceError(.init(rawValue: "delta-is-top"), "it is") }
    return DeltaChanged(delta: device.deltas[0], applied: 2, skipped: 1, revision: 42)
  }

  func takeMerged(
    _ id: String, _ place: DeltaPlace, _ direction: MergedInto, ifRevision: UInt64?,
    keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo {
    let device = try known(.deviceNotFound) { $0.devices[id] }
    state.withLock { $0.keep(device, keeper) }
    return device
  }

  func flipTop(
    _ id: String, ifRevision: UInt64?, keeping keeper: AnswerKeeper<DeviceInfo>?
  ) async throws(ServiceError) -> DeviceInfo {
    let device = try known(.deviceNotFound) { $0.devices[id] }
    state.withLock { $0.keep(device, keeper) }
    return device
  }

  func addJob(
    _ request: JobRequest, keeping keeper: AnswerKeeper<JobInfo>?
  ) async throws(ServiceError) -> JobInfo {
    if let device = request.device { _ = try known(.deviceNotFound) { $0.devices[device] } }
    let job = Sample.job(request.type, of: request.device)
    state.withLock { state in
      state.jobRequests.append(request)
      state.jobs[job.record.id] = job
      state.keep(job, keeper)
    }
    return job
  }

  func planJob(_ request: JobRequest) async throws(ServiceError) -> JobPlan {
    if let device = request.device { _ = try known(.deviceNotFound) { $0.devices[device] } }
    return Sample.plan
  }

  func jobs(
    before: String?, limit: Int, _ filter: JobFilter
  ) async throws(ServiceError) -> Page<JobInfo> {
    let jobs = state.withLock { $0.jobs.values.sorted { $0.record.id > $1.record.id } }
    let found = jobs.filter { (filter.state ?? $0.record.state) == $0.record.state }
    return Page(items: Array(found.prefix(limit)), next: nil, revision: 9)
  }

  func job(_ id: String) async throws(ServiceError) -> JobInfo {
    try known(.jobNotFound) { $0.jobs[id] }
  }

  func jobLog(
    _ id: String, after: UInt64, limit: Int
  ) async throws(ServiceError) -> [JobLogLine] {
    _ = try known(.jobNotFound) { $0.jobs[id] }
    return Sample.log.filter { $0.number > after }
  }

  private func change(
    _ id: String, _ change: (inout JobRecord) -> Void
  ) throws(ServiceError) -> JobInfo {
    _ = try known(.jobNotFound) { $0.jobs[id] }
    state.withLock { state in
      guard var job = state.jobs[id] else { return }
      change(&job.record)
      job.record.revision += 1
      state.jobs[id] = job
    }
    waiting.changed([.job(id)])
    return try known(.jobNotFound) { $0.jobs[id] }
  }

  func changeJob(
    _ id: String, _ change: JobChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> JobInfo {
    try self.change(id) { job in
      job.isPaused = change.isPaused ?? job.isPaused
      job.priority = change.priority ?? job.priority
    }
  }

  func cancelJob(_ id: String, ifRevision: UInt64?) async throws(ServiceError) -> JobInfo {
    try change(id) { $0.state = .cancelling }
  }

  func retryJob(_ id: String, ifRevision: UInt64?) async throws(ServiceError) -> JobInfo {
    try change(id) { $0.attempt += 1 }
  }

  func removeJob(_ id: String, ifRevision: UInt64?) async throws(ServiceError) {
    _ = try known(.jobNotFound) { $0.jobs[id] }
    state.withLock { $0.jobs[id] = nil }
  }

  /// Ends a job, as its work would.
  func end(_ id: String) throws {
    _ = try change(id) { job in
      job.state = .succeeded
      job.finishedAt = 1_764_000_300
    }
  }

  func queue() async -> QueueInfo {
    QueueInfo(
      settings: state.withLock { $0.queue }, running: 1, queued: 2, paused: 0,
      oldestQueuedAt: 1_764_000_000, revision: 12)
  }

  func changeQueue(_ change: QueueChange) async throws(ServiceError) -> QueueInfo {
    state.withLock { $0.queue.isPaused = change.isPaused ?? $0.queue.isPaused }
    return await queue()
  }

  func startTracking(
    _ id: String, _ space: TrackingSpace, keeping keeper: AnswerKeeper<TrackingInfo>?
  ) async throws(ServiceError) -> TrackingInfo {
    _ = try known(.deviceNotFound) { $0.devices[id] }
    var info = Sample.tracking
    info.space = space
    state.withLock { [info] in $0.keep(info, keeper) }
    return info
  }

  func tracking(_ id: String) async throws(ServiceError) -> TrackingInfo {
    _ = try known(.trackingNotActive) { $0.devices[id] }
    return Sample.tracking
  }

  func takeTracked(_ id: String, limit: Int) async throws(ServiceError) -> TrackedClusters {
    _ = try known(.trackingNotActive) { $0.devices[id] }
    return TrackedClusters(clusters: Array([3, 4, 9].prefix(limit)), left: 3 - min(3, limit))
  }

  func trackedBits(_ id: String) async throws(ServiceError) -> TrackedBits {
    _ = try known(.trackingNotActive) { $0.devices[id] }
    return TrackedBits(bits: Bitmap(bytes: [0b1_1000, 0b10], count: 12), clusterBytes: 1 << 20)
  }

  func stopTracking(_ id: String) async throws(ServiceError) {
    _ = try known(.trackingNotActive) { $0.devices[id] }
  }

  func checkpoints(_ id: String) async throws(ServiceError) -> Page<CheckpointInfo> {
    _ = try known(.deviceNotFound) { $0.devices[id] }
    return Page(items: [Sample.checkpoint], next: nil, revision: 60)
  }

  func checkpoint(_ id: String, _ name: String) async throws(ServiceError) -> CheckpointInfo {
    _ = try known(.deviceNotFound) { $0.devices[id] }
    guard name == Sample.checkpoint.name else {
      throw ServiceError(.checkpointNotFound, "there is no checkpoint \(name)")
    }
    return Sample.checkpoint
  }

  func checkpointBits(
    _ id: String, _ name: String
  ) async throws(ServiceError) -> CheckpointBits {
    _ = try await checkpoint(id, name)
    return CheckpointBits(
      granularityBytes: 1 << 20, inconsistency: nil, extents: [0..<2 << 20], bytes: [3])
  }

  func addCheckpoint(
    _ id: String, _ request: CheckpointRequest, keeping keeper: AnswerKeeper<CheckpointInfo>?
  ) async throws(ServiceError) -> CheckpointInfo {
    _ = try known(.deviceNotFound) { $0.devices[id] }
    var info = Sample.checkpoint
    info.name = request.name
    info.granularityBytes = request.granularityBytes ?? info.granularityBytes
    state.withLock { $0.keep(info, keeper) }
    return info
  }

  func removeCheckpoint(_ id: String, _ name: String) async throws(ServiceError) {
    _ = try await checkpoint(id, name)
  }

  func startPushBackup(
    _ id: String, _ request: PushBackupRequest, keeping keeper: AnswerKeeper<PushBackupInfo>?
  ) async throws(ServiceError) -> PushBackupInfo {
    _ = try known(.deviceNotFound) { $0.devices[id] }
    var info = Sample.pushBackup
    info.uuid = request.uuid ?? info.uuid
    state.withLock { state in
      state.backups.append(request)
      state.keep(info, keeper)
    }
    return info
  }

  func pushBackup(_ id: String) async throws(ServiceError) -> PushBackupInfo {
    _ = try known(.pushBackupNotActive) { $0.devices[id] }
    return Sample.pushBackup
  }

  func readPushBackup(
    _ id: String, uuid: String, limit: Int, left: (from: Int, limit: Int)
  ) async throws(ServiceError) -> PushBackupWork {
    _ = try known(.pushBackupNotActive) { $0.devices[id] }
    return Sample.work
  }

  func confirmPushBackup(
    _ id: String, uuid: String, _ clusters: [Range<Int>]
  ) async throws(ServiceError) -> (confirmed: Int, remaining: Int) {
    _ = try known(.pushBackupNotActive) { $0.devices[id] }
    return (clusters.reduce(0) { $0 + $1.count }, 9_929)
  }

  func pushBackupData(
    _ id: String, uuid: String?, _ range: ClosedRange<UInt64>
  ) async throws(ServiceError) -> (bytes: [UInt8], size: UInt64) {
    _ = try known(.pushBackupNotActive) { $0.devices[id] }
    return ([UInt8](repeating: 7, count: range.count), 10 << 30)
  }

  func content(of export: String) async throws(ServiceError) -> any ExportContent {
    let info = try known(.exportNotFound) { $0.exports[export] }
    return state.withLock { FakeContent(device: info.device, brokenFrom: $0.brokenFrom) }
  }

  func stopPushBackup(
    _ id: String, uuid: String, isComplete: Bool
  ) async throws(ServiceError) -> PushBackupInfo {
    _ = try known(.pushBackupNotActive) { $0.devices[id] }
    var info = Sample.pushBackup
    info.state = isComplete ? .complete : .aborted
    return info
  }

  func map(
    _ id: String, offset: UInt64, length: UInt64?, limit: Int
  ) async throws(ServiceError) -> DeviceMap {
    _ = try known(.deviceNotFound) { $0.devices[id] }
    return Sample.map
  }

  func statistics(_ id: String) async throws(ServiceError) -> DeviceStatistics {
    await gate.pass()
    _ = try known(.deviceNotFound) { $0.devices[id] }
    return Sample.statistics(id)
  }

  func nodes() async -> [NodeInfo] {
    [
      NodeInfo(
        node: Self.node, devices: 2, isSelf: true, isHeld: false, trouble: "etcd does not answer")
    ]
  }

  static let node = FleetNode(
    name: "host-b", endpoint: "http://192.0.2.2:7447", version: "0.1.0", labels: ["zone": "a"],
    capacity: 100, since: 1_790_000_000)

  func move(
    _ id: String, to node: String, ifRevision: UInt64?
  ) async throws(ServiceError) -> DeviceMoved {
    _ = try await device(id)
    guard node == Self.node.name else {
      throw ServiceError(.nodeNotFound, "there is no node \(node)", errno: "ENOENT")
    }
    return DeviceMoved(device: id, node: Self.node, state: .online, milliseconds: 12)
  }

  func elsewhere(device: String) -> ServiceError? {
    device != "elsewhere"
      ? nil
      : ServiceError(
        .deviceOwnedElsewhere, "the node host-b has it",
        holder: ServiceError.Holder(kind: "node", id: "host-b"),
        facts: ["device": .text(device), "endpoint": .text(Self.node.endpoint)])
  }

  func elsewhere(export: String) -> ServiceError? { elsewhere(device: export) }

  func exports(after: String?, limit: Int) async -> Page<ExportInfo> {
    let found = state.withLock { $0.exports.values.sorted { $0.name < $1.name } }
      .filter { $0.name > after ?? "" }
    let items = Array(found.prefix(limit))
    return Page(items: items, next: found.count > limit ? items.last?.name : nil, revision: 9)
  }

  func export(_ name: String) async throws(ServiceError) -> ExportInfo {
    try known(.exportNotFound) { $0.exports[name] }
  }

  func addExport(
    _ request: ExportRequest, keeping keeper: AnswerKeeper<ExportInfo>?
  ) async throws(ServiceError) -> ExportInfo {
    let export = Sample.export(request.name)
    let made = try known(.exportExists) { state in
      state.exports[request.name] == nil ? export : nil
    }
    state.withLock { $0.keep(made, keeper) }
    return made
  }

  func images(
    root: String?, state: ImageInfo.State?, after: String?, limit: Int
  ) async throws(ServiceError) -> ImageListing {
    ImageListing(
      page: Page(items: Array(Sample.images.prefix(limit)), next: nil, revision: 9),
      diskBytes: ["orphan": 4096], problems: ["main:lost+found: Permission denied"])
  }

  func targets(after: String?, limit: Int) async -> Page<TargetInfo> {
    let all = state.withLock { $0.targets.values.sorted { $0.target.name < $1.target.name } }
    return Page(items: Array(all.prefix(limit)), next: nil, revision: 9)
  }

  func target(_ name: String) async throws(ServiceError) -> TargetInfo {
    try known(.targetNotFound) { $0.targets[name] }
  }

  func addTarget(
    _ request: TargetRequest, keeping keeper: AnswerKeeper<TargetInfo>?
  ) async throws(ServiceError) -> TargetInfo {
    var info = Sample.target(request.name)
    info.target.place = request.place
    info.target.slots = request.slots
    info.target.limits = request.limits
    let made = try known(.targetExists) { [info] state in
      state.targets[request.name] == nil ? info : nil
    }
    state.withLock { $0.keep(made, keeper) }
    return made
  }

  func changeTarget(
    _ name: String, _ change: TargetChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> TargetInfo {
    state.withLock {
      $0.targetChanges.append(change)
      $0.ifRevisions.append(ifRevision)
    }
    return try known(.targetNotFound) { $0.targets[name] }
  }

  func removeTarget(
    _ name: String, leavingBackups: Bool, ifRevision: UInt64?
  ) async throws(ServiceError) {
    state.withLock {
      $0.removals.append("\(name) \(leavingBackups)")
      $0.ifRevisions.append(ifRevision)
    }
    _ = try known(.targetNotFound) { $0.targets[name] }
  }

  func backups(
    on target: String, of device: String?, after: String?, limit: Int
  ) async throws(ServiceError) -> Page<BackupInfo> {
    _ = try known(.targetNotFound) { $0.targets[target] }
    let items = Sample.backups.filter { device.map { $0 == "vm1" } ?? true && $0.id > after ?? "" }
    return Page(
      items: Array(items.prefix(limit)), next: items.count > limit ? items[0].id : nil, revision: 9)
  }

  func backup(_ id: String, on target: String) async throws(ServiceError) -> BackupInfo {
    try known(.backupNotFound) { _ in Sample.backups.first { $0.id == id } }
  }

  func removeBackup(
    _ id: String, on target: String, cascading: Bool
  ) async throws(ServiceError) {
    state.withLock { $0.removals.append("\(target)/\(id) \(cascading)") }
    _ = try await backup(id, on: target)
  }

  func events(
    after: UInt64?, matching filter: EventFilter, limit: Int
  ) async throws(ServiceError) -> Page<Event> {
    try state.withLock { state throws(ServiceError) in
      if let failure = state.failure { throw failure }
      let newest = state.events.last?.revision ?? state.eventsFloor
      if let after, !(state.eventsFloor...newest).contains(after) {
        throw ServiceError(
          .eventsExpired, "too old", facts: ["current_revision": .number(newest)])
      }
      let found = state.events.filter { $0.revision ?? 0 > after ?? 0 && filter.matches($0) }
      let items = Array(found.prefix(limit))
      let last = found.count > limit ? items.last?.revision : newest
      return Page(items: items, next: nil, revision: last ?? newest)
    }
  }

  var eventCursor: EventCursor {
    let newest = state.withLock { $0.events.last?.revision ?? $0.eventsFloor }
    return EventCursor(revision: newest, transient: transients.last)
  }

  let transients = TransientEvents()

  func transientEvents(
    after cursor: UInt64, matching filter: EventFilter
  ) -> ([Event], UInt64) {
    transients.events(after: cursor, matching: filter)
  }

  /// Adds to the ring, and wakes those who listen.
  func note(_ type: String, _ subject: String, device: String?) {
    state.withLock { state in
      let revision = (state.events.last?.revision ?? 0) + 1
      state.events.append(
        Event(revision: revision, at: 0, type: type, subject: subject, device: device))
    }
    waiting.changed([.events])
  }

  func claim(_ key: RequestKey) async throws(ServiceError) -> RequestClaim {
    try state.withLock { state throws(ServiceError) in
      if let other = state.claimed[key.text] ?? state.answers[key.text]?.key, other != key {
        throw ServiceError(.idempotencyKeyReused, "another request")
      }
      if let kept = state.answers[key.text] { return .answered(kept.text) }
      guard state.claimed.updateValue(key, forKey: key.text) == nil else {
        throw ServiceError(.idempotencyKeyInUse, "being served")
      }
      return .new
    }
  }

  func release(_ key: RequestKey) { state.withLock { $0.claimed[key.text] = nil } }

  let waiting: WaitingRoom
  var changes: UInt64 { waiting.changes }

  func activity(of device: String) -> DeviceActivity? {
    guard state.withLock({ $0.activity }) != nil else { return nil }
    return DeviceActivity { [state] in state.withLock { $0.activity ?? 0 } }
  }

  func change(
    of topic: Topic, since changes: UInt64, milliseconds: Int
  ) async -> WaitingRoom.End {
    await waiting.wait(for: topic, since: changes, milliseconds: milliseconds)
  }

  func removeExport(
    _ name: String, mode: DetachMode, ifRevision: UInt64?
  ) async throws(ServiceError) {
    state.withLock {
      $0.modes.append(mode)
      $0.ifRevisions.append(ifRevision)
    }
    _ = try known(.exportNotFound) { $0.exports[name] }
  }
}

/// Open at first; whoever comes while it is closed waits.
final class Gate: Sendable {
  private struct State {
    var isOpen = true
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  private let state = Monitor(State())

  func close() { state.update { $0.isOpen = false } }

  func open() {
    let waiting = state.update { state in
      defer { state = State() }
      return state.waiting
    }
    waiting.forEach { $0.resume() }
  }

  func pass() async {
    await withCheckedContinuation { continuation in
      let isOpen = state.update { state in
        if !state.isOpen { state.waiting.append(continuation) }
        return state.isOpen
      }
      if isOpen { continuation.resume() }
    }
  }

  /// Whether that many wait before the deadline.
  func hasWaiting(_ count: Int, until deadline: Deadline = .after(seconds: 600)) -> Bool {
    state.wait(until: deadline) { $0.waiting.count >= count ? true : nil } ?? false
  }
}
