internal import PloopDevice
internal import PloopIO

/// Makes the steps of a merge durable, one at a time, beside the copying of the next.
final class StepFlush: Sendable {
  private struct State {
    var isRunning = false
    /// What the flush that ended last has made durable, until somebody asks.
    var ended: Result<UInt64, DeviceError>?
  }

  private let merge: DeltaMerge
  private let engine: IOEngine
  private let state = Monitor(State())

  init(_ merge: DeltaMerge, _ engine: IOEngine) {
    self.merge = merge
    self.engine = engine
  }

  func begin(through clusters: UInt64) {
    state.withLock { $0.isRunning = true }
    engine.submit { [self] in
      let result: Result<UInt64, DeviceError>
      do throws(DeviceError) {
        try merge.flush()
        result = .success(clusters)
      } catch { result = .failure(error) }
      state.update { state in
        state.isRunning = false
        state.ended = result
      }
    }
  }

  /// Waits for the flush that runs.
  ///
  /// - Returns: how many clusters it has made durable; nil when none has run since it was asked last.
  @discardableResult
  func wait() throws(DeviceError) -> UInt64? {
    let ended: Result<UInt64, DeviceError>?? = state.wait { state in
      guard !state.isRunning else { return nil }
      defer { state.ended = nil }
      return .some(state.ended)
    }
    return try (ended ?? nil)?.get()
  }
}
