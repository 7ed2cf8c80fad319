internal import PloopIO
internal import Synchronization

/// For what a request has waited, in nanoseconds; what is left of its time is work on files.
package struct RequestWaits: Sendable {
  /// Until requests were admitted: the disk was suspended, or its chain being changed.
  package var admission: UInt64 = 0
  /// For a checkpoint's mark, or for the copy of a push backup.
  package var recording: UInt64 = 0
  /// For a cluster that was just being moved.
  package var moving: UInt64 = 0
  /// For stable storage.
  package var flush: UInt64 = 0

  package var sum: UInt64 { admission &+ recording &+ moving &+ flush }

  /// Counts how long `body` takes.
  mutating func timing<Result>(
    _ wait: WritableKeyPath<RequestWaits, UInt64>, _ body: () throws(DeviceError) -> Result
  ) throws(DeviceError) -> Result {
    let start = monotonicNanoseconds()
    defer { self[keyPath: wait] &+= monotonicNanoseconds() &- start }
    return try body()
  }
}

/// A request that has taken long.
package struct SlowRequest: Sendable {
  package let operation: Statistics.Operation
  package let offset: UInt64
  package let bytes: UInt64
  /// From when the disk took it up to its end.
  package let nanoseconds: UInt64
  package let waits: RequestWaits
  package let hasFailed: Bool
}

/// Tells whoever watches of requests that take long. All others pay one load and one branch.
final class SlowRequests: Sendable {
  private let threshold = Atomic<UInt64>(.max)
  private let observer = Observer<SlowRequest>()

  /// How long a request takes that counts as slow.
  var nanoseconds: UInt64 { threshold.load(ordering: .relaxed) }

  /// - Parameter tell: called on the thread that has carried the request out, and must not wait.
  func watch(from nanoseconds: UInt64, _ tell: @escaping @Sendable (SlowRequest) -> Void) {
    observer.set(tell)
    threshold.store(nanoseconds, ordering: .relaxed)
  }

  func note(_ request: SlowRequest) {
    observer.tell(request)
  }
}

extension Device {
  /// Has somebody hear of requests that take at least so long.
  package func watchSlowRequests(
    from nanoseconds: UInt64, _ tell: @escaping @Sendable (SlowRequest) -> Void
  ) {
    counters.slow.watch(from: nanoseconds, tell)
  }

  /// Enters the gate, and counts the wait if there is one.
  func admitted(_ waits: inout RequestWaits) throws(DeviceError) -> Gate.Pass {
    if let pass = gate.enterNow() { return pass }
    return try waits.timing(\.admission) { () throws(DeviceError) in try admitted() }
  }
}
