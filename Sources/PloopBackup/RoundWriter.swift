internal import PloopIO

/// Stores one round of a live copy. How far it is is nowhere but in memory: a copy that is interrupted begins anew,
/// since nobody knows then what was written.
final class RoundWriter: BackupSink {
  private struct State {
    var cursor: UInt64 = 0
    var totals = StepJournal.Totals()
  }

  private let store: any FlatStore
  private let shift: UInt64
  /// Whether what nobody has stored yet is zero.
  private let isBlank: Bool
  private let state = Locked(State())

  /// - Parameter blockShift: bytes of a cluster of what is copied, as a power of two.
  init(_ store: any FlatStore, blockShift: Int, isBlank: Bool) {
    self.store = store
    shift = UInt64(blockShift)
    self.isBlank = isBlank
  }

  var cursor: UInt64 { state.withLock { $0.cursor } }
  var totals: StepJournal.Totals { state.withLock { $0.totals } }
  var zeroesAtOnceBytes: UInt64 { store.zeroesAtOnceBytes }

  func zeroesNeeded(in range: Range<UInt64>) -> [Range<UInt64>] { isBlank ? [] : [range] }

  func store(_ region: ByteRegion, at cluster: UInt64) throws(BackupError) {
    try store.write(region, at: cluster << shift)
  }

  func storeZeroes(_ clusters: Range<UInt64>) throws(BackupError) {
    try store.zero(clusters.lowerBound << shift..<clusters.upperBound << shift)
  }

  /// It is durable when the whole round is, not before.
  func commit(cursor: UInt64, _ totals: StepJournal.Totals) throws(BackupError) {
    state.withLock { state in
      state.cursor = cursor
      state.totals = totals
    }
  }

  func finish() throws(BackupError) -> PointManifest.Result? {
    try store.flush()
    return nil
  }

  /// The next round goes on with the same connection.
  func letGo() {}
}
