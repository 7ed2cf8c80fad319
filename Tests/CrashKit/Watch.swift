internal import PloopIO

/// The probe of a recording: everything is traced, and a plan may make calls fail.
///
/// While the harness itself reads to compare, the watch is paused: its calls are neither counted
/// nor failed.
final class Watch: IOProbe {
  private struct State {
    var isPaused = false
    var number = 0
    var hit: IOOperation?
    var rule: Rule?
  }

  typealias Rule = @Sendable (_ number: Int, _ operation: IOOperation) -> IOFault?

  let trace = IOTrace()
  private let state = Locked(State())

  /// Asked for each call with its number, counted from 0.
  func use(_ rule: Rule?) { state.withLock { $0.rule = rule } }

  /// The first call that a fault was given to.
  var hit: IOOperation? { state.withLock { $0.hit } }

  func paused<Result>(_ body: () throws -> Result) rethrows -> Result {
    state.withLock { $0.isPaused = true }
    defer { state.withLock { $0.isPaused = false } }
    return try body()
  }

  func fault(for operation: IOOperation, path: String) -> IOFault? {
    let (rule, number) = state.withLock { state -> (Rule?, Int) in
      guard !state.isPaused else { return (nil, 0) }
      defer { state.number += 1 }
      return (state.rule, state.number)
    }
    guard let fault = rule?(number, operation) else { return nil }
    state.withLock { $0.hit = $0.hit ?? operation }
    return fault
  }

  func syncStarts(path: String) { trace.syncStarts(path: path) }

  func succeeded(_ operation: IOOperation, path: String, bytes: UnsafeRawBufferPointer) {
    trace.succeeded(operation, path: path, bytes: bytes)
  }
}
