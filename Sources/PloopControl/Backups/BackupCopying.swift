internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// Copies a disk to a target, or from one, that may have no room, or be gone, at any time.
///
/// What a target does is waited for: it is opened anew until it is of use again, and the copying goes on at
/// what was durable, so that at most one step is copied again.
final class BackupCopying {
  private let source: any BackupSource
  private let control: JobControl
  private let engine: IOEngine
  private let place: any BackupPlace
  private let phases: (copying: String, ending: String)
  /// Why there is nothing to copy from any more, if that is so.
  private let obstacle: () -> ServiceError?
  private var copy: BackupCopy?
  /// Clusters before it are in the job's progress.
  private var counted: UInt64 = 0
  private var bytesRead: UInt64 = 0
  private var pace = StepPace()
  private var isShortOfRoom = false
  /// Whether the target has taken it: what fails from then on is no matter of what it builds on.
  private(set) var hasBegun = false

  init(
    _ source: any BackupSource, to place: any BackupPlace, _ control: JobControl,
    on engine: IOEngine,
    phases: (copying: String, ending: String) = (BackupJob.phases[1], BackupJob.phases[2]),
    obstacle: @escaping () -> ServiceError? = { nil }
  ) {
    self.source = source
    self.place = place
    self.control = control
    self.engine = engine
    self.phases = phases
    self.obstacle = obstacle
  }

  /// Copies everything, from what is there on, and ends it.
  ///
  /// - Parameter disk: waits, before each step, until the disk can be read.
  /// - Returns: what the manifest says; nil where it was made whole a moment ago, and that could not be told.
  func run(
    awaiting disk: () throws(JobStop) -> Void
  ) throws(JobStop) -> PointManifest.Result? {
    try copy(awaiting: disk)
    return try end { () throws(JobStop) in try control.commit() }
  }

  /// Copies everything, from what is there on.
  func copy(awaiting disk: () throws(JobStop) -> Void = {}) throws(JobStop) {
    try abandoning { () throws(JobStop) in
      while true {
        try control.checkpoint()
        try disk()
        guard try waiting({ () throws(ServiceError) in try step() }) else { break }
      }
    }
  }

  /// Makes a whole copy of it.
  ///
  /// - Parameter commit: from then on the job is finished, whatever anybody wants.
  /// - Returns: as ``run(awaiting:)``.
  func end(
    committing commit: () throws(JobStop) -> Void
  ) throws(JobStop) -> PointManifest.Result? {
    try abandoning { () throws(JobStop) in
      try commit()
      control.enter(phase: phases.ending)
      return try waiting { () throws(ServiceError) in try finish() }
    }
  }

  private func abandoning<Result>(
    _ body: () throws(JobStop) -> Result
  ) throws(JobStop) -> Result {
    do throws(JobStop) { return try body() } catch {
      copy?.abandon()
      throw error
    }
  }

  private func waiting<Result>(
    _ body: () throws(ServiceError) -> Result
  ) throws(JobStop) -> Result {
    try control.retrying(waitingFor: place.blocker) { () throws(ServiceError) in
      if let obstacle = obstacle() { throw obstacle }
      return try body()
    }
  }

  // MARK: A step

  /// - Returns: false when nothing is left.
  private func step() throws(ServiceError) -> Bool {
    guard let copy = try opened() else { return false }
    let start = monotonicNanoseconds()
    let limit = pace.bytes(limits: control.rates, geometry: source.geometry)
    let goesOn = try attempt { () throws(BackupError) in
      let goesOn = try copy.step(limitBytes: limit)
      try copy.commit()
      return goesOn
    }
    pace.took(monotonicNanoseconds() - start)
    isShortOfRoom = false
    advance(copy)
    return goesOn
  }

  private func finish() throws(ServiceError) -> PointManifest.Result? {
    guard let copy = try opened() else { return nil }
    return try attempt { () throws(BackupError) in try copy.finish() }
  }

  /// After an error nothing is to be done with a sink but to open it anew.
  private func attempt<Result>(
    _ body: () throws(BackupError) -> Result
  ) throws(ServiceError) -> Result {
    do throws(BackupError) { return try body() } catch {
      copy?.abandon()
      copy = nil
      pace.restart()
      isShortOfRoom = error.kind == .outOfSpace
      throw obstacle() ?? place.failure(error)
    }
  }

  /// - Returns: nil when the copy is whole: it was made so a moment ago, and that could not be told.
  private func opened() throws(ServiceError) -> BackupCopy? {
    if let copy { return copy }
    // Else each look at a full target would write what it takes, in vain.
    if isShortOfRoom { try place.requireRoom(pace.leastBytes(source.geometry)) }
    let sink: any BackupSink
    do throws(ServiceError) { sink = try place.open() } catch {
      guard error.code == .imageExists, hasBegun, try place.isWhole() else { throw error }
      return nil
    }
    let new = BackupCopy(from: source, to: sink, on: engine)
    copy = new
    begin(new)
    return new
  }

  // MARK: How far it is

  private func begin(_ copy: BackupCopy) {
    let all = source.extent(of: 0..<source.geometry.clusterCount)
    let done = source.extent(of: 0..<copy.cursor)
    if !hasBegun {
      hasBegun = true
      control.enter(phase: phases.copying)
      control.total(clusters: all.clusters, bytes: all.bytes)
      control.log("\(all.clusters) clusters, \(all.bytes) bytes")
    }
    guard copy.cursor > 0 else { return }
    control.log(
      "goes on at cluster \(copy.cursor): \(done.bytes) of \(all.bytes) bytes are copied")
    if counted < copy.cursor {
      let new = source.extent(of: counted..<copy.cursor)
      control.advance(clusters: new.clusters, bytes: new.bytes, charging: (0, 0))
      counted = copy.cursor
    }
    bytesRead = copy.progress.bytesRead
  }

  private func advance(_ copy: BackupCopy) {
    let read = copy.progress.bytesRead - min(copy.progress.bytesRead, bytesRead)
    bytesRead = copy.progress.bytesRead
    let shift = UInt64(source.geometry.clusterShift)
    let new = source.extent(of: min(counted, copy.cursor)..<copy.cursor)
    counted = max(counted, copy.cursor)
    control.advance(
      clusters: new.clusters, bytes: new.bytes,
      charging: ((read + source.geometry.clusterBytes - 1) >> shift, read))
    control.persist()
  }
}

extension BackupSource {
  /// How much of a part of the disk is copied; its last cluster may be no whole one.
  func extent(of range: Range<UInt64>) -> (clusters: UInt64, bytes: UInt64) {
    var clusters = UInt64(range.count)
    var hasLast = range.upperBound == geometry.clusterCount && !range.isEmpty
    if let wanted {
      clusters = UInt64(wanted.setCount(in: Int(range.lowerBound)..<Int(range.upperBound)))
      hasLast = hasLast && wanted[Int(range.upperBound) - 1]
    }
    let missing = hasLast ? geometry.clusterCount * geometry.clusterBytes - geometry.sizeBytes : 0
    return (clusters, clusters * geometry.clusterBytes - missing)
  }
}

/// How much is copied between two looks at what is wanted: what takes about half a second. Each step ends with
/// what makes it durable, so short ones are mostly waiting for the disk.
struct StepPace {
  static let mostBytes: UInt64 = 256 << 20
  private static let shortNanoseconds: UInt64 = 250_000_000
  private static let longNanoseconds: UInt64 = 1_000_000_000

  private static let fewBytes: UInt64 = 1 << 20
  private var current: UInt64 = 16 << 20

  /// What a step takes at least, with what is written beside it.
  func leastBytes(_ geometry: Geometry) -> UInt64 {
    max(StepPace.fewBytes, 2 * geometry.clusterBytes)
  }

  mutating func restart() { current = StepPace.fewBytes }

  /// - Parameter limits: bytes and clusters in a second that are not to be exceeded; 0 is no limit.
  func bytes(limits: JobLimits, geometry: Geometry) -> UInt64 {
    var bytes = current
    if limits.bytesPerSecond > 0 { bytes = min(bytes, limits.bytesPerSecond / 2) }
    if limits.operationsPerSecond > 0 {
      bytes = min(
        bytes,
        limits.operationsPerSecond.multipliedReportingOverflow(by: geometry.clusterBytes)
          .partialValue / 2)
    }
    return max(bytes, geometry.clusterBytes)
  }

  mutating func took(_ nanoseconds: UInt64) {
    if nanoseconds < StepPace.shortNanoseconds {
      current = min(StepPace.mostBytes, current * 2)
    } else if nanoseconds > StepPace.longNanoseconds {
      current = max(StepPace.fewBytes, current / 2)
    }
  }
}
