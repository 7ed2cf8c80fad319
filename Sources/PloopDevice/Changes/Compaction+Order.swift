internal import PloopIO

/// Has the clusters of the top lie in its file in the order of the disk, from the beginning of the file on.
///
/// A few places are held at a time: whoever lies there goes behind all data, and once nobody can read or
/// find it there any more those come that belong there. So each cluster is copied twice at most.
final class Ordering: Compaction.Work {
  private static let nobody = UInt32.max

  private let mover: ClusterMover
  /// The first cluster that is not in its place yet, and that place.
  private var next: UInt64 = 0
  private var place: UInt64
  /// Where nobody belongs, or it would be at the end of the file.
  private let end: UInt64
  /// Which cluster lies where, as far as that is known; whoever believes it looks at the map.
  private var owners: [UInt32] = []
  let totalClusters: UInt64

  init(_ mover: ClusterMover) throws(DeviceError) {
    self.mover = mover
    let allocator = mover.writing.allocator
    place = allocator.state.withLock { $0.headerClusters }
    end = allocator.denseClusters
    totalClusters = try mover.breaks() == 0 ? 0 : allocator.dataClusters
  }

  func step(
    limit: Int, until deadline: Deadline
  ) throws(DeviceError) -> Compaction.Progress? {
    guard totalClusters > 0 else { return nil }
    let (clusters, after) = try mover.clusters(from: next, limit: mover.batch(of: limit))
    guard !clusters.isEmpty else { return nil }
    let places = place..<place + UInt64(clusters.count)
    var progress = Compaction.Progress()
    progress.clusters = UInt64(clusters.count)
    var isInOrder = true
    for (cluster, place) in zip(clusters, places) where isInOrder {
      isInOrder = try mover.place(of: cluster) == place
    }
    if !isInOrder {
      progress.copied = try order(clusters, at: places, until: deadline)
      progress.readBytes = progress.copied << mover.device.clusterShift
    }
    (next, place) = (after, places.upperBound)
    mover.writing.allocator.reap()
    return progress
  }

  private func order(
    _ clusters: [UInt64], at places: Range<UInt64>, until deadline: Deadline
  ) throws(DeviceError) -> UInt64 {
    let allocator = mover.writing.allocator
    let used = try allocator.hold(places)
    defer { allocator.letGo() }
    // Whoever was inside may have taken a place before it was held.
    try mover.awaitLeavers(until: deadline)
    let belonging = Dictionary(uniqueKeysWithValues: zip(clusters, places))
    var strangers: [UInt64] = []
    for place in used {
      guard let cluster = try owner(of: place), belonging[cluster] != place else { continue }
      strangers.append(cluster)
    }
    var copied = try mover.move(strangers, until: deadline) { (_, _) throws(DeviceError) in
      try allocator.allocate(from: max(end, places.upperBound))
    }
    try mover.settle(places, until: deadline)
    copied += try mover.move(clusters, until: deadline, isRewritten: true) { (cluster, place) in
      guard let own = belonging[cluster], own != place else { return nil }
      return ClusterAllocator.Allocation(physical: own, isZero: false)
    }
    for (cluster, place) in belonging { note(cluster, at: place) }
    return copied
  }

  // MARK: Who lies where

  /// - Returns: nil for a place that no entry names.
  private func owner(of place: UInt64) throws(DeviceError) -> UInt64? {
    if let cluster = try known(at: place) { return cluster }
    guard !mover.writing.allocator.isAwaited(place..<place + 1) else { return nil }
    // A guest's, who has come meanwhile; or nobody's.
    try look()
    return try known(at: place)
  }

  private func known(at place: UInt64) throws(DeviceError) -> UInt64? {
    guard place < owners.count, owners[Int(place)] != Self.nobody else { return nil }
    let cluster = UInt64(owners[Int(place)])
    return try mover.place(of: cluster) == place ? cluster : nil
  }

  private func look() throws(DeviceError) {
    owners = [UInt32](
      repeating: Self.nobody, count: Int(mover.writing.allocator.usedClusters.count))
    try mover.device.map.forEach { cluster, place in
      if place.delta == mover.writing.number { note(cluster, at: place.physical) }
    }
  }

  private func note(_ cluster: UInt64, at place: UInt64) {
    if place >= owners.count {
      owners += repeatElement(Self.nobody, count: Int(place) + 1 - owners.count)
    }
    owners[Int(place)] = UInt32(truncatingIfNeeded: cluster)
  }
}
