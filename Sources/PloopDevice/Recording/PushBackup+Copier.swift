internal import PloopFormat
package import PloopIO

// What the copier asks: what is waited for, what is left, the frozen bytes; and what it confirms.

extension PushBackup {
  /// Why something is refused to the copier.
  package enum Refusal: Error, Equatable, Sendable {
    /// It has ended, for this reason.
    case over(String)
    /// The disk has no such cluster.
    case outOfRange(Int)
    /// What is asked for was confirmed already, or never wanted, and may have been overwritten.
    case released(cluster: Int)
    case failed(String)
    /// A cluster of a delta is not what it was when the delta was hashed; with the words for people.
    case rotten(cluster: UInt64, String)

    /// For people.
    package var words: String {
      switch self {
      case .over(let reason): "the push backup is over: \(reason)"
      case .outOfRange(let cluster): "the disk has no cluster \(cluster)"
      case .released(let cluster): "cluster \(cluster) was confirmed, or was never wanted"
      case .failed(let detail), .rotten(_, let detail): detail
      }
    }
  }

  package struct Facts: Sendable, Equatable {
    package var end: End?
    package var clustersTotal: Int
    package var remaining: Int
    package var blockedWrites: Int
    package var spilledBytes: UInt64
    /// Of the request that has waited longest, once it could go on.
    package var longestWaitNanoseconds: UInt64
  }

  package var facts: Facts {
    state.withLock { state in
      Facts(
        end: state.end, clustersTotal: state.total, remaining: state.remaining,
        blockedWrites: state.waiting,
        spilledBytes: state.savedBytes, longestWaitNanoseconds: state.longestWait)
    }
  }

  package struct Pending: Sendable, Equatable {
    package var cluster: Int
    package var waitingNanoseconds: UInt64
  }

  /// Clusters that requests wait for, in the order in which they began to. They are told again until
  /// they are confirmed, so whoever loses the answer asks anew.
  package func pending(limit: Int) throws(Refusal) -> [Pending] {
    let now = options.clock()
    return try looking { state in
      state.pending(limit: limit).map {
        Pending(cluster: $0.cluster, waitingNanoseconds: now - min(now, $0.since))
      }
    }
  }

  /// Runs of clusters that are not confirmed, in order.
  package func left(from first: Int, limit: Int) throws(Refusal) -> [Range<Int>] {
    try looking { state in
      var runs: [Range<Int>] = []
      var place = max(0, first)
      while runs.count < limit, let start = state.wanted.firstSet(from: place) {
        let end = state.wanted.firstClear(from: start) ?? state.wanted.count
        runs.append(start..<end)
        place = end
      }
      return runs
    }
  }

  /// The copier has these clusters: whoever waits for them goes on. Those that it had already, and
  /// those that it never wanted, are no error.
  ///
  /// - Returns: how many of them were not confirmed before.
  /// - Throws: with none confirmed, when one of them is beyond the disk.
  package func confirm(_ ranges: [Range<Int>]) throws(Refusal) -> Int {
    let count = Int(device.geometry.clusterCount)
    for range in ranges where range.lowerBound < 0 || range.upperBound > count {
      throw .outOfRange(range.lowerBound < 0 ? range.lowerBound : max(count, range.lowerBound))
    }
    let end = state.withLock { $0.end }
    if let end { throw .over(end.words) }
    let (confirmed, slots) = state.update { state -> (Int, [Int]) in
      var confirmed = 0
      var slots: [Int] = []
      for range in ranges {
        let done = state.confirm(range)
        confirmed += done.count
        slots += done.slots
      }
      return (confirmed, slots)
    }
    guard let scratch = options.scratch, !slots.isEmpty else { return confirmed }
    scratch.give(slots)
    // There is room for whoever found none.
    lookAgain()
    return confirmed
  }

  private func looking<Result>(
    _ body: (PushBackupState) -> Result
  ) throws(Refusal) -> Result {
    let (end, result) = state.withLock { ($0.end, body($0)) }
    if let end { throw .over(end.words) }
    return result
  }

  /// What was wanted in the beginning, a bit for each cluster; nil where that is everything.
  package var asked: Bitmap? {
    state.withLock { $0.asked.firstClear(from: 0) == nil ? nil : $0.asked }
  }

  /// What was wanted in the beginning, whatever has been confirmed since, from `offset` on.
  package func wantedRuns(
    offset: UInt64, length: UInt64, limit: Int
  ) -> [(length: UInt64, isDirty: Bool)] {
    let shift = UInt64(device.geometry.clusterShift)
    let end = offset + length
    return state.withLock { state in
      var runs: [(length: UInt64, isDirty: Bool)] = []
      var position = offset
      while position < end, runs.count < limit {
        let cluster = Int(position >> shift)
        let isWanted = state.asked[cluster]
        let next =
          (isWanted ? state.asked.firstClear(from: cluster) : state.asked.firstSet(from: cluster))
          ?? state.asked.count
        let stop = min(end, UInt64(next) << shift)
        runs.append((stop - position, isWanted))
        position = stop
      }
      return runs
    }
  }

  // MARK: Frozen bytes

  /// Fills the region with what the disk held at the instant.
  ///
  /// It looks at each cluster again after reading it. One that is held still was not overwritten
  /// meanwhile; one that was saved meanwhile is read from where it was saved.
  package func read(into region: ByteRegion, at offset: UInt64) throws(Refusal) {
    for piece in ClusterPieces(
      device.geometry, offset: offset, length: UInt64(region.count))
    {
      let part = region.slice(Int(piece.start), Int(piece.length))
      while try !read(piece, into: part, at: offset + piece.start) {}
    }
  }

  private enum Place: Equatable {
    case disk
    case scratch(Int)
    case zero
  }

  private func place(of cluster: Int) throws(Refusal) -> Place {
    let place: Place? = try looking { state in
      if state.held[cluster] { return .disk }
      guard let slot = state.saved[cluster] else { return nil }
      return slot.map { .scratch($0) } ?? .zero
    }
    guard let place else { throw .released(cluster: cluster) }
    return place
  }

  /// - Returns: false when it was overwritten meanwhile, perhaps before it was read.
  private func read(
    _ piece: ClusterPiece, into part: ByteRegion, at offset: UInt64
  ) throws(Refusal) -> Bool {
    let cluster = Int(piece.cluster)
    let place = try place(of: cluster)
    switch place {
    case .zero:
      part.zero()
      return true
    case .disk:
      var holes = HoleList()
      do throws(DeviceError) {
        try device.requireSound(offset: offset, length: UInt64(part.count))
        try device.read(into: part, at: offset, holes: &holes)
      } catch {
        if case .rotten(let cluster) = error.kind {
          throw .rotten(cluster: cluster, error.detail)
        }
        throw .failed(error.detail)
      }
    case .scratch(let slot):
      do throws(IOError) {
        try options.scratch?.read(into: part, slot: slot, offset: piece.offset)
      } catch { throw .failed("\(error)") }
    }
    return try self.place(of: cluster) == place
  }

  /// What of the frozen disk reads as zero because nothing was there: runs from `offset` on. Where that
  /// is not certain any more it is said to hold data.
  package func runs(
    offset: UInt64, length: UInt64, limit: Int
  ) throws(Refusal) -> [(length: UInt64, isHole: Bool)] {
    let runs: [Device.Run]
    do throws(DeviceError) {
      runs = try device.runs(offset: offset, length: length, limit: limit)
    } catch { throw .failed(error.detail) }
    let shift = UInt64(device.geometry.clusterShift)
    return try looking { state in
      var found: [(length: UInt64, isHole: Bool)] = []
      for run in runs {
        let end = run.start + run.length
        var position = run.start
        while position < end, found.count < limit {
          let (isHole, next) = state.absence(
            of: Int(position >> shift), isAbsent: run.level == nil,
            through: Int((end - 1) >> shift))
          let stop = min(end, UInt64(next) << shift)
          found.append((stop - position, isHole))
          position = stop
        }
      }
      return found
    }
  }
}

extension PushBackup.End {
  var words: String {
    switch self {
    case .failed(let reason): reason
    case .stopped: "it was stopped"
    }
  }
}
