internal import PloopDevice
internal import PloopFormat
package import PloopIO

/// Reads what one point has stored, all of it, and holds it against its checksums.
package final class PointCheck {
  private static let pieceBytes: UInt64 = 1 << 20
  private static let width = 4

  private let delta: PointDelta
  private var next: UInt64
  private let end: UInt64
  private let found: Locked<Set<UInt64>>

  /// - Throws: `.corrupt` when the point is damaged as a whole, so that there is nothing to hold its
  ///   clusters against; `.notFound`, `.locked`, `.target`.
  package init(_ id: String, of chain: BackupChain) throws(BackupError) {
    delta = try PointDelta(id, of: chain)
    next = delta.geometry.headerClusters
    end = next + UInt64(delta.entries.count)
    var wrong = Set(delta.entries.map { UInt64($0.cluster) })
    let delta = delta
    try delta.forEachEntry { cluster, physical in
      // In the index and not stored, or stored elsewhere: it stays, or comes in, as wrong.
      if delta.entry(at: physical).map({ UInt64($0.cluster) }) == cluster {
        wrong.remove(cluster)
      } else {
        wrong.insert(cluster)
      }
    }
    found = Locked(wrong)
  }

  package var totalBytes: UInt64 {
    UInt64(delta.entries.count) << UInt64(delta.geometry.clusterShift)
  }

  /// Bytes that were read so far.
  package var checkedBytes: UInt64 {
    (next - delta.geometry.headerClusters) << UInt64(delta.geometry.clusterShift)
  }

  /// Clusters of the disk that are not what was stored, in ascending order.
  package var wrongClusters: [UInt64] { found.withLock { $0.sorted() } }

  /// Reads on.
  ///
  /// - Parameter limitBytes: about how much.
  /// - Returns: false when everything has been read.
  package func step(limitBytes: UInt64, on engine: IOEngine) throws(BackupError) -> Bool {
    let shift = UInt64(delta.geometry.clusterShift)
    let atOnce = max(1, PointCheck.pieceBytes >> shift)
    let last = min(end, next + max(1, limitBytes >> shift))
    let pieces = stride(from: next, to: last, by: Int(atOnce)).map { $0..<min(last, $0 + atOnce) }
    let (delta, found) = (delta, found)
    try Crew.work(off: pieces, width: PointCheck.width, on: engine) {
      (piece: Range<UInt64>) throws(BackupError) in
      let buffer = AlignedBuffer(unfilled: piece.count << delta.geometry.clusterShift)
      let wrong = try delta.read(into: buffer.region, physical: piece.lowerBound)
      let clusters = wrong.compactMap { index in
        delta.entry(at: piece.lowerBound + UInt64(index)).map { UInt64($0.cluster) }
      }
      found.withLock { $0.formUnion(clusters) }
    }
    next = last
    return next < end
  }
}
