internal import Glibc
internal import PloopDevice
internal import PloopFormat
package import PloopIO

/// Runs a scenario again for each of its system calls and each fault that the call can meet: the
/// caller gets its error, nobody else's data changes, and the disk goes on or comes back.
package struct FaultSweep {
  package enum Fault: String, CaseIterable, Sendable {
    case ioError = "EIO"
    case noSpace = "ENOSPC once"
    case diskFull = "ENOSPC from here on"
    case unsupported = "EOPNOTSUPP"
    case interrupted = "EINTR"
    case short = "a short transfer"
    case stall = "a stall"
    /// No further call is made: the process is gone, and attaches again with safe repair.
    case kill = "a kill"

    func applies(to operation: IOOperation) -> Bool {
      switch (self, operation) {
      case (.ioError, _), (.kill, _), (.interrupted, .read), (.interrupted, .write),
        (.interrupted, .sync),
        (.interrupted, .truncate), (.interrupted, .allocate), (.interrupted, .punchHole),
        (.interrupted, .cloneRange), (.unsupported, .cloneRange), (.noSpace, .cloneRange),
        (.diskFull, .cloneRange),
        (.short, .read), (.short, .write), (.stall, _), (.unsupported, .allocate),
        (.unsupported, .punchHole), (.noSpace, .write), (.noSpace, .sync), (.noSpace, .allocate),
        (.noSpace, .truncate), (.noSpace, .create), (.diskFull, .write), (.diskFull, .allocate):
        return true
      default: return false
      }
    }

    /// Whether every call from the chosen one on meets it.
    var lasts: Bool { self == .diskFull || self == .kill }

    /// Whether somebody has to get an error for it; nil where it depends.
    func mustFail(_ operation: IOOperation) -> Bool? {
      switch (self, operation) {
      case (.interrupted, _), (.short, _), (.stall, _), (.unsupported, _): false
      // Giving space back is a hint, and a file system that cannot is lived with.
      case (.ioError, .punchHole): nil
      // What cannot be shared is copied.
      case (.noSpace, .cloneRange): false
      case (.ioError, _), (.noSpace, .sync), (.noSpace, .truncate), (.noSpace, .create): true
      // A request that meets a full disk frees what may be freed and is made once more.
      case (.noSpace, _), (.diskFull, _), (.kill, _): nil
      }
    }
  }

  package struct Result: Sendable {
    package var runs = 0
    package var bad: [String] = []

    package init() {}

    package static func += (left: inout Result, right: Result) {
      left.runs += right.runs
      left.bad += right.bad
    }
  }

  private let scenario: Scenario
  private let seed: UInt64
  private let scratch: ScratchFolder
  /// What the scenario does when nothing fails.
  package let operations: [IOOperation]

  package init(_ scenario: Scenario, seed: UInt64) throws {
    self.scenario = scenario
    self.seed = seed
    scratch = try ScratchFolder()
    let seen = Locked<[Int: IOOperation]>([:])
    let recording = try Recording(path: scratch.folder("counted"), scenario.setup)
    recording.plan { number, operation in
      seen.withLock { $0[number] = operation }
      return nil
    }
    try scenario.run(recording, seed: seed)
    operations = seen.withLock { seen in seen.sorted { $0.key < $1.key }.map(\.value) }
  }

  /// - Parameters:
  ///   - stride: every how many calls one is failed, beginning with call `first`.
  ///   - sample: called with the path of each image afterwards, for other tools to judge.
  package func run(
    first: Int = 0, stride step: Int = 1, sample: (_ image: String) throws -> Void = { _ in }
  ) throws -> Result {
    var result = Result()
    for number in stride(from: first, to: operations.count, by: step) {
      for fault in Fault.allCases where fault.applies(to: operations[number]) {
        let path = scratch.folder("run")
        defer {
          ScratchFolder.remove(path)
          ScratchFolder.remove("\(scratch.path)/states")
        }
        let bad = try run(number, fault, path: path)
        result.runs += 1
        result.bad += bad.map {
          "\(scenario.rawValue), call \(number) \(operations[number]), \(fault.rawValue): \($0)"
        }
        try sample("\(path)/\(Recording.top)")
      }
    }
    return result
  }

  private func run(_ number: Int, _ fault: Fault, path: String) throws -> [String] {
    let recording = try Recording(path: path, scenario.setup, toleratesFaults: true)
    recording.expect(fault)
    recording.plan { [weak recording] call, operation in
      let isHit = fault.lasts ? call >= number : call == number
      guard isHit, fault.applies(to: operation) else { return nil }
      recording?.state.withLock { state in
        state.hitWasConcurrent = state.hitWasConcurrent ?? state.isConcurrent
      }
      switch fault {
      case .ioError, .kill: return .error(EIO)
      case .noSpace, .diskFull: return .error(ENOSPC)
      case .unsupported: return .error(EOPNOTSUPP)
      case .interrupted: return .error(EINTR)
      case .short: return .short
      case .stall: return .stall { [recording] in recording?.readMeanwhile() }
      }
    }
    do {
      try scenario.run(recording, seed: seed)
      try recording.checkEnd()
    } catch {
      recording.report("\(error)")
    }
    recording.checkFailures(fault, isShared: scenario.sharesFaults || fault.lasts)
    guard let restart = recording.restart else { return recording.problems }
    // Power may fail while what a killed process left is being attached.
    let states = try Enumeration(recording, path: scratch.folder("states")).run(
      Bounds(samples: 2, seed: seed), positions: restart)
    return recording.problems + states.bad
  }
}

extension Recording {
  /// While a call stalls, a reader must not wait for it.
  func readMeanwhile() {
    guard let device, !device.isSuspended else { return }
    let ended = Monitor(false)
    do {
      let reader = try Thread(name: "crash-reader") {
        do {
          _ = try self.watch.paused { try Recording.values(of: device) }
        } catch { self.report("a read beside a stalled call: \(error)") }
        ended.update { $0 = true }
      }
      if ended.wait(until: .after(seconds: 10), { $0 ? true : nil }) != true {
        report("a read waits for a stalled call")
      }
      reader.join()
    } catch { report("\(error)") }
  }

  /// The disk was closed: its image is clean, and reads as the guest was promised.
  func checkEnd() throws {
    plan(nil)
    let check = try ImageCheck(try plain.open(Recording.top, writable: false))
    if check.verdict != .clean { report("closed, and needs repair: \(check)") }
    let device = try Recording.attach(setup, in: plain, repair: false)
    _ = try compare(device, "at the end") { $0.readable(sector: $1) }
    try device.detach(until: .after(seconds: 10))
  }

  /// Whether it is a read of a page of an index, or of an entry, beside other threads. Where several want the page, one
  /// of them may have pinned and changed it while another fails to read it: that one has it from memory then, and
  /// nobody is told (docs/locking.md, "Pages of maps").
  private func isSharedRead(ofIndex operation: IOOperation) -> Bool {
    guard case .read(let offset, let count) = operation, let path = watch.hitPath,
      state.withLock({ $0.hitWasConcurrent == true })
    else { return false }
    return offset < setup.geometry.headerBytes && count != Header.byteCount
      && [Recording.top, Recording.base].contains { path.hasSuffix("/\($0)") }
  }

  /// Holds who failed against what had to fail.
  ///
  /// - Parameter isShared: whether one fault may reach several callers.
  func checkFailures(_ fault: FaultSweep.Fault, isShared: Bool) {
    let (failures, hasRecovered) = state.withLock { ($0.failures, $0.hasRecovered) }
    guard let hit = watch.hit else { return }
    // Without room a repair that changes no entry saves none.
    if fault == .noSpace, watch.hitPath?.contains(".index-backup") == true { return }
    // A file is lengthened within a request for what is to share blocks, and that is made once more.
    if fault == .noSpace, setup.sharesBlocks, case .truncate = hit, failures.isEmpty { return }
    switch fault.mustFail(hit) {
    case true? where failures.isEmpty && isSharedRead(ofIndex: hit): break
    case true? where failures.isEmpty: report("nobody was told")
    case false? where !failures.isEmpty: report("somebody was told: \(failures)")
    default: break
    }
    if failures.count > 1, !isShared { report("several were told: \(failures)") }
    if case .sync = hit, fault.mustFail(hit) == true, !hasRecovered {
      report("a failed sync was not believed")
    }
  }
}
