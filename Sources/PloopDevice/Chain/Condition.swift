internal import PloopIO
internal import Synchronization

/// Whether the disk may still be written: a disk whose sync failed goes on reading, and refuses
/// writes and flushes until it is attached again.
final class Condition: Sendable {
  private let isDegraded = Atomic<Bool>(false)
  private let reason = Locked<String?>(nil)

  var failure: String? { reason.withLock { $0 } }

  var isWritable: Bool { !isDegraded.load(ordering: .acquiring) }

  /// The first reason stays.
  func degrade(_ words: String) {
    reason.withLock { $0 = $0 ?? words }
    isDegraded.store(true, ordering: .sequentiallyConsistent)
  }

  func requireWritable() throws(DeviceError) {
    if isWritable { return }
    throw DeviceError(.degraded, failure ?? "a sync failed")
  }
}
