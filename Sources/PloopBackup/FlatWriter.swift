internal import PloopFormat
internal import PloopIO

/// Where a disk's bytes are kept as they are, each at its own place.
protocol FlatStore: Sendable {
  /// What it is called in messages.
  var path: String { get }
  /// Whether what was not copied yet may be other than zero.
  var needsZeroes: Bool { get }
  /// See ``BackupSink/zeroesAtOnceBytes``.
  var zeroesAtOnceBytes: UInt64 { get }

  func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError)
  func zero(_ range: Range<UInt64>) throws(BackupError)

  /// What was written is durable.
  func flush() throws(BackupError)

  /// Nobody writes it any more.
  func letGo()
}

/// Writes a disk's bytes as they are, and goes on after a crash at its last commit.
final class FlatWriter<Store: FlatStore>: BackupSink {
  private let geometry: Geometry
  private let target: Store
  private let record: CopyRecord
  private let complete: @Sendable (CopyRecord) throws(BackupError) -> PointManifest.Result?

  /// - Parameter complete: makes it a whole copy, once everything is durable; may be repeated.
  init(
    _ target: Store, _ record: CopyRecord, of geometry: Geometry,
    complete: @escaping @Sendable (CopyRecord) throws(BackupError) -> PointManifest.Result?
  ) {
    self.geometry = geometry
    self.target = target
    self.record = record
    self.complete = complete
  }

  var cursor: UInt64 { record.cursor }
  var totals: StepJournal.Totals { record.totals }
  var zeroesAtOnceBytes: UInt64 { target.zeroesAtOnceBytes }

  func zeroesNeeded(in range: Range<UInt64>) -> [Range<UInt64>] {
    target.needsZeroes ? [range] : []
  }

  func store(_ region: ByteRegion, at cluster: UInt64) throws(BackupError) {
    try record.attempt { () throws(BackupError) in
      let entries = CopyRecord.entries(
        of: region, from: cluster, clusterBytes: Int(geometry.clusterBytes))
      _ = record.note(entries, limit: .max)
      try target.write(region, at: cluster << UInt64(geometry.clusterShift))
    }
  }

  func storeZeroes(_ clusters: Range<UInt64>) throws(BackupError) {
    let shift = UInt64(geometry.clusterShift)
    let range = clusters.lowerBound << shift..<clusters.upperBound << shift
    try record.attempt { () throws(BackupError) in try target.zero(range) }
  }

  func commit(cursor: UInt64, _ totals: StepJournal.Totals) throws(BackupError) {
    try record.commit(cursor: cursor, totals) { () throws(BackupError) in try target.flush() }
  }

  func finish() throws(BackupError) -> PointManifest.Result? {
    guard cursor == geometry.clusterCount else {
      throw BackupError(.mismatch, "\(target.path): not everything has been copied")
    }
    let result = try record.attempt { () throws(BackupError) in
      // Everything is durable since the last commit.
      try complete(record)
    }
    letGo()
    return result
  }

  func letGo() {
    record.end()
    target.letGo()
  }
}
