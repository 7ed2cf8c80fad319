internal import PloopFormat
internal import PloopIO

extension NBDTarget {
  /// What an earlier life has left of a copy. An export that holds something else by now, as that of a
  /// server without a memory, is written from the beginning.
  func begun(
    _ file: JournalFile, _ geometry: Geometry, in export: any BlockExport
  ) throws(BackupError) -> StepJournal {
    guard file.exists else {
      try file.create()
      return StepJournal()
    }
    let journal = try file.read(clusterCount: geometry.clusterCount).journal
    let isThere = try NBDTarget.holds(export, journal, geometry)
    try file.restart(keeping: isThere ? journal.byteCount : 0)
    return isThere ? journal : StepJournal()
  }

  private static func holds(
    _ export: any BlockExport, _ journal: StepJournal, _ geometry: Geometry
  ) throws(BackupError) -> Bool {
    let stored = StoredClusters(journal.entries)
    let buffer = AlignedBuffer(unfilled: Int(geometry.clusterBytes))
    for place in journal.samplePlaces {
      let cluster = UInt64(journal.entries[place].cluster)
      let wrong = try stored.read(into: buffer.region, from: cluster, of: geometry, in: export)
      guard wrong.isEmpty else { return false }
    }
    return true
  }
}
