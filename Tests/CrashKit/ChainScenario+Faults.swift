internal import Glibc
internal import PloopDevice
internal import PloopIO
internal import TestSupport

extension ChainScenario {
  /// How many calls it makes.
  package func calls(path: String) throws -> Int {
    let count = Locked(0)
    let recording = try recording(path: path)
    recording.watch.use { number, _ in
      count.withLock { $0 = number + 1 }
      return nil
    }
    try run(recording)
    return count.withLock { $0 }
  }

  /// Runs it until a call fails, and then looks at what is there, as the next attach does.
  ///
  /// - Parameters:
  ///   - number: of the call that fails.
  ///   - isKill: all calls behind it fail as well: the process is gone.
  ///   - path: an empty folder.
  package func run(failing number: Int, isKill: Bool, path: String) throws -> String? {
    let recording = try recording(path: path)
    recording.watch.use { call, _ in
      (isKill ? call >= number : call == number) ? .error(EIO) : nil
    }
    do { try run(recording) } catch {}
    let position = recording.position
    if !isKill { recording.watch.use(nil) }
    // Closed if it can be; what cannot be closed is left as a killed process leaves it.
    try? recording.device?.detach(until: .after(seconds: 10))
    recording.watch.use(nil)
    // A file that the process would have written next is never told that the image was closed.
    if isKill, let last = recording.closings.popLast() {
      recording.closings.append(last.lowerBound..<max(last.upperBound, position + 1))
    }
    var state: [String: [UInt8]] = [:]
    for name in try recording.plain.names() {
      state[name] = try recording.plain.bytes(of: name, limit: 1 << 20)
    }
    let scratch = try ImageFolder(path: path, probe: SteadyFiles()).makeFolder(beneath: "after")
    return recording.check(state, at: position, in: scratch, mayLose: !isKill)
  }
}
