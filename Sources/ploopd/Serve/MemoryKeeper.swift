internal import PloopIO

/// Gives memory back that nobody uses.
///
/// The C library has an arena for each few threads and keeps in all of them what was freed between two pieces that are
/// in use: after two minutes of copies a service with five megabytes in use had 150.
final class MemoryKeeper: Sendable {
  private static let seconds = 30
  /// What may be kept: the next request is served sooner by it.
  private static let mostUnusedBytes = 32 << 20

  private let isStopping = Monitor(false)

  init() throws(IOError) {
    let isStopping = isStopping
    let thread = try Thread(name: "ploopd-memory", stackBytes: 64 << 10) {
      while isStopping.wait(until: .after(seconds: MemoryKeeper.seconds), { $0 ? true : nil })
        == nil
      {
        if UnusedMemory.bytes > MemoryKeeper.mostUnusedBytes { UnusedMemory.giveBack() }
      }
    }
    thread.detach()
  }

  func stop() { isStopping.update { $0 = true } }
}
