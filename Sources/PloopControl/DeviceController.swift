internal import PloopDevice
internal import PloopFormat
internal import PloopIO
internal import PloopNBD

/// One device of the service. Its control operations run one at a time, on a thread that may block;
/// what it is can be looked at by anybody meanwhile.
actor DeviceController {
  enum Phase: Sendable {
    case attaching
    case attached(Device)
    case detaching(Device)
    /// It could not be attached, or not closed; its record is kept until somebody decides.
    case failed(ServiceError)
  }

  struct Facts: Sendable {
    var phase = Phase.attaching
    /// Nil until it has been attached for the first time.
    var record: DeviceRecord?
    /// When the phase began; seconds since 1970.
    var since: Double
    /// When this life of the disk began.
    var attachedAt: Double
    /// What the notes on its snapshots were worth when they were looked at last, and since when.
    var notes = SnapshotNotes.Health.sound
    var notesSince: Double?
    /// Who outside has it at work.
    var maintenance: Maintenance?
  }

  nonisolated let id: String
  /// Of all doors to the disk.
  nonisolated let throttle: RequestThrottle
  private nonisolated let executor: ThreadExecutor
  private nonisolated let facts: Locked<Facts>
  /// Whether an operation is at work.
  private nonisolated let isTaken = Monitor(false)

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  init(id: String, record: DeviceRecord?, executor: ThreadExecutor) {
    self.id = id
    throttle = RequestThrottle(record?.throttle)
    self.executor = executor
    let now = wallClockSeconds()
    facts = Locked(Facts(record: record, since: now, attachedAt: now))
  }

  /// Runs an operation when the ones before have ended.
  func run<Result: Sendable>(
    _ body: @Sendable () throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    _ = takeTurn(until: .never)
    defer { giveTurnBack() }
    return try body()
  }

  /// Takes the place of an operation on a thread that need not be the controller's, which other devices may keep busy:
  /// when the service ends.
  ///
  /// - Returns: false when an operation is still at work then.
  nonisolated func takeTurn(until deadline: Deadline) -> Bool {
    isTaken.wait(until: deadline) { isTaken -> Bool? in
      guard !isTaken else { return nil }
      isTaken = true
      return true
    } ?? false
  }

  nonisolated func giveTurnBack() { isTaken.hand { $0 = false } }

  /// The same for a thread that may wait, as those of jobs may.
  nonisolated func runAndWait<Result: Sendable>(
    _ body: @escaping @Sendable () throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    let done = Monitor<Swift.Result<Result, ServiceError>?>(nil)
    Task {
      let result: Swift.Result<Result, ServiceError>
      do throws(ServiceError) { result = .success(try await run(body)) } catch {
        result = .failure(error)
      }
      done.update { $0 = result }
    }
    guard let result = done.wait({ $0 }) else {
      throw ServiceError(.deviceBusy, "the device \(id) is going", errno: "EBUSY")
    }
    return try result.get()
  }

  nonisolated var now: Facts { facts.withLock { $0 } }

  nonisolated func enter(_ phase: Phase) {
    facts.withLock { facts in
      facts.since = wallClockSeconds()
      if case .attached = phase, case .attaching = facts.phase { facts.attachedAt = facts.since }
      facts.phase = phase
    }
  }

  /// Whether its images are open.
  nonisolated var hasDisk: Bool {
    switch now.phase {
    case .attached, .detaching: true
    case .attaching, .failed: false
    }
  }

  /// Its disk, unless it is coming or going.
  nonisolated var attachedDevice: Device? {
    guard case .attached(let device) = now.phase else { return nil }
    return device
  }

  nonisolated func hold(_ maintenance: Maintenance?) {
    facts.withLock { $0.maintenance = maintenance }
  }

  nonisolated func keep(_ record: DeviceRecord) { facts.withLock { $0.record = record } }

  /// - Returns: whether that is news.
  nonisolated func keep(_ notes: SnapshotNotes.Health) -> Bool {
    facts.withLock { facts in
      let isNews = facts.notes != notes
      if isNews || facts.notesSince == nil { facts.notesSince = wallClockSeconds() }
      facts.notes = notes
      return isNews
    }
  }

  /// The disk, if it is there to be used.
  ///
  /// - Throws: `device-busy` while it comes or goes, or what kept it from coming.
  nonisolated func device() throws(ServiceError) -> Device {
    switch now.phase {
    case .attached(let device): return device
    case .attaching, .detaching:
      throw ServiceError(
        .deviceBusy, "the device \(id) is being attached or detached", errno: "EBUSY")
    case .failed(let error):
      throw ServiceError(
        .deviceFailed, "the device \(id) is not attached: \(error.detail)",
        cause: error.code.rawValue)
    }
  }
}
