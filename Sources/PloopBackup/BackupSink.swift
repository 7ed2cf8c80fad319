package import PloopIO

/// Where a disk is copied to, step by step.
///
/// Clusters of a step are stored by several threads at a time; between steps one thread commits. After an
/// error nothing is to be done with it but to open it anew, at the cursor of the last commit.
package protocol BackupSink: Sendable {
  /// Everything before this cluster was committed.
  var cursor: UInt64 { get }
  /// As of the last commit.
  var totals: StepJournal.Totals { get }

  /// Which clusters of a range have to be stored even if they are zero: something older would be seen.
  func zeroesNeeded(in range: Range<UInt64>) -> [Range<UInt64>]

  /// How many bytes of zeroes are stored with about the effort that 1 MiB of data takes, or less.
  var zeroesAtOnceBytes: UInt64 { get }

  /// Stores whole clusters.
  func store(_ region: ByteRegion, at cluster: UInt64) throws(BackupError)

  /// Stores whole clusters as they are where they come from, without reading them.
  ///
  /// - Returns: false, with nothing stored, where they have to be read.
  func share(
    _ clusters: Range<UInt64>, of source: any BackupSource
  ) throws(BackupError) -> Bool

  /// Stores zeroes.
  func storeZeroes(_ clusters: Range<UInt64>) throws(BackupError)

  /// Makes what was stored durable, and then the cursor.
  func commit(cursor: UInt64, _ totals: StepJournal.Totals) throws(BackupError)

  /// Everything is committed: it is a whole copy from now on, durably, and nobody's any more. May be
  /// repeated after a crash.
  ///
  /// - Returns: what its manifest says then; nil for what has none.
  @discardableResult
  func finish() throws(BackupError) -> PointManifest.Result?

  /// It is not gone on with here: somebody else may open it. Not while anything is being stored.
  func letGo()
}

extension BackupSink {
  package var zeroesAtOnceBytes: UInt64 { 1 << 20 }

  package func share(
    _ clusters: Range<UInt64>, of source: any BackupSource
  ) throws(BackupError) -> Bool { false }
}
