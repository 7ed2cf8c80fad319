internal import PloopIO
internal import Synchronization

/// Until when this node may act as the owner of the disks that it has under one lease.
///
/// The time is counted from when a renewal was sent, and ends before the store's does: whoever gets the disk next gets
/// it when this node has stopped answering (docs/fleet.md, "The fence"). What asks pays one look at a clock. A lease that
/// was lost never holds again; whatever is taken behind it is taken under another one.
package final class Lease: Sendable {
  let id: UInt64
  private let end: Atomic<UInt64>

  /// - Parameter deadline: by ``bootNanoseconds()``; 0 for one that is over.
  init(_ id: UInt64, until deadline: UInt64 = 0) {
    self.id = id
    end = Atomic(deadline)
  }

  package var isHeld: Bool { bootNanoseconds() < end.load(ordering: .acquiring) }

  func extend(to deadline: UInt64) { end.store(deadline, ordering: .releasing) }

  func void() { end.store(0, ordering: .releasing) }
}
