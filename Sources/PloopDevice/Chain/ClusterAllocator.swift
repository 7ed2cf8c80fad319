internal import PloopFormat
internal import PloopIO

/// The free map of the top: which physical clusters nothing references, and which of those are
/// known to read as zero.
///
/// A cluster that was unmapped does not become free at once (docs/crash-safety.md, "Freed
/// clusters"): first (a) a flush round whose copy of the index page was taken after the unmapping
/// has to succeed, or a crash would bring back an entry that names a cluster with foreign bytes;
/// and (b) every request that was admitted before the unmapping has to leave, since it may still
/// read or write there, and what it has lent has to come back. Only then is it punched and may be allocated again.
final class ClusterAllocator: Sendable {
  /// Never more than this much space is reserved ahead of what is needed.
  private static let growthLimitBytes: UInt64 = 64 << 20

  struct Allocation {
    let physical: UInt64
    /// Whether every byte of it reads as zero.
    let isZero: Bool
  }

  /// An unmapped cluster on its way to being free.
  struct Freed {
    let physical: UInt64
    /// The gate's generation after the unmapping.
    let generation: UInt64
  }

  struct State {
    var used: Bitmap
    var zero: Bitmap
    /// Clusters at the beginning of the file that header and index take.
    var headerClusters: UInt64
    /// What they will take besides, once the disk has grown: used, whatever is in it still.
    var reserved: Range<UInt64>
    /// Places that are being put in order: used, but for those who put them in order.
    var held: Range<UInt64> = 0..<0
    /// Those of them that nothing references: free but for those who put them in order.
    var heldFree: Set<UInt64> = []
    /// No cluster below is free.
    var hint: Int
    /// Unmapped; no round has begun since.
    var unmapped: [Freed] = []
    /// Taken along by the round that runs.
    var inRound: [Freed] = []
    /// Unmapped durably; some request may still be inside from before.
    var durable: [Freed] = []

    var awaited: [Freed] { unmapped + inRound + durable }

    /// Whether a place is nobody's, though nothing references it.
    func isKept(_ physical: UInt64) -> Bool {
      reserved.contains(physical) || held.contains(physical)
    }
  }

  let file: ImageFile
  let geometry: Geometry
  private let gate: Gate
  let state: Locked<State>
  /// Held while freed clusters are punched, by one caller at a time.
  private let reaping = Locked(())

  /// - Parameter used: clusters of the file that header, index and entries use. Whatever else lies
  ///   inside the file may hold anything.
  init(file: ImageFile, geometry: Geometry, gate: Gate, used: Bitmap) {
    self.file = file
    self.geometry = geometry
    self.gate = gate
    let header = geometry.headerClusters
    state = Locked(
      State(
        used: used, zero: Bitmap(count: used.count), headerClusters: header,
        reserved: header..<header, hint: 0))
  }

  // MARK: Allocating

  /// Takes the lowest free cluster, growing the file when there is none.
  ///
  /// - Parameter reserving: false for a cluster that is to share blocks: those that a longer file has would have to be
  ///   given back for it one by one.
  func allocate(reserving: Bool = true) throws(DeviceError) -> Allocation {
    try state.withLock { state throws(DeviceError) in
      if let free = state.used.firstClear(from: state.hint) {
        return take(free, &state)
      }
      state.hint = state.used.count
      try grow(&state, reserving: reserving)
      return take(state.hint, &state)
    }
  }

  func take(_ index: Int, _ state: inout State) -> Allocation {
    let isZero = state.zero[index]
    state.used[index] = true
    state.zero[index] = false
    state.hint = index + 1
    return Allocation(physical: UInt64(index), isZero: isZero)
  }

  /// Lengthens the file, by an eighth of its size and at most 64 MiB; all of the new part is zero.
  ///
  /// - Parameter reserving: whether the file system is asked for the room now.
  func grow(_ state: inout State, reserving: Bool = true) throws(DeviceError) {
    let count = UInt64(state.used.count)
    guard count <= geometry.physicalLimit else {
      throw DeviceError(
        .imageFull,
        "\(file.path): index entries of this version cannot name more than \(count) clusters")
    }
    // Nor more than a part of what is left: a reservation that fails has taken all of it for a
    // moment, and other disks' requests would find no room where there is some.
    let free = (try? file.space().freeBytes) ?? .max
    let ahead = min(
      count / 8,
      min(free / 8, ClusterAllocator.growthLimitBytes) >> UInt64(geometry.clusterShift))
    let step = min(max(1, ahead), geometry.physicalLimit + 1 - count)
    let length = count << UInt64(geometry.clusterShift)
    let bytes = step << UInt64(geometry.clusterShift)
    do {
      if reserving {
        try file.allocate(offset: length, length: bytes)
      } else {
        try file.truncate(to: length + bytes)
      }
      resize(&state, to: count + step)
    } catch  where error.isTooLarge || reserving && (error.isOutOfSpace || error.isUnsupported) {
      // What a failed reservation took must not starve others; without one, the write itself tells
      // whether there is room.
      let one = length + geometry.clusterBytes
      try converting { () throws(IOError) in
        try file.truncate(to: length)
        try file.truncate(to: one)
      }
      resize(&state, to: count + 1)
    } catch {
      throw DeviceError(error)
    }
  }

  private func resize(_ state: inout State, to count: UInt64) {
    let old = state.used.count
    state.used.resize(to: Int(count))
    state.zero.resize(to: Int(count))
    for index in old..<Int(count) { state.zero[index] = true }
  }

  /// Gives back a cluster that was allocated but never mapped.
  ///
  /// - Parameter isZero: whether all of it is known to read as zero; else its bytes may be anything.
  func abandon(_ allocation: Allocation, isZero: Bool) {
    state.withLock { state in
      guard !state.isKept(allocation.physical) else {
        if state.held.contains(allocation.physical) { state.heldFree.insert(allocation.physical) }
        return
      }
      state.zero[Int(allocation.physical)] = isZero
      state.used[Int(allocation.physical)] = false
      state.hint = min(state.hint, Int(allocation.physical))
    }
  }

  // MARK: Freeing

  /// Notes that a cluster was unmapped: the map no longer names it and its page is dirty.
  func unmapped(_ physical: UInt64) {
    let freed = Freed(physical: physical, generation: gate.generation)
    state.withLock { $0.unmapped.append(freed) }
  }

  /// What was unmapped until now. A round calls this before it copies any page.
  func roundBegins() -> [Freed] {
    state.withLock { state in
      (state.inRound, state.unmapped) = (state.unmapped, [])
      return state.inRound
    }
  }

  /// The round that got `freed` has completed both syncs, or has failed.
  func roundEnded(_ freed: [Freed], succeeded: Bool) {
    guard !freed.isEmpty else { return }
    state.withLock { state in
      state.inRound = []
      if succeeded {
        state.durable += freed
      } else {
        state.unmapped += freed
      }
    }
  }

  /// Frees everything that waits for it. Since the last unmapping a round has succeeded, and the gate
  /// has been closed: no index names these clusters, and nobody is inside who reads them.
  ///
  /// What a client may still hold a page of stays in the file as it is, used by nobody.
  func reapAll() {
    reaping.withLock { _ in
      state.withLock { state in
        state.durable += state.unmapped
        state.unmapped = []
      }
      let limit = gate.loans.oldest ?? .max
      release(
        state.withLock { state in
          state.durable.filter { $0.generation + Gate.grace <= limit }.map(\.physical)
        })
    }
  }

  /// Frees what may be freed: punches it, so that it reads as zero, and lets it be allocated.
  ///
  /// Call it outside the gate: a caller inside would wait for itself to leave.
  func reap() {
    guard state.withLock({ !$0.durable.isEmpty }) else { return }
    reaping.withLock { _ in reapDurable() }
  }

  private func reapDurable() {
    for _ in 0..<Gate.grace { gate.turn() }
    // In this order: whoever has left by then has noted its loan.
    let generation = gate.generation
    let limit = min(generation, gate.loans.oldest ?? generation)
    let ready = state.withLock { state in
      state.durable.filter { $0.generation + Gate.grace <= limit }.map(\.physical)
    }
    release(ready)
  }

  private func release(_ clusters: [UInt64]) {
    var rest = clusters.sorted()[...]
    while let first = rest.first {
      let run = rest.enumerated().prefix { $0.element == first + UInt64($0.offset) }.count
      release(first..<(first + UInt64(run)))
      rest = rest.dropFirst(run)
    }
  }

  private func release(_ clusters: Range<UInt64>) {
    let shift = UInt64(geometry.clusterShift)
    let punched: Bool
    do {
      try file.punchHole(
        offset: clusters.lowerBound << shift, length: UInt64(clusters.count) << shift)
      punched = true
    } catch {
      // Not every file system can; whoever allocates it next zeroes it.
      punched = false
    }
    state.withLock { state in
      // Only now: a detach that finds nothing left to free must not overtake the punching.
      state.durable.removeAll { clusters.contains($0.physical) }
      for cluster in clusters {
        // What a longer index will take is not for anybody else.
        state.used[Int(cluster)] = state.isKept(cluster)
        let isHeld = state.held.contains(cluster)
        if isHeld { state.heldFree.insert(cluster) }
        // Whoever is put there takes it as it is.
        state.zero[Int(cluster)] = punched && !isHeld
      }
      state.hint = min(state.hint, Int(clusters.lowerBound))
    }
  }

  // MARK: Facts

  /// Bytes of file that are needed: up to the last cluster that something references.
  var neededBytes: UInt64 {
    let last = state.withLock { $0.used.lastSet } ?? 0
    return UInt64(last + 1) << UInt64(geometry.clusterShift)
  }

  /// The clusters of the file that something references, as they are now.
  var usedClusters: Bitmap {
    state.withLock { state in
      var used = state.used
      used.resize(to: (used.lastSet ?? -1) + 1)
      return used
    }
  }

  /// Clusters inside the needed part that nothing references.
  var holes: UInt64 {
    state.withLock { state in UInt64((state.used.lastSet ?? -1) + 1 - state.used.setCount) }
  }

  /// Clusters that index entries name, deferred ones included.
  var dataClusters: UInt64 {
    state.withLock { UInt64($0.used.setCount - $0.reserved.count) - $0.headerClusters }
  }
}
