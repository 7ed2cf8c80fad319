package import PloopFormat
package import PloopIO

/// Keeps a disk as it was at one instant for somebody who copies it, while guests go on.
///
/// Every cluster that is wanted is *held*: nobody overwrites it until the copier confirms that it has been
/// copied. A request that would waits outside the gate, and the copier is told what is waited for
/// (``pending(limit:)``). With a scratch file the request saves the old cluster there first and need not
/// wait for the copier. Each request that waits has a deadline of its own; what comes of the first that
/// passes says ``OnDeadline``.
///
/// Bits go one way only: held, perhaps saved, confirmed. Nothing of this is in an image, so a crash ends
/// the backup and costs the disk nothing.
package final class PushBackup: Recorder {
  package enum OnDeadline: String, Sendable {
    /// The backup is over; the guest goes on.
    case abort
    /// The guest waits for as long as it takes.
    case wait
    /// Old clusters are saved locally. Where there is no room the guest waits, and the backup is over
    /// at the deadline.
    case spill
  }

  /// What a copier is to have of the disk.
  package enum Wanted: Sendable {
    case all
    case these(Bitmap)
    /// What was written since a checkpoint, as it is at the instant. Where that says nothing any more,
    /// everything may have been written.
    case since(Checkpoint)

    /// One for each cluster.
    func bits(of geometry: Geometry) -> Bitmap {
      let count = Int(geometry.clusterCount)
      switch self {
      case .all: return Bitmap(allSet: count)
      case .since(let checkpoint): return checkpoint.clusters(geometry)
      case .these(var wanted):
        wanted.resize(to: count)
        return wanted
      }
    }
  }

  package struct Options: Sendable {
    /// The clusters that are wanted.
    package var clusters = Wanted.all
    package var onDeadline = OnDeadline.abort
    package var deadlineNanoseconds: UInt64 = 42_000_000_000
    /// Where old clusters are saved, if they are.
    package var scratch: Scratch?
    /// Nanoseconds, for deadlines; after it has been moved by hand, ``lookAgain()`` is due.
    package var clock: @Sendable () -> UInt64 = { monotonicNanoseconds() }

    package init() {}
  }

  /// Why nothing is held any more.
  package enum End: Equatable, Sendable {
    case failed(String)
    case stopped
  }

  /// What whoever listens is told.
  package enum Change: Sendable {
    /// A request waits.
    case pending
    /// It is over without having been stopped.
    case failed
  }

  package let uuid: String
  package let options: Options
  /// Seconds since 1970.
  package let startedAt: Double
  let device: Device
  let state: Monitor<PushBackupState>
  private let engine: IOEngine
  private let changed: @Sendable (Change) -> Void

  /// - Parameters:
  ///   - engine: on whose threads requests wait; others take their place meanwhile.
  ///   - changed: told with no lock held.
  package init(
    _ uuid: String, of device: Device, _ options: Options, engine: IOEngine,
    changed: @escaping @Sendable (Change) -> Void = { _ in }
  ) {
    self.uuid = uuid
    self.device = device
    self.options = options
    self.engine = engine
    self.changed = changed
    startedAt = wallClockSeconds()
    state = Monitor(PushBackupState(options.clusters.bits(of: device.geometry)))
  }

  /// The checkpoint of which it copies what was written since.
  package var since: Checkpoint? {
    if case .since(let checkpoint) = options.clusters { checkpoint } else { nil }
  }

  /// Why all is wanted although it was to be what was written since a checkpoint.
  package var fullReason: String? { state.withLock { $0.fullReason } }

  /// The instant: requests in flight end, and from then on everything that is wanted is held.
  ///
  /// - Parameter checkpoint: begins at the same instant: what is written from then on is the next
  ///   backup's.
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: `.readOnly`; `.timeout` and what a checkpoint is refused with; with nothing begun.
  package func start(
    until deadline: Deadline, beginning checkpoint: NewCheckpoint? = nil
  ) throws(DeviceError) -> UInt64 {
    guard !device.isReadOnly else { throw DeviceError(.readOnly, "the disk is read-only") }
    func begin() {
      guard let since else { return }
      let wanted = since.clusters(device.geometry)
      state.update { $0 = PushBackupState(wanted, fullReason: since.inconsistency) }
    }
    guard let checkpoint else {
      return try device.beginRecording(self, until: deadline) { () throws(DeviceError) in begin() }
    }
    do throws(DeviceError) {
      return try device.makeCheckpoint(checkpoint, until: deadline) { () throws(DeviceError) in
        begin()
        device.add(self)
      }
    } catch {
      try? stop(until: deadline)
      throw error
    }
  }

  /// Lets every request go on, and holds nothing any more.
  ///
  /// - Throws: `.timeout` when the disk could not forget it; call it again. Nothing is held all the same.
  package func stop(until deadline: Deadline) throws(DeviceError) {
    end(.stopped)
    _ = try device.endRecording(self, until: deadline)
  }

  package var geometry: Geometry { device.geometry }

  /// Ends it, for a reason of the caller's.
  package func fail(_ reason: String) { end(.failed(reason)) }

  /// Ends it; the first end is the one that counts.
  func end(_ end: End) {
    let isFirst = state.update { $0.end(end) }
    options.scratch?.clear()
    if isFirst, end != .stopped { changed(.failed) }
  }

  // MARK: For requests

  private func clusters(_ range: Range<UInt64>) -> ClosedRange<Int> {
    let shift = UInt64(device.geometry.clusterShift)
    return Int(range.lowerBound >> shift)...Int((max(range.upperBound, 1) - 1) >> shift)
  }

  package func mayOverwrite(_ range: Range<UInt64>) -> Bool {
    let clusters = clusters(range)
    return state.withLock { $0.isFree(clusters) }
  }

  package func mark(_ range: Range<UInt64>) {}

  package func willOverwrite(_ range: Range<UInt64>) throws(DeviceError) {
    let clusters = clusters(range)
    var since = options.clock()
    let start = since
    while !save(clusters), !state.withLock({ $0.isFree(clusters) }) {
      engine.aside { park(clusters, &since) }
    }
    let waited = options.clock() - start
    state.withLock { $0.longestWait = max($0.longestWait, waited) }
  }

  /// Waits until no cluster of the range is held, or one that was not may be saved now.
  ///
  /// - Parameter since: when the request began to wait.
  private func park(_ clusters: ClosedRange<Int>, _ since: inout UInt64) {
    let number = state.update { $0.park(clusters, since: since) }
    changed(.pending)
    defer { state.update { $0.leave(number) } }
    while true {
      let start = since
      let mayGoOn = state.wait(until: deadline(since: start)) { state -> Bool? in
        if state.isFree(clusters) || options.scratch?.hasRoom == true { return true }
        return isLate(since: start) ? false : nil
      }
      guard mayGoOn != true else { return }
      guard isLate(since: start) else { continue }
      guard device.isSuspended else {
        let seconds = options.deadlineNanoseconds / 1_000_000_000
        return end(.failed("a request has waited for \(seconds) seconds"))
      }
      // Whoever copies a suspended disk waits as well.
      since = options.clock()
      state.update { $0.prolonged += 1 }
    }
  }

  private func isLate(since start: UInt64) -> Bool {
    options.onDeadline != .wait && options.clock() - start >= options.deadlineNanoseconds
  }

  private func deadline(since start: UInt64) -> Deadline {
    guard options.onDeadline != .wait else { return .never }
    let passed = min(options.clock() - start, options.deadlineNanoseconds)
    let left = (options.deadlineNanoseconds - passed) / 1_000_000
    return .after(milliseconds: Int(clamping: left) + 1)
  }

  /// Has requests that wait look at the clock again.
  package func lookAgain() { state.update { _ in } }
}
