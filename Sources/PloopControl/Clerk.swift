internal import PloopIO

/// Looks things up in the state for requests that no device is asked for, on a thread that may wait
/// for a disk.
actor Clerk {
  private nonisolated let executor: ThreadExecutor

  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  init() throws(IOError) { executor = try ThreadExecutor(name: "ploopd-state") }

  deinit { executor.stop() }

  func run<Result: Sendable>(
    _ body: @Sendable () throws(ServiceError) -> Result
  ) throws(ServiceError) -> Result {
    try body()
  }
}
