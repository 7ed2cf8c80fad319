package import PloopIO

/// What is checked cluster by cluster. A place is where one is, or may be.
protocol CheckedContent: Sendable {
  var clusterShift: Int { get }
  var places: Range<UInt64> { get }

  /// What is known of the places from `place` on without reading them.
  ///
  /// - Returns: for how many it holds, and the clusters that are wrong there; nil where only reading tells.
  func known(
    from place: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, wrong: [UInt64]?)

  /// Reads places.
  ///
  /// - Returns: the clusters that are not what was stored.
  func wrong(in places: Range<UInt64>) throws(BackupError) -> [UInt64]
}

/// Reads what one point has stored, all of it, and holds it against its checksums.
package final class PointCheck {
  private static let pieceBytes: UInt64 = 1 << 20
  private static let width = 4
  /// So many bytes that need no reading count as one, since to ask about them takes time, too.
  private static let knownBytesWorth: UInt64 = 64

  private let content: any CheckedContent
  private var next: UInt64
  private let found: Locked<Set<UInt64>>

  /// - Throws: `.corrupt` when the point is damaged as a whole, so that there is nothing to hold its
  ///   clusters against; `.notFound`, `.locked`, `.target`.
  package convenience init(_ id: String, of chain: BackupChain) throws(BackupError) {
    try self.init(PointDelta(id, of: chain))
  }

  /// - Throws: `.corrupt`, `.target`.
  convenience init(_ delta: PointDelta) throws(BackupError) {
    self.init(delta, wrong: try delta.misplaced())
  }

  /// - Parameter wrong: clusters that are found to be wrong already.
  init(_ content: any CheckedContent, wrong: Set<UInt64> = []) {
    self.content = content
    next = content.places.lowerBound
    found = Locked(wrong)
  }

  package var totalBytes: UInt64 {
    UInt64(content.places.count) << UInt64(content.clusterShift)
  }

  /// Bytes that were read so far, or needed no reading.
  package var checkedBytes: UInt64 {
    (next - content.places.lowerBound) << UInt64(content.clusterShift)
  }

  /// Clusters of the disk that are not what was stored, in ascending order.
  package var wrongClusters: [UInt64] { found.withLock { $0.sorted() } }

  /// Reads on.
  ///
  /// - Parameter limitBytes: about how much.
  /// - Returns: false when everything has been read.
  package func step(limitBytes: UInt64, on engine: IOEngine) throws(BackupError) -> Bool {
    let (content, found) = (content, found)
    let atOnce = max(1, PointCheck.pieceBytes >> UInt64(content.clusterShift))
    let end = content.places.upperBound
    var left = max(1, limitBytes >> UInt64(content.clusterShift))
    var pieces: [Range<UInt64>] = []
    var place = next
    while left > 0, place < end {
      let known = try content.known(from: place, limit: end - place)
      if let wrong = known.wrong {
        found.withLock { $0.formUnion(wrong) }
        left -= min(left, known.count / PointCheck.knownBytesWorth + 1)
        place += known.count
      } else {
        let last = place + min(known.count, left)
        pieces += stride(from: place, to: last, by: Int(atOnce)).map { $0..<min(last, $0 + atOnce) }
        left -= last - place
        place = last
      }
    }
    try Crew.work(off: pieces, width: PointCheck.width, on: engine) {
      (piece: Range<UInt64>) throws(BackupError) in
      let wrong = try content.wrong(in: piece)
      found.withLock { $0.formUnion(wrong) }
    }
    next = place
    return next < end
  }
}
