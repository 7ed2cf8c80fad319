internal import PloopFormat
internal import PloopIO

/// Drops clusters of the top that are all zero.
///
/// Each is read without disturbing anybody; only what looks zero is marked, and read once more.
final class ZeroDropping: Compaction.Work {
  private let mover: ClusterMover
  private let buffer: AlignedBuffer
  private var next: UInt64 = 0
  let totalClusters: UInt64

  init(_ mover: ClusterMover) {
    self.mover = mover
    buffer = AlignedBuffer(count: Int(min(mover.device.clusterBytes, Device.copyBytes)))
    totalClusters = mover.writing.allocator.dataClusters
  }

  func step(
    limit: Int, until deadline: Deadline
  ) throws(DeviceError) -> Compaction.Progress? {
    let (clusters, after) = try mover.clusters(from: next, limit: mover.batch(of: limit))
    guard !clusters.isEmpty else { return nil }
    var progress = Compaction.Progress()
    progress.clusters = UInt64(clusters.count)
    var candidates: [UInt64] = []
    for cluster in clusters {
      guard let place = try mover.place(of: cluster) else { continue }
      let content = mover.content(at: place)
      let isZero = try content.isZero(buffer)
      if isZero { candidates.append(cluster) }
      // What is not zero mostly says so with its first bytes.
      progress.readBytes += isZero ? content.readBytes(isZero: true) : UInt64(Geometry.pageBytes)
    }
    if !candidates.isEmpty {
      progress.dropped = try mover.holding(candidates, until: deadline) { () throws(DeviceError) in
        try drop(candidates)
      }
    }
    next = after
    return progress
  }

  /// Nobody writes to these.
  private func drop(_ clusters: [UInt64]) throws(DeviceError) -> UInt64 {
    let (device, writing) = (mover.device, mover.writing)
    var owners = LowerOwners(below: device.chain.topLevel, of: device.chain)
    var dropped: UInt64 = 0
    for cluster in clusters {
      guard let place = try mover.place(of: cluster) else { continue }
      let content = mover.content(at: place)
      guard try content.isZero(buffer) else { continue }
      if try owners.own(cluster) {
        // Without its entry what lies beneath would come back.
        guard writing.canPunch, !content.isHole else { continue }
        try device.zero(
          writing, offset: content.offset, length: content.count, keepSpace: false)
      } else {
        try device.forget(cluster, at: place, writing)
      }
      dropped += 1
    }
    writing.index.noteWritten()
    return dropped
  }
}
