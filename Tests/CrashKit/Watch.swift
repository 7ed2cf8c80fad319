internal import PloopIO

/// The probe of a recording: everything is traced, and a plan may make calls fail.
///
/// While the harness itself reads to compare, the watch is paused: its calls are neither counted
/// nor failed.
final class Watch: IOProbe {
  private struct State {
    var isPaused = false
    var number = 0
    var hit: (operation: IOOperation, path: String)?
    var rule: Rule?
    var guests: [Guest] = []
    var renamed: [String] = []
  }

  typealias Rule = @Sendable (_ number: Int, _ operation: IOOperation) -> IOFault?

  /// Does something once, ahead of the first call that it waits for.
  struct Guest: Sendable {
    /// Asked with the names that were given by renaming since the guest was admitted.
    let waits: @Sendable (_ operation: IOOperation, _ path: String, _ renamed: [String]) -> Bool
    let body: @Sendable () -> Void
  }

  let trace = IOTrace()
  let sharesBlocks: Bool
  private let state = Locked(State())

  init(sharesBlocks: Bool = false) { self.sharesBlocks = sharesBlocks }

  /// Asked for each call with its number, counted from 0.
  func use(_ rule: Rule?) { state.withLock { $0.rule = rule } }

  /// Those who were admitted before and still wait are sent away.
  func admit(_ guests: [Guest]) {
    state.withLock { state in
      state.guests = guests
      state.renamed = []
    }
  }

  /// The first call that a fault was given to.
  var hit: IOOperation? { state.withLock { $0.hit?.operation } }
  var hitPath: String? { state.withLock { $0.hit?.path } }

  /// Counts from 0 again, and forgets what was hit.
  func restart() {
    state.withLock { state in
      state.number = 0
      state.hit = nil
    }
  }

  func paused<Result>(_ body: () throws -> Result) rethrows -> Result {
    state.withLock { $0.isPaused = true }
    defer { state.withLock { $0.isPaused = false } }
    return try body()
  }

  func fault(for operation: IOOperation, path: String) -> IOFault? {
    let guest = state.withLock { state -> Guest? in
      guard !state.isPaused,
        let next = state.guests.firstIndex(where: { $0.waits(operation, path, state.renamed) })
      else { return nil }
      return state.guests.remove(at: next)
    }
    guest?.body()
    let (rule, number) = state.withLock { state -> (Rule?, Int) in
      guard !state.isPaused else { return (nil, 0) }
      defer { state.number += 1 }
      return (state.rule, state.number)
    }
    guard let fault = rule?(number, operation) else { return nil }
    state.withLock { $0.hit = $0.hit ?? (operation, path) }
    return fault
  }

  func stamp(_ actual: FileStamp, path: String) -> FileStamp { .steady(actual, path: path) }

  func syncStarts(path: String) { trace.syncStarts(path: path) }

  func succeeded(_ operation: IOOperation, path: String, bytes: UnsafeRawBufferPointer) {
    trace.succeeded(operation, path: path, bytes: bytes)
    if case .rename(let name) = operation { state.withLock { $0.renamed.append(name) } }
  }
}

/// Has the files of a replayed state pass for those that were recorded.
final class SteadyFiles: IOProbe {
  func fault(for operation: IOOperation, path: String) -> IOFault? { nil }
  func syncStarts(path: String) {}
  func succeeded(_ operation: IOOperation, path: String, bytes: UnsafeRawBufferPointer) {}
  func stamp(_ actual: FileStamp, path: String) -> FileStamp { .steady(actual, path: path) }
}

extension FileStamp {
  /// The same file by its name, wherever it lies, and nobody has written it but the recorded disk: the
  /// harshest case, since nothing but its length and header tells of a change.
  static func steady(_ actual: FileStamp, path: String) -> FileStamp {
    let name = path.split(separator: "/").last ?? ""
    return FileStamp(
      inode: name.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) }, sizeBytes: actual.sizeBytes,
      seconds: 0,
      nanoseconds: 0)
  }
}

extension Watch {
  /// Runs a scenario in which a call fails, and has what is in the folder then looked at.
  ///
  /// - Parameters:
  ///   - isKill: all calls behind it fail as well: the process is gone.
  ///   - check: gets the folder's files, and how many calls there were.
  /// - Returns: what is wrong; also when a call has failed and nobody was told.
  func run(
    failing number: Int, with code: Int32, isKill: Bool, in folder: ImageFolder,
    _ scenario: () throws -> Void, check: ([String: [UInt8]], _ position: Int) throws -> String?
  ) throws -> String? {
    use { call, _ in (isKill ? call >= number : call == number) ? .error(code) : nil }
    var wasTold = false
    do { try scenario() } catch { wasTold = true }
    let position = trace.events.count
    use(nil)
    guard wasTold || hit == nil else { return "nobody was told" }
    var state: [String: [UInt8]] = [:]
    for name in try folder.names() { state[name] = try folder.bytes(of: name, limit: 1 << 20) }
    return try check(state, position)
  }
}
