internal import PloopIO

/// Looks things up in the state for requests that no device is asked for, on a thread that may wait
/// for a disk.
actor Clerk {
  private nonisolated let executor: ThreadExecutor

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  init(name: String) throws(IOError) { executor = try ThreadExecutor(name: name) }

  deinit { executor.stop() }

  /// Waits for something that has nothing to do with the state, on a thread of its own.
  nonisolated func wait(_ body: @escaping @Sendable () -> Void) async {
    await withCheckedContinuation { continuation in
      let thread = try? Thread(name: "ploopd-wait") {
        body()
        continuation.resume()
      }
      if let thread { thread.detach() } else { continuation.resume() }
    }
  }

  func run<Result: Sendable>(
    _ body: @Sendable () throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    try body()
  }

  /// The same for what cannot fail.
  func look<Result: Sendable>(_ body: @Sendable () -> Result) -> Result { body() }
}
