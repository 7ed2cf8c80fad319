package import PloopFormat
package import PloopIO

/// One file that holds the disk and nothing older: a ploop image, or the disk's bytes as they are. It is
/// also what a restore writes.
///
/// Until it is whole it has a journal beside it, with which the copying goes on after a crash.
package enum FileTarget {
  /// The journal of a file.
  package static func journal(of name: String) -> String { "\(name).sums" }

  /// Removes a file that was begun and is not whole, with its journal; a file that has none is not touched.
  ///
  /// - Throws: `.locked` when somebody writes it; `.target`.
  package static func discard(
    _ name: String, in folder: ImageFolder
  ) throws(BackupError) {
    let journal = JournalFile(folder: folder, name: journal(of: name))
    guard journal.exists else { return }
    if folder.contains(name) {
      let file = try onTarget { () throws(IOError) in try folder.open(name, writable: true) }
      do { try ImageLock.acquire(file, for: .write) } catch { throw BackupError(error) }
      try onTarget { () throws(IOError) in
        try folder.unlink(name)
        try folder.sync()
      }
    }
    try journal.remove()
  }

  /// Begins an image of version 2, or goes on with one that was begun.
  ///
  /// - Parameters:
  ///   - geometry: of the disk.
  ///   - below: clusters that deltas have over which it is to lie.
  /// - Throws: `.exists` when there is a file that is not ours; `.locked`, `.target`, `.outOfSpace`.
  package static func image(
    _ name: String, in folder: ImageFolder, of geometry: Geometry, over below: Bitmap? = nil
  ) throws(BackupError) -> any BackupSink {
    let new = Geometry(
      version: .v2, clusterShift: geometry.clusterShift, sizeBytes: geometry.sizeBytes)
    return ImageSink(
      image: try ImageWriter(name, journal: journal(of: name), in: folder, geometry: new),
      journal: JournalFile(folder: folder, name: journal(of: name)), below: below)
  }

  /// The same for a raw file, which has a hole wherever the disk is zero.
  package static func raw(
    _ name: String, in folder: ImageFolder, of geometry: Geometry
  ) throws(BackupError) -> any BackupSink {
    let journalFile = JournalFile(folder: folder, name: journal(of: name))
    let (file, record) = try RawFile.open(name, journalFile, in: folder, of: geometry)
    return FlatWriter(file, record, of: geometry, keepsChecksums: false) {
      (record) throws(BackupError) in try record.file.remove()
    }
  }
}

/// An image by itself, or over others.
private struct ImageSink: BackupSink {
  let image: ImageWriter
  let journal: JournalFile
  let below: Bitmap?

  var cursor: UInt64 { image.cursor }
  var totals: StepJournal.Totals { image.totals }

  func zeroesNeeded(in range: Range<UInt64>) -> [Range<UInt64>] { below?.runs(in: range) ?? [] }

  func store(_ region: ByteRegion, at cluster: UInt64) throws(BackupError) {
    try image.store(region, at: cluster)
  }

  func storeZeroes(_ clusters: Range<UInt64>) throws(BackupError) {
    try image.storeZeroes(clusters)
  }

  func commit(cursor: UInt64, _ totals: StepJournal.Totals) throws(BackupError) {
    try image.commit(cursor: cursor, totals)
  }

  func finish() throws(BackupError) {
    guard image.cursor == image.geometry.clusterCount else {
      throw BackupError(.mismatch, "not everything has been copied")
    }
    try image.close()
    try journal.remove()
    image.letGo()
  }

  func letGo() { image.letGo() }
}
