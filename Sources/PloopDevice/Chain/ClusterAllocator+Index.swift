internal import PloopIO

// What a longer index will take of the file (``Resize``).

extension ClusterAllocator {
  /// Keeps clusters behind the index for a longer one: from now on none of them is allocated, and those
  /// that are freed stay used. What an earlier call has kept besides stays kept.
  ///
  /// - Throws: `.outOfSpace` when the file is too short for it and cannot grow; nothing is kept then.
  func reserve(_ clusters: Range<UInt64>) throws(DeviceError) {
    try state.withLock { state throws(DeviceError) in
      while UInt64(state.used.count) < clusters.upperBound { try grow(&state) }
      for cluster in clusters { state.used[Int(cluster)] = true }
      let end = max(clusters.upperBound, state.reserved.upperBound)
      state.reserved = clusters.lowerBound..<end
    }
  }

  /// The free map of a file whose index has been checked behind the attach: nothing has been taken or freed yet.
  func adopt(used: Bitmap) {
    state.withLock { state in
      state.used = used
      state.zero = Bitmap(count: used.count)
      state.hint = 0
    }
  }

  /// Whether something that was freed there may still be read, or be named by the index on the disk.
  func isAwaited(_ clusters: Range<UInt64>) -> Bool {
    state.withLock { state in
      state.awaited.contains { clusters.contains($0.physical) }
    }
  }

  /// Header and index have this many clusters from now on; all that come were reserved.
  func adopt(headerClusters: UInt64) {
    state.withLock { state in
      state.headerClusters = headerClusters
      state.reserved = headerClusters..<max(headerClusters, state.reserved.upperBound)
    }
  }

  /// The index stays as it is. The gate is closed.
  ///
  /// - Parameter owned: the reserved clusters that an entry names.
  func giveUpReserved(owned: Set<UInt64>) {
    state.withLock { state in
      let awaited = Set(state.awaited.map(\.physical))
      for cluster in state.reserved where !owned.contains(cluster) && !awaited.contains(cluster) {
        state.used[Int(cluster)] = false
        state.zero[Int(cluster)] = false
        state.hint = min(state.hint, Int(cluster))
      }
      state.reserved = state.headerClusters..<state.headerClusters
    }
  }
}
