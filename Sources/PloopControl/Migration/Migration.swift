internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// One attempt at moving a disk: rounds of copying until what is left can be copied while writers wait for no longer
/// than they may, and the hand-over then.
///
/// Where the disk is written faster than it can be copied there is no end to the rounds: the job says so, and goes
/// on. Until the hand-over guests notice nothing but writers that have waited in vain, no longer than allowed.
final class Migration {
  private let job: MigrateJob
  private let place: any MigrationPlace
  private let handOver: HandOver
  private let control: JobControl
  private let service: Service
  private var forecast = DowntimeForecast()
  private var pace = StepPace()
  /// Bytes of all rounds, and those that are copied.
  private var total: UInt64 = 0
  private var done: UInt64 = 0
  /// Of the present round: bytes that it has, and that are counted.
  private var size = (all: UInt64(0), counted: UInt64(0))
  /// Bytes that each round had to copy.
  private var rounds: [UInt64] = []
  private var bytesRead: UInt64 = 0
  private var tries = 0
  /// Whether the other side was lost, and everything was copied again.
  private(set) var hasRestarted = false

  /// As much as a moment of writing.
  private static let littleBytes: UInt64 = 4 << 20
  /// Rounds whose sizes are told.
  private static let roundsTold = 1_000

  init(
    _ job: MigrateJob, to place: any MigrationPlace, _ handOver: HandOver, _ control: JobControl,
    _ service: Service
  ) {
    self.job = job
    self.place = place
    self.handOver = handOver
    self.control = control
    self.service = service
  }

  /// For how long writers may wait, as whoever watches it wants it now.
  private var downtimeMilliseconds: UInt64 {
    (try? MigrateJob(control.parameters, device: job.device))?.downtimeMilliseconds
      ?? job.downtimeMilliseconds
  }

  private var deadline: Deadline { .after(seconds: service.configuration.quiesceSeconds) }

  /// - Returns: what the job's result says of it, and when writers were stopped.
  func run() throws(JobStop) -> ([String: JobValue], Downtime) {
    let (controller, disk, copy) = try failing { () throws(ServiceError) in try begin() }
    defer { try? copy.end(until: deadline) }
    while true {
      try copyRound(copy, disk)
      if let downtime = try switchOver(copy, disk, controller) {
        control.log("handed over; writers have waited for \(downtime.nanoseconds / 1_000) µs")
        return (result(downtime), downtime)
      }
      size = (copy.nextRound(), 0)
      tell(copy, disk)
    }
  }

  private func begin() throws(ServiceError) -> (DeviceController, Device, LiveCopy) {
    let (id, service) = (control.id, service)
    let controller = try service.controller(job.device)
    let disk = try controller.runAndWait { () throws(ServiceError) in
      try service.requireFree(controller, but: id)
      let (disk, _) = try service.writable(controller)
      return disk
    }
    let copy = try converting { () throws(DeviceError) in
      try LiveCopy(of: disk, place.space, until: deadline, on: service.engine)
    }
    return (controller, disk, copy)
  }

  // MARK: A round

  /// Copies a round, durably. Where the other side is lost everything is copied again: it may have forgotten what it
  /// had.
  private func copyRound(_ copy: LiveCopy, _ disk: Device) throws(JobStop) {
    let start = monotonicNanoseconds()
    var worked: UInt64 = 0
    while true {
      try control.checkpoint()
      try control.awaitResume(of: disk, named: job.device)
      let goesOn = try reaching(copy) { () throws(ServiceError) in
        if !copy.isOpen {
          try open(copy, disk)
          worked = 0
        }
        let begun = monotonicNanoseconds()
        let goesOn = try step(copy, disk)
        worked += monotonicNanoseconds() - begun
        return goesOn
      }
      if goesOn { continue }
      let begun = monotonicNanoseconds()
      let isDurable = try reaching(copy) { () throws(ServiceError) in
        guard copy.isOpen else { return false }
        try attempt(copy) { () throws(BackupError) in try copy.flush() }
        return true
      }
      guard isDurable else { continue }
      forecast.took(worked + monotonicNanoseconds() - begun, for: size.all)
      break
    }
    advance(by: size.all - min(size.all, size.counted), reading: 0, disk)
    let begun = monotonicNanoseconds()
    control.persist()
    forecast.wrote(in: monotonicNanoseconds() - begun)
    guard isTold(copy.round) else { return }
    control.log(
      "round \(copy.round): \(size.all) bytes in \((begun - start) / 1_000_000) ms; \(copy.writtenBytes) were written meanwhile"
    )
  }

  /// There may be very many.
  private func isTold(_ round: Int) -> Bool { round <= 16 || round.nonzeroBitCount == 1 }

  private func reaching<Result>(
    _ copy: LiveCopy, _ body: () throws(ServiceError) -> Result
  ) throws(JobStop) -> Result {
    try control.retrying(waitingFor: place.blocker, body)
  }

  private func open(_ copy: LiveCopy, _ disk: Device) throws(ServiceError) {
    let (export, isBlank) = try place.open(for: disk.geometry)
    let bytes = try backingUp { () throws(BackupError) in
      try copy.begin(to: export, isBlank: isBlank)
    }
    if !rounds.isEmpty {
      hasRestarted = true
      control.log(
        "\(place.words) was lost, and may have lost what it had: everything is copied again",
        level: "warning")
    }
    size = (bytes, 0)
    control.enter(phase: MigrateJob.phases[0])
    tell(copy, disk)
  }

  /// What a new round has to copy.
  private func tell(_ copy: LiveCopy, _ disk: Device) {
    count(disk)
    guard copy.round >= 10, copy.round == 10 || copy.round > 16 && isTold(copy.round) else {
      return
    }
    control.log(
      "\(copy.round) rounds, and \(size.all) bytes are left to copy in \(downtimeMilliseconds) ms at most: guests write about as fast as is copied",
      level: "warning")
  }

  private func step(_ copy: LiveCopy, _ disk: Device) throws(ServiceError) -> Bool {
    let start = monotonicNanoseconds()
    let limit = pace.bytes(limits: control.rates, geometry: disk.geometry)
    let (read, goesOn) = try attempt(copy) { () throws(BackupError) in
      try copy.step(limitBytes: limit)
    }
    pace.took(monotonicNanoseconds() - start)
    advance(by: min(read, size.all - min(size.all, size.counted)), reading: read, disk)
    return goesOn
  }

  private func count(_ disk: Device) {
    total += size.all
    if rounds.count < Migration.roundsTold { rounds.append(size.all) }
    control.total(clusters: total >> UInt64(disk.geometry.clusterShift), bytes: total)
  }

  private func advance(by bytes: UInt64, reading read: UInt64, _ disk: Device) {
    let shift = UInt64(disk.geometry.clusterShift)
    let clusters = (done + bytes) >> shift - done >> shift
    done += bytes
    size.counted += bytes
    bytesRead += read
    control.advance(
      clusters: clusters, bytes: bytes,
      charging: ((read + disk.geometry.clusterBytes - 1) >> shift, read))
  }

  private func attempt<Result>(
    _ copy: LiveCopy, _ body: () throws(BackupError) -> Result
  ) throws(ServiceError) -> Result {
    do throws(BackupError) { return try body() } catch {
      pace.restart()
      if case .target = error.kind { copy.hangUp() }
      throw ServiceError(error)
    }
  }

  // MARK: The rest

  /// Whether the disk may be handed over, when it is its turn.
  private enum Answer {
    case tooLate, putOff, yes
  }

  /// What became of an attempt at the hand-over.
  private enum Outcome {
    /// At these moments writers were stopped, and the disk was handed over; nanoseconds.
    case handedOver(from: UInt64, to: UInt64)
    /// Writers have waited in vain, and go on.
    case inVain(String)
    /// Something else is wanted of the job first.
    case putOff
  }

  /// Stops writers for the rest, if there is hope, and hands the disk over.
  ///
  /// - Returns: for how long writers have waited; nil where they went on.
  private func switchOver(
    _ copy: LiveCopy, _ disk: Device, _ controller: DeviceController
  ) throws(JobStop) -> Downtime? {
    let limit = downtimeMilliseconds * 1_000_000
    let expected = forecast.downtime(for: copy.writtenBytes)
    guard expected <= limit / 5 * 4 else {
      // Another round that copies next to nothing changes nothing.
      if size.all <= Migration.littleBytes {
        try later("it would take about \(expected / 1_000_000) ms")
      }
      return nil
    }
    try control.checkpoint()
    try control.awaitResume(of: disk, named: job.device)
    tries += 1
    // Nobody is held any more when this has come to nothing, whatever is waited for then.
    switch try stopAndHandOver(copy, disk, controller, limitNanoseconds: limit) {
    case .handedOver(let start, let end): return Downtime(begunAt: start, endedAt: end)
    case .inVain(let reason):
      forecast.failed()
      try later(reason)
    case .putOff: try control.checkpoint()
    }
    return nil
  }

  private func stopAndHandOver(
    _ copy: LiveCopy, _ disk: Device, _ controller: DeviceController,
    limitNanoseconds limit: UInt64
  ) throws(JobStop) -> Outcome {
    let hold: WriteHold
    do throws(DeviceError) {
      hold = try WriteHold(
        of: disk, limitNanoseconds: limit - min(limit / 2, forecast.ending),
        engine: service.engine)
    } catch {
      guard case .timeout = error.kind else { throw .failed(ServiceError(error)) }
      return .inVain("requests in flight have not ended in time")
    }
    var isHandedOver = false
    defer { if !isHandedOver { try? hold.release(until: deadline) } }
    if place.space == .image {
      // What of an index is not in the file yet is so, and marked, when this is done.
      try failing { () throws(ServiceError) in
        try converting { () throws(DeviceError) in try disk.flush() }
      }
    }
    size = (copy.nextRound(isLast: true), 0)
    guard let read = copyRest(copy) else { return .inVain("the rest could not be copied in time") }
    // Asked in the device's turn: until then the hold ends by itself, however long others have theirs.
    let answer = Locked(Answer.tooLate)
    let control = control
    do throws(ServiceError) {
      _ = try handOver.make(controller, until: .after(milliseconds: Int(downtimeMilliseconds))) {
        guard hold.keep() else { return false }
        let isCommitted = control.commitAtOnce()
        answer.withLock { $0 = isCommitted ? .yes : .putOff }
        return isCommitted
      }
    } catch {
      control.reopen()
      guard error.code == .drainTimeout else { throw .failed(error) }
      return .inVain("requests in flight have not ended in time")
    }
    switch answer.withLock({ $0 }) {
    case .tooLate: return .inVain("the rest was copied too late")
    case .putOff: return .putOff
    case .yes: break
    }
    hold.leaveToSuspension()
    isHandedOver = true
    let end = monotonicNanoseconds()
    control.tellCommitted()
    count(disk)
    advance(by: size.all, reading: read, disk)
    return .handedOver(from: hold.begunAt, to: end)
  }

  /// - Returns: bytes that were read, when all that was written is durable at the other side; nil when it failed.
  ///   Guests wait for it, so nothing else is waited for.
  private func copyRest(_ copy: LiveCopy) -> UInt64? {
    let start = monotonicNanoseconds()
    var all: UInt64 = 0
    do throws(ServiceError) {
      try attempt(copy) { () throws(BackupError) in
        while true {
          let (read, goesOn) = try copy.step(limitBytes: StepPace.mostBytes)
          all += read
          guard goesOn else { break }
        }
        try copy.flush()
      }
    } catch { return nil }
    forecast.took(monotonicNanoseconds() - start, for: size.all)
    return all
  }

  /// Another attempt is made after a while.
  private func later(_ reason: String) throws(JobStop) {
    let detail =
      "\(reason): writers may wait for \(downtimeMilliseconds) ms at most; it is tried again"
    try control.wait(for: JobBlocker(kind: .time, id: nil, detail: detail)) { true }
  }

  private func result(_ downtime: Downtime) -> [String: JobValue] {
    [
      "rounds": .number(UInt64(rounds.count)), "bytes_read": .number(bytesRead),
      "round_bytes": .list(rounds.map(JobValue.number)), "tries": .number(UInt64(tries)),
      "downtime_ms": .number((downtime.nanoseconds + 999_999) / 1_000_000),
      "downtime_ns": .number(downtime.nanoseconds),
    ]
  }
}

/// When writers were stopped, and when the disk was handed over; nanoseconds on the monotonic clock.
struct Downtime {
  var begunAt: UInt64
  var endedAt: UInt64

  var nanoseconds: UInt64 { endedAt - min(begunAt, endedAt) }
}
