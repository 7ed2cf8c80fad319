internal import PloopIO

/// Moves what lies at the end of the top's file to free places before it, and cuts the file.
final class Shrinking: Compaction.Work {
  private let mover: ClusterMover
  /// Clusters that lie where the file would end if it had no free places, as they lie in it.
  private var rest: [UInt64]
  private var isCut = false
  let totalClusters: UInt64

  init(_ mover: ClusterMover) throws(DeviceError) {
    self.mover = mover
    let end = mover.writing.allocator.denseClusters
    var beyond: [(place: UInt64, cluster: UInt64)] = []
    try mover.device.map.forEach { cluster, place in
      if place.delta == mover.writing.number, place.physical >= end {
        beyond.append((place.physical, cluster))
      }
    }
    rest = beyond.sorted { $0.place < $1.place }.map(\.cluster)
    totalClusters = UInt64(rest.count)
  }

  /// From the end of the file on, so that it is shorter whenever it ends; what lies behind each other stays so.
  func step(
    limit: Int, until deadline: Deadline
  ) throws(DeviceError) -> Compaction.Progress? {
    let batch = Array(rest.suffix(mover.batch(of: limit)))
    guard !batch.isEmpty else { return try cut(until: deadline) }
    let allocator = mover.writing.allocator
    var progress = Compaction.Progress()
    progress.copied = try mover.move(batch, until: deadline) { (_, place) in
      allocator.allocate(before: place)
    }
    rest.removeLast(batch.count)
    progress.clusters = UInt64(batch.count)
    progress.readBytes = progress.copied << mover.device.clusterShift
    return progress
  }

  /// - Returns: nil when it has been cut.
  private func cut(until deadline: Deadline) throws(DeviceError) -> Compaction.Progress? {
    guard !isCut else { return nil }
    try mover.settle(0..<UInt64.max, until: deadline)
    _ = try mover.writing.allocator.cutTail()
    isCut = true
    return Compaction.Progress()
  }
}

/// Punches what nothing references, a few places at a time.
final class Punching: Compaction.Work {
  private let mover: ClusterMover
  private var next = 0
  let totalClusters: UInt64

  init(_ mover: ClusterMover) {
    self.mover = mover
    totalClusters = mover.writing.canPunch ? mover.writing.allocator.idle : 0
  }

  func step(
    limit: Int, until deadline: Deadline
  ) throws(DeviceError) -> Compaction.Progress? {
    let (writing, shift) = (mover.writing, mover.device.clusterShift)
    guard writing.canPunch,
      let places = writing.allocator.takeIdle(from: next, limit: mover.batch(of: limit))
    else { return nil }
    var progress = Compaction.Progress()
    do throws(IOError) {
      try writing.file.punchHole(
        offset: UInt64(places.lowerBound) << shift, length: UInt64(places.count) << shift)
    } catch {
      writing.allocator.giveBack(places, isZero: false)
      throw DeviceError(error)
    }
    writing.allocator.giveBack(places, isZero: true)
    next = places.upperBound
    progress.clusters = UInt64(places.count)
    progress.punched = progress.clusters
    return progress
  }
}
