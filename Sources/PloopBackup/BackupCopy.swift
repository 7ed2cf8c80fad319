internal import PloopFormat
package import PloopIO

/// Copies a disk to where it is kept, step by step, several pieces at a time.
///
/// Only what is wanted is read, in ascending order, and what is known to be absent is not. One thread
/// drives it; between steps it may wait, be slowed down, or be given up.
package final class BackupCopy {
  /// Bytes that are read at once, unless a cluster has more.
  private static let pieceBytes: UInt64 = 1 << 20
  private static let width = 8
  /// Most bytes of all pieces that are in flight.
  private static let flightBytes: UInt64 = 64 << 20

  private struct Piece: Sendable {
    var clusters: Range<UInt64>
    /// Nothing is there: zeroes are stored, and nothing is read.
    var isZero: Bool
  }

  package let source: any BackupSource
  package let sink: any BackupSink
  private let geometry: Geometry
  private let wanted: Bitmap?
  private let engine: IOEngine
  private let buffers: BufferPool
  private let totals: Locked<StepJournal.Totals>
  private let atOnce: UInt64
  private let width: Int
  private var next: UInt64
  private var committed: UInt64

  /// Begins where the sink was committed last.
  package init(from source: any BackupSource, to sink: any BackupSink, on engine: IOEngine) {
    self.source = source
    self.sink = sink
    self.engine = engine
    geometry = source.geometry
    wanted = source.wanted
    atOnce = max(1, Self.pieceBytes >> UInt64(geometry.clusterShift))
    let bytes = atOnce << UInt64(geometry.clusterShift)
    width = Int(min(UInt64(Self.width), max(1, Self.flightBytes / bytes)))
    buffers = BufferPool(bytes: Int(bytes))
    next = sink.cursor
    committed = sink.cursor
    totals = Locked(sink.totals)
    // What an earlier life made durable is nobody's concern any more.
    if committed > 0 { source.release(0..<committed) }
  }

  /// Clusters of the disk that are done, or need not be.
  package var cursor: UInt64 { next }
  package var progress: StepJournal.Totals { totals.withLock { $0 } }

  /// Copies on.
  ///
  /// - Parameter limitBytes: about how much is read or written.
  /// - Returns: false when nothing is left.
  /// - Throws: what reading or storing throws. Whatever it is, a part of the step may be stored: abandon
  ///   it, and open the sink anew.
  package func step(limitBytes: UInt64) throws(BackupError) -> Bool {
    var end = next
    let pieces = try plan(limitBytes, &end)
    let (source, sink, buffers, totals) = (source, sink, buffers, totals)
    try Crew.work(off: pieces, width: width, on: engine) { (piece: Piece) throws(BackupError) in
      let read = try BackupCopy.copy(piece, source, sink, buffers)
      totals.withLock { totals in
        totals.bytesRead += read.bytesRead
        totals.zeroBytes += read.zeroBytes
      }
    }
    next = end
    return next < geometry.clusterCount
  }

  /// What was copied counts from now on, whatever happens.
  package func commit() throws(BackupError) {
    guard next > committed else { return }
    try sink.commit(cursor: next, progress)
    source.release(committed..<next)
    committed = next
  }

  /// Everything has been copied: it is a whole copy, durably.
  ///
  /// - Returns: as ``BackupSink/finish()``.
  @discardableResult
  package func finish() throws(BackupError) -> PointManifest.Result? {
    try commit()
    return try sink.finish()
  }

  /// The copying ends here, and may be gone on with from the last commit by whoever opens the sink anew.
  package func abandon() { sink.letGo() }

  // MARK: What is to be done

  private func plan(
    _ limitBytes: UInt64, _ end: inout UInt64
  ) throws(BackupError) -> [Piece] {
    let shift = UInt64(geometry.clusterShift)
    let zeroesAtOnce = max(atOnce, sink.zeroesAtOnceBytes >> shift)
    var left = max(1, limitBytes >> shift)
    var pieces: [Piece] = []
    while left > 0, let run = nextWanted(from: end) {
      let content = try source.content(from: run.lowerBound, limit: UInt64(run.count))
      let pieceClusters = content.isAbsent ? zeroesAtOnce : atOnce
      // As much effort as one cluster of data.
      let worth = pieceClusters / atOnce
      var found = run.lowerBound..<run.lowerBound + content.count
      for range in content.isAbsent ? sink.zeroesNeeded(in: found) : [found] where left > 0 {
        let part = range.lowerBound..<range.lowerBound + min(UInt64(range.count), left * worth)
        pieces += stride(from: part.lowerBound, to: part.upperBound, by: Int(pieceClusters)).map {
          Piece(
            clusters: $0..<min(part.upperBound, $0 + pieceClusters), isZero: content.isAbsent)
        }
        left -= min(left, (UInt64(part.count) + worth - 1) / worth)
        if left == 0 { found = found.lowerBound..<part.upperBound }
      }
      if content.isAbsent { totals.withLock { $0.zeroBytes += UInt64(found.count) << shift } }
      end = found.upperBound
    }
    if left > 0 { end = geometry.clusterCount }
    return pieces
  }

  private func nextWanted(from cluster: UInt64) -> Range<UInt64>? {
    let count = geometry.clusterCount
    guard cluster < count else { return nil }
    guard let wanted else { return cluster..<count }
    guard let start = wanted.firstSet(from: Int(cluster)), start < count else { return nil }
    return UInt64(start)..<min(count, UInt64(wanted.firstClear(from: start) ?? wanted.count))
  }

  // MARK: A piece

  private static func copy(
    _ piece: Piece, _ source: any BackupSource, _ sink: any BackupSink, _ buffers: BufferPool
  ) throws(BackupError) -> StepJournal.Totals {
    var totals = StepJournal.Totals()
    guard !piece.isZero else {
      try sink.storeZeroes(piece.clusters)
      return totals
    }
    let shift = source.geometry.clusterShift
    // What lies behind the disk's end is not to come along.
    let isInside = piece.clusters.upperBound << UInt64(shift) <= source.geometry.sizeBytes
    if isInside, try sink.share(piece.clusters, of: source) { return totals }
    let buffer = buffers.take()
    defer { buffers.give(buffer) }
    let region = buffer.region.slice(0, piece.clusters.count << shift)
    try source.read(into: region, from: piece.clusters.lowerBound)
    totals.bytesRead = UInt64(region.count)
    var first = 0
    while first < piece.clusters.count {
      let isZero = region.slice(first << shift, 1 << shift).isZero
      var end = first + 1
      while end < piece.clusters.count, region.slice(end << shift, 1 << shift).isZero == isZero {
        end += 1
      }
      let start = piece.clusters.lowerBound + UInt64(first)
      if isZero {
        totals.zeroBytes += UInt64(end - first) << UInt64(shift)
        for range in sink.zeroesNeeded(in: start..<start + UInt64(end - first)) {
          try sink.storeZeroes(range)
        }
      } else {
        try sink.store(region.slice(first << shift, (end - first) << shift), at: start)
      }
      first = end
    }
    return totals
  }
}

/// Buffers of one size that are used again: fresh memory costs more than what is done with it.
private final class BufferPool: Sendable {
  private let bytes: Int
  private let free = Locked<[AlignedBuffer]>([])

  init(bytes: Int) { self.bytes = bytes }

  func take() -> AlignedBuffer {
    free.withLock { $0.popLast() } ?? AlignedBuffer(unfilled: bytes)
  }

  func give(_ buffer: AlignedBuffer) { free.withLock { $0.append(buffer) } }
}
