internal import PloopIO

/// What of a copy was stored and what of it counts: the part that everything which stores one has in common.
///
/// Any thread notes what it stores; one thread commits, and nobody notes anything meanwhile.
final class CopyRecord: Sendable {
  private struct State {
    var journal: StepJournal
    /// What was stored since the last commit.
    var fresh: [StepJournal.Entry] = []
    /// Why nothing is stored any more.
    var end: BackupError?
  }

  let file: JournalFile
  private let path: String
  private let state: Locked<State>

  /// - Parameters:
  ///   - journal: what counts so far.
  ///   - file: where it is kept.
  ///   - path: of what is written, for messages.
  init(_ journal: StepJournal, in file: JournalFile, of path: String) {
    self.file = file
    self.path = path
    state = Locked(State(journal: journal))
  }

  var journal: StepJournal { state.withLock { $0.journal } }
  var cursor: UInt64 { state.withLock { $0.journal.cursor } }
  var totals: StepJournal.Totals { state.withLock { $0.journal.totals } }
  /// Of the last commit.
  var entryCount: Int { state.withLock { $0.journal.entries.count } }

  /// Runs a part of the writing; after a failure no other is begun.
  ///
  /// - Throws: what `body` has failed with, or another before it: several write at once, and whoever is heard first
  ///   says what is wrong with the target.
  func attempt<Result>(
    _ body: () throws(BackupError) -> Result
  ) throws(BackupError) -> Result {
    if let end = state.withLock({ $0.end }) { throw end }
    do { return try body() } catch {
      end(error)
      throw error
    }
  }

  /// Notes whole clusters that are being stored.
  ///
  /// - Parameter limit: how many there may be in all.
  /// - Returns: how many were noted before; nil when there would be too many.
  func note(_ entries: [StepJournal.Entry], limit: UInt64) -> UInt64? {
    state.withLock { state in
      let before = UInt64(state.journal.entries.count + state.fresh.count)
      guard before + UInt64(entries.count) <= limit else { return nil }
      state.fresh += entries
      return before
    }
  }

  /// What was stored counts from now on.
  ///
  /// - Parameter sync: makes it durable.
  func commit(
    cursor: UInt64, _ totals: StepJournal.Totals, sync: () throws(BackupError) -> Void
  ) throws(BackupError) {
    try attempt { () throws(BackupError) in
      // The journal may be large, and is never copied: nobody else commits meanwhile.
      let (record, bytes, end) = state.withLock { state in
        let (record, bytes) = state.journal.record(of: state.fresh, cursor: cursor, totals)
        return (record, bytes, state.journal.byteCount)
      }
      // 1 the data is stable … 2 its record
      try sync()
      try file.append(bytes, at: end)
      state.withLock { state in
        state.journal.take(record)
        state.fresh = []
      }
    }
  }

  /// Nothing is stored any more.
  func end() { end(BackupError(.failed, "\(path): the copy has ended")) }

  private func end(_ error: BackupError) { state.withLock { $0.end = $0.end ?? error } }

  /// Clusters that lie behind each other, with their checksums.
  static func entries(
    of region: ByteRegion, from cluster: UInt64, clusterBytes: Int
  ) -> [StepJournal.Entry] {
    (0..<region.count / clusterBytes).map { index in
      StepJournal.Entry(
        cluster: UInt32(clamping: cluster + UInt64(index)),
        checksum: CRC32C.checksum(region.slice(index * clusterBytes, clusterBytes)))
    }
  }
}
