internal import PloopIO
internal import Synchronization

/// Logical clusters of the top that are about to lie elsewhere in its file.
///
/// Readers go on at the old place. Whoever wants to change one of these clusters leaves the gate, waits
/// here, and makes its request anew: so the mover, which waits until everybody has left who may still
/// write to the old place, never waits for somebody who waits for it.
final class MovingClusters: Sendable {
  /// Looked at by every request that changes the disk; the set only if it is not 0.
  private let count = Atomic<Int>(0)
  private let clusters = Monitor<Set<UInt64>>([])

  /// Whoever enters the gate after its next turn sees them.
  func begin(_ moving: [UInt64]) {
    clusters.withLock { clusters in
      clusters.formUnion(moving)
      count.store(clusters.count, ordering: .sequentiallyConsistent)
    }
  }

  func end(_ moved: [UInt64]) {
    clusters.update { clusters in
      clusters.subtract(moved)
      count.store(clusters.count, ordering: .sequentiallyConsistent)
    }
  }

  @inline(__always)
  func contains(_ cluster: UInt64) -> Bool {
    count.load(ordering: .acquiring) != 0 && clusters.withLock { $0.contains(cluster) }
  }

  /// Waits outside the gate until the cluster has its new place.
  func wait(for cluster: UInt64) {
    _ = clusters.wait { $0.contains(cluster) ? nil : true }
  }
}
