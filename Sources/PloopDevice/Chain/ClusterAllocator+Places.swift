internal import PloopFormat
internal import PloopIO

// Places of the top's file by where they are: what makes it smaller (``Compaction``).

extension ClusterAllocator {
  // MARK: Allocating

  /// Takes the lowest free cluster before another one; nil where none is free.
  func allocate(before limit: UInt64) -> Allocation? {
    state.withLock { state in
      guard let free = state.used.firstClear(from: state.hint), free < limit else { return nil }
      return take(free, &state)
    }
  }

  /// Takes the lowest free cluster from a place on, growing the file when there is none.
  func allocate(from start: UInt64) throws(DeviceError) -> Allocation {
    try state.withLock { state throws(DeviceError) in
      while true {
        if let free = state.used.firstClear(from: Int(start)) {
          // Those before it may be free as well.
          let hint = state.hint
          defer { state.hint = hint == free ? free + 1 : hint }
          return take(free, &state)
        }
        try grow(&state)
      }
    }
  }

  // MARK: Free places

  /// Clusters of the file that nothing references and that may hold anything.
  var idle: UInt64 {
    state.withLock { state in
      UInt64(max(0, state.used.count - state.used.setCount - state.zero.setCount))
    }
  }

  /// Takes the next run of such clusters, to be punched.
  ///
  /// - Returns: nil where there is none from `start` on.
  func takeIdle(from start: Int, limit: Int) -> Range<Int>? {
    state.withLock { state in
      var first = start
      while let free = state.used.firstClear(from: first) {
        guard state.zero[free] else {
          var end = free
          while end < state.used.count, end - free < limit, !state.used[end], !state.zero[end] {
            state.used[end] = true
            end += 1
          }
          return free..<end
        }
        first = free + 1
      }
      return nil
    }
  }

  /// Gives back what ``takeIdle(from:limit:)`` has taken.
  func giveBack(_ places: Range<Int>, isZero: Bool) {
    state.withLock { state in
      for place in places {
        state.used[place] = state.isKept(UInt64(place))
        state.zero[place] = isZero
      }
      state.hint = min(state.hint, places.lowerBound)
    }
  }

  // MARK: The end of the file

  /// Clusters of the file up to the last one that something references, if all lay behind each other.
  var denseClusters: UInt64 { state.withLock { UInt64($0.used.setCount) } }

  /// Bytes behind the last cluster that something references: reserved, or freed.
  var tailBytes: UInt64 {
    state.withLock { state in
      UInt64(state.used.count - (state.used.lastSet ?? -1) - 1) << shift
    }
  }

  /// Cuts the file behind the last cluster that something references. No entry on the disk names what is
  /// cut off: it became free behind a round that had forgotten it.
  ///
  /// - Returns: by how many bytes the file has become shorter.
  func cutTail() throws(DeviceError) -> UInt64 {
    try state.withLock { state throws(DeviceError) in
      let (before, count) = (state.used.count, (state.used.lastSet ?? -1) + 1)
      guard count < before else { return 0 }
      let length = UInt64(count) << shift
      try converting { () throws(IOError) in try file.truncate(to: length) }
      state.used.resize(to: count)
      state.zero.resize(to: count)
      state.hint = min(state.hint, count)
      return UInt64(before - count) << shift
    }
  }

  // MARK: Order

  /// Keeps places for those who put them in order: from now on none of them is allocated, and those that
  /// become free there stay used.
  ///
  /// - Returns: those that something references, or has just left.
  func hold(_ places: Range<UInt64>) throws(DeviceError) -> [UInt64] {
    try state.withLock { state throws(DeviceError) in
      while UInt64(state.used.count) < places.upperBound { try grow(&state) }
      let used = places.filter { state.used[Int($0)] }
      for place in places {
        state.used[Int(place)] = true
        state.zero[Int(place)] = false
      }
      state.held = places
      state.heldFree = Set(places).subtracting(used)
      return used
    }
  }

  /// A cluster is about to be put into a place. Call it before any entry names the place.
  func placed(_ physical: UInt64) { state.withLock { _ = $0.heldFree.remove(physical) } }

  /// Nobody's order any more. What became free meanwhile is free: the map is not asked, since an entry may have left
  /// a place that is not given back yet, and a request may have a place that no entry names yet.
  func letGo() {
    state.withLock { state in
      for place in state.heldFree {
        state.used[Int(place)] = false
        // A part of something may have been copied there.
        state.zero[Int(place)] = false
        state.hint = min(state.hint, Int(place))
      }
      (state.held, state.heldFree) = (0..<0, [])
    }
  }

  private var shift: UInt64 { UInt64(geometry.clusterShift) }
}
