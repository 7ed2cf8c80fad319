package import Logging
internal import PloopDevice
package import PloopIO
package import PloopNBD

/// The service: which disks there are, what they are called, who may use them, and what of that
/// survives. It knows no HTTP, and of NBD only that there is a server with clients.
///
/// A file for each thing that can be asked of it: `Service+Attach.swift` and so on.
package final class Service: ServiceAPI {
  package struct Configuration: Sendable {
    package var limits = ServiceLimits()
    package var nbd = Limits()
    /// The host's name, for people with many hosts.
    package var node = ""
    /// Bytes of memory for the indexes of all disks together.
    package var indexCacheBytes = AttachOptions.indexCacheBytes
    /// Who checks indexes of disks that are served already.
    var checks = CheckQueue.shared
    /// How often disks that nobody flushes are flushed (docs/crash-safety.md, "Timer").
    package var flushSeconds = 5
    /// How long requests in flight may take to end when a disk is suspended or detached.
    package var quiesceSeconds = 30
    /// How long a safe detach waits for clients that are leaving.
    package var leavingMilliseconds = 2_000
    /// Nanoseconds by which the time limits of suspended disks are measured.
    package var suspensionClock: @Sendable () -> UInt64 = monotonicNanoseconds

    /// From how long on an operation of a disk is told of as slow; 0 for never.
    package var slowOperationMilliseconds = 1_000
    /// What this node has together with others; nil for a host of its own.
    package var fleet: Fleet?

    package init() {}
  }

  enum Stage: Sendable {
    case starting
    /// Devices that are not back yet, and how many there are altogether.
    case recovering(Set<String>, of: Int)
    case serving
    case stopping
  }

  struct State: Sendable {
    var stage = Stage.starting
    var devices: [String: DeviceController] = [:]
    var files = FileRegistry()
    /// Devices of an earlier life that were not to come back by themselves, and were not closed.
    var unclosed: [String: DeviceRecord] = [:]
    /// Attaches of an earlier life that did not get to their end, by device.
    var unfinished: [String: AttachIntent] = [:]
    var snapshotDoors = SnapshotDoors()
    /// What of the state was found damaged, in words.
    var damages: [String] = []
    /// Where NBD clients come.
    var listeners: [(socket: ListeningSocket, security: Security)] = []
    var nextExecutor = 0
  }

  /// Control operations that run at the same time; each may wait for a disk.
  private static let executorCount = 8

  let configuration: Configuration
  let roots: Roots
  let store: Store
  let log: Logger
  let engine: IOEngine
  /// What of the disks' indexes is in memory.
  let indexCache: FramePool
  /// Nil where nobody else may have our disks.
  let fleet: Fleet?
  let table = ExportTable()
  let descriptorLocks = DescriptorLocks()
  let tellings = Tellings()
  let waitingQuestions = WaitingQuestions()
  let server: Server<ExportTable>
  let state = Monitor(State())
  let startedAt = wallClockSeconds()
  /// Keys of requests that are being served.
  let claims = Locked<[String: RequestKey]>([:])
  let waiting: WaitingRoom
  let transients = TransientEvents()
  /// Disks that jobs hold still, by their devices.
  let frozen = Locked<[String: FrozenDisk]>([:])
  /// Bytes of backups that have become whole in this life, by their targets.
  let backedUp = Locked<[String: (read: UInt64, written: UInt64)]>([:])
  let slowOperations: SlowOperations
  let knownImages = Locked<KnownImages?>(nil)
  /// Whether a look at the roots is under way for metrics.
  let isLookingAtImages = Locked(false)
  /// Since when hardly anything is free for a device.
  let shortages = Locked<[String: Double]>([:])
  let clerk: Clerk
  /// Looks at all that lies beneath the roots, which may take long.
  let rootsClerk: Clerk
  let targets = TargetTable()
  let jobs: JobEngine
  private let executors: [ThreadExecutor]
  let suspensions: SuspensionTimer
  /// Tells whoever listens now of something that is not kept.
  let tell: @Sendable (_ type: EventType, _ subject: String, _ device: String?) -> Void
  private let timer: FlushTimer

  package convenience init(
    roots: Roots, store: Store, engine: IOEngine, log: Logger,
    configuration: Configuration = Configuration()
  ) throws(ServiceError) {
    try self.init(
      roots: roots, store: store, engine: engine, log: log, configuration: configuration,
      registry: .standard)
  }

  /// - Parameter registry: the types of jobs that there are.
  init(
    roots: Roots, store: Store, engine: IOEngine, log: Logger, configuration: Configuration,
    registry: JobRegistry
  ) throws(ServiceError) {
    self.roots = roots
    self.store = store
    self.engine = engine
    self.log = log
    self.configuration = configuration
    fleet = configuration.fleet
    slowOperations = SlowOperations(from: configuration.slowOperationMilliseconds, log: log) {
      (work) in engine.submit { engine.aside(work) }
    }
    indexCache = FramePool(budgetBytes: configuration.indexCacheBytes)
    do throws(IOError) {
      var executors: [ThreadExecutor] = []
      for _ in 0..<Service.executorCount {
        executors.append(try ThreadExecutor(name: "ploopd-control"))
      }
      self.executors = executors
      clerk = try Clerk(name: "ploopd-state")
      rootsClerk = try Clerk(name: "ploopd-roots")
      waiting = try WaitingRoom(limit: configuration.limits.maxWatchers)
      tell = transients.teller(waking: waiting)
      jobs = JobEngine(
        store: store, log: log, registry: registry, fleet: configuration.fleet,
        openLimit: configuration.limits.maxJobs
      ) { [waiting] id in
        waiting.changed([.service, .job(id)])
      } progressed: { [tell] job in
        tell(.jobProgress, job.id, job.device)
      }
      server = Server(directory: table, engine: engine, limits: configuration.nbd) {
        [table, tell] export, isConnected in
        let name = String(decoding: export, as: UTF8.self)
        tell(isConnected ? .clientConnected : .clientGone, name, table.entry(name)?.device)
      }
      suspensions = SuspensionTimer(clock: configuration.suspensionClock)
      timer = FlushTimer(seconds: configuration.flushSeconds, engine: engine)
      try timer.start { [weak self] in self?.attached() ?? [] }
      try suspensions.start { [weak self] in self?.attend($0) }
    } catch { throw ServiceError(error) }
    store.whenShown { [waiting] in waiting.changed([.events]) }
  }

  deinit {
    timer.stop()
    suspensions.stop()
    waiting.close()
    executors.forEach { $0.stop() }
  }

  func stopTimers() {
    timer.stop()
    suspensions.stop()
  }

  /// Serves NBD clients on a socket; call it once recovery is done, so that clients which come back
  /// find their disks.
  ///
  /// - Parameter security: whether those clients use TLS.
  package func serveNBD(
    on socket: ListeningSocket, security: Security = .none
  ) throws(IOError) {
    try server.listen(on: socket, security: security)
    state.update { $0.listeners.append((socket, security)) }
  }

  // MARK: Devices by id

  /// - Throws: `device-not-found`; `not-ready` before it is known which ones there are.
  func controller(_ id: String) throws(ServiceError) -> DeviceController {
    let (controller, stage) = state.withLock { ($0.devices[id], $0.stage) }
    // One that is being attached for the first time is not there for others yet.
    guard let controller, controller.now.record != nil else {
      if case .starting = stage { try Service.requireServing(stage) }
      throw ServiceError(.deviceNotFound, "there is no device \(id.prefix(80))", errno: "ENOENT")
    }
    return controller
  }

  /// Takes an id for a device that is about to be attached.
  ///
  /// - Parameter job: that makes the device, if one does.
  func reserve(_ id: String, by job: String? = nil) throws(ServiceError) -> DeviceController {
    if let maker = jobs.maker(of: id), maker.id != job {
      throw ServiceError(
        .deviceExists, "the device \(id) is being made by the job \(maker.id) (\(maker.type))",
        errno: "EEXIST", holder: ServiceError.Holder(kind: "job", id: maker.id))
    }
    return try state.update { state throws(ServiceError) in
      guard state.devices[id] == nil else {
        throw ServiceError(.deviceExists, "the device \(id) exists", errno: "EEXIST")
      }
      try Service.requireServing(state.stage)
      guard state.devices.count < configuration.limits.maxDevices else {
        throw ServiceError(
          .tooManyDevices, "there are \(state.devices.count) devices; that is the limit")
      }
      return add(id, record: nil, to: &state)
    }
  }

  func add(_ id: String, record: DeviceRecord?, to state: inout State) -> DeviceController {
    let controller = DeviceController(
      id: id, record: record, executor: executors[state.nextExecutor % executors.count])
    state.nextExecutor = (state.nextExecutor + 1) % executors.count
    state.devices[id] = controller
    return controller
  }

  /// Gives up everything that a device has in memory.
  func forget(_ id: String) {
    table.removeAll(of: id)
    suspensions.forget(id)
    slowOperations.forget(id)
    shortages.withLock { $0[id] = nil }
    state.update { state in
      state.files.releaseAll(of: id)
      state.devices[id] = nil
    }
  }

  private func attached() -> [(id: String, device: Device)] {
    state.withLock { Array($0.devices.values) }.compactMap { controller in
      guard case .attached(let device) = controller.now.phase, isOurs(controller.id)() else {
        return nil
      }
      if device.failure != nil, device.failure != controller.now.record?.failure {
        // As any change of a device: when those before it have ended, and not on the timer's thread.
        Task { [weak self] in await self?.noteFailure(controller) }
      }
      return (controller.id, device)
    }
  }

  /// A disk that no longer takes writes is remembered as such.
  private func noteFailure(_ controller: DeviceController) async {
    try? await controller.run { () throws(ServiceError) in self.writeFailure(of: controller) }
  }

  func writeFailure(of controller: DeviceController) {
    guard case .attached(let device) = controller.now.phase, let failure = device.failure,
      var record = controller.now.record,
      record.failure != failure
    else { return }
    log.error(
      "the disk takes no more writes", metadata: ["device": "\(record.id)", "reason": "\(failure)"])
    record.failure = failure
    // Shown in any case: it is so, whether it can be written down or not.
    controller.keep(record)
    do throws(ServiceError) { try commit(record, of: controller, as: .deviceState) } catch {
      log.error("the state cannot be written", metadata: ["reason": "\(error.detail)"])
    }
  }

  // MARK: Rules

  static func requireServing(_ stage: Stage) throws(ServiceError) {
    switch stage {
    case .serving: return
    case .starting, .recovering:
      throw ServiceError(
        .notReady, "the disks of the last run are still coming back",
        remedy: "wait until /readyz says 200")
    case .stopping: throw ServiceError(.shuttingDown, "the service is shutting down")
    }
  }

  /// - Throws: `not-ready`, `shutting-down`; `fleet-unreachable` where others may have our disks by now.
  func requireServing() throws(ServiceError) {
    try Service.requireServing(state.withLock { $0.stage })
    try fleet?.requireLease()
  }

  var isStopping: Bool {
    guard case .stopping = state.withLock({ $0.stage }) else { return false }
    return true
  }

  static func require(_ wanted: UInt64?, is revision: UInt64) throws(ServiceError) {
    guard let wanted, wanted != revision else { return }
    throw ServiceError(
      .preconditionFailed, "the revision is \(revision), not \(wanted)",
      facts: ["current_revision": .number(revision)])
  }

  /// Writes a changed record under a new revision, with what else belongs to the change, then shows
  /// it and wakes who waits for it. The nodes of a fleet are told before: what they know is never older than what this one
  /// comes back with.
  ///
  /// - Parameters:
  ///   - export: that the device gets; its revision is its own.
  ///   - phase: what the device is from then on, if that changes: shown with the record, or whoever
  ///     waits for the revision would see the one without the other.
  ///   - show: shows what else is to be seen before anybody hears of the events.
  ///   - more: changes the record further, and what else is to be durable with it.
  @discardableResult
  func commit<Result>(
    _ record: DeviceRecord, of controller: DeviceController, as event: EventType,
    adding export: DeviceRecord.Export? = nil, entering phase: DeviceController.Phase? = nil,
    show: (Result) -> Void = { _ in },
    _ more: (DeviceRecord, StateTransaction) throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    let before = controller.now.record
    // Not within a transaction: all others would wait for the nodes as well.
    var reserved: Store.Reservation?
    defer { if let reserved { store.giveBack(reserved) } }
    var told: DeviceRecord?
    if fleet != nil {
      var numbers = try store.reserve(export == nil ? 1 : 2, above: record.revision)
      reserved = numbers
      let changed = try record.changed(adding: export) { numbers.next() }
      try publish(changed, of: controller, entering: phase)
      told = changed
    }
    let (record, result) = try store.write { transaction throws(ServiceError) in
      let changed: DeviceRecord
      if let told {
        changed = told
      } else {
        changed = try record.changed(adding: export) { () throws(ServiceError) in
          try transaction.nextRevision()
        }
      }
      let result = try more(changed, transaction)
      try transaction.save(changed)
      try transaction.note(event, changed.id, device: changed.id, at: changed.revision)
      if export != nil, let added = changed.exports.last {
        try transaction.note(.exportCreated, added.name, device: changed.id, at: added.revision)
      }
      return (changed, result)
    } show: { record, result in
      controller.keep(record)
      if let phase { controller.enter(phase) }
      suspensions.follow(record)
      show(result)
    }
    tellChanged(record.id, (before?.exports ?? []) + record.exports)
    return result
  }

  func commit(
    _ record: DeviceRecord, of controller: DeviceController, as event: EventType,
    entering phase: DeviceController.Phase? = nil
  ) throws(ServiceError) {
    try commit(record, of: controller, as: event, entering: phase) { _, _ throws(ServiceError) in }
  }

  /// Keeps a device that cannot be served, with the reason, until somebody decides. It gets a new
  /// revision if the state can be written.
  func fail(_ controller: DeviceController, _ error: ServiceError) {
    guard let record = controller.now.record else { return controller.enter(.failed(error)) }
    do throws(ServiceError) {
      try commit(record, of: controller, as: .deviceState, entering: .failed(error))
    } catch {
      log.error("the state cannot be written", metadata: ["reason": "\(error.detail)"])
    }
    controller.enter(.failed(error))
  }

  /// Wakes who waits for a device, one of its exports, or anything at all.
  func tellChanged(_ device: String, _ exports: [DeviceRecord.Export]) {
    waiting.changed(
      Set([Topic.service, .device(device)] + exports.map { Topic.export($0.name) }))
  }
}
