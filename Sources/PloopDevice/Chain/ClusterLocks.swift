internal import PloopIO

/// Exclusive locks on single logical clusters: they serialise allocation, copy-on-write, trim,
/// relocation and merge of one cluster. Reads and writes in place take none.
///
/// Lock order: a cluster lock is taken inside the gate; whoever holds one takes no second.
final class ClusterLocks: Sendable {
  private struct State {
    var held: Set<UInt64> = []
    var waiters = 0
  }

  private let state = Monitor(State())

  func lock(_ cluster: UInt64) {
    guard !tryLock(cluster) else { return }
    var counted = false
    _ = state.wait { state -> Bool? in
      if !counted {
        counted = true
        state.waiters += 1
      }
      guard state.held.insert(cluster).inserted else { return nil }
      state.waiters -= 1
      return true
    }
  }

  func tryLock(_ cluster: UInt64) -> Bool {
    state.withLock { $0.held.insert(cluster).inserted }
  }

  func unlock(_ cluster: UInt64) {
    let awaited = state.withLock { state -> Bool in
      state.held.remove(cluster)
      return state.waiters > 0
    }
    if awaited { state.update { _ in } }
  }
}
