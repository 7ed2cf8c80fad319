internal import Glibc
internal import PloopDevice
package import PloopIO
internal import TestSupport

extension ChainScenario {
  package enum Fault: String, CaseIterable, Sendable {
    case error = "EIO"
    /// Once; what a merge does is tried again then, as the service does.
    case noSpace = "ENOSPC once"
    /// All calls behind it fail as well: the process is gone.
    case kill = "a kill"

    package func applies(to operation: IOOperation) -> Bool {
      switch (self, operation) {
      case (.error, _), (.kill, _), (.noSpace, .create), (.noSpace, .write), (.noSpace, .allocate),
        (.noSpace, .truncate), (.noSpace, .rename), (.noSpace, .cloneRange):
        true
      case (.noSpace, _): false
      }
    }
  }

  /// The calls that it makes where it is to meet a fault.
  package func calls(before fault: Fault, path: String) throws -> [IOOperation] {
    let calls = Locked<[IOOperation]>([])
    let recording = try recording(path: path)
    recording.triesAgain = fault == .noSpace
    recording.watch.use { _, operation in
      calls.withLock { $0.append(operation) }
      return nil
    }
    try run(recording)
    return calls.withLock { $0 }
  }

  /// Runs it until a call fails for good, and then looks at what is there, as the next attach does.
  ///
  /// - Parameters:
  ///   - number: of the call that fails. What several threads do is not numbered alike each time: where the call is
  ///     one by now that cannot meet the fault, the next that can does.
  ///   - path: an empty folder.
  package func run(failing number: Int, by fault: Fault, path: String) throws -> String? {
    let recording = try recording(path: path)
    recording.triesAgain = fault == .noSpace
    let isSpent = Locked(false)
    recording.watch.use { call, operation in
      guard call >= number, fault.applies(to: operation) else { return nil }
      let isHit = isSpent.withLock { isSpent in
        defer { isSpent = true }
        return fault == .kill || !isSpent
      }
      guard isHit else { return nil }
      return .error(fault == .noSpace ? ENOSPC : EIO)
    }
    do { try run(recording) } catch {
      if recording.isMerging, fault == .noSpace { return "a merge does not go on: \(error)" }
    }
    let position = recording.position
    if fault != .kill { recording.watch.use(nil) }
    // Closed if it can be; what cannot be closed is left as a killed process leaves it.
    try? recording.device?.detach(until: .after(seconds: 10))
    recording.watch.use(nil)
    // A file that the process would have written next is never told that the image was closed.
    if fault == .kill, let last = recording.closings.popLast() {
      recording.closings.append(last.lowerBound..<max(last.upperBound, position + 1))
    }
    var state: [String: [UInt8]] = [:]
    for name in try recording.plain.names() {
      state[name] = try recording.plain.bytes(of: name, limit: 1 << 20)
    }
    let scratch = try ImageFolder(path: path, probe: SteadyFiles()).makeFolder(beneath: "after")
    return recording.check(
      state, at: position, in: scratch, mayLose: fault != .kill, whileRunning: false)
  }
}
