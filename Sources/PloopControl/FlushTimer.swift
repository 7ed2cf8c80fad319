internal import PloopDevice
internal import PloopIO

/// Starts a flush round every few seconds on each disk that has something to flush, so that a guest
/// which never flushes loses little.
final class FlushTimer: Sendable {
  private let seconds: Int
  private let engine: IOEngine
  private let isStopping = Monitor(false)
  /// Disks whose round has not ended: a slow one must not collect rounds.
  private let running = Locked<Set<String>>([])

  init(seconds: Int, engine: IOEngine) {
    self.seconds = seconds
    self.engine = engine
  }

  func start(
    _ devices: @escaping @Sendable () -> [(id: String, device: Device)]
  ) throws(IOError) {
    let thread = try Thread(name: "ploopd-timer") { [self] in
      while isStopping.wait(until: .after(seconds: seconds), { $0 ? true : nil }) == nil {
        for (id, device) in devices() { flush(id, device) }
      }
    }
    thread.detach()
  }

  private func flush(_ id: String, _ device: Device) {
    guard running.withLock({ $0.insert(id).inserted }) else { return }
    engine.submit { [running] in
      device.flushIfDirty()
      running.withLock { _ = $0.remove(id) }
    }
  }

  func stop() { isStopping.update { $0 = true } }
}
