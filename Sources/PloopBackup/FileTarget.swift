package import PloopFormat
package import PloopIO

/// The image that a restore writes.
///
/// Until it is whole it has a journal beside it, with which the copying goes on after a crash.
package enum FileTarget {
  /// The journal of a file.
  package static func journal(of name: String) -> String { "\(name).sums" }

  /// Begins an image, or goes on with one that was begun.
  ///
  /// - Parameters:
  ///   - geometry: of the disk.
  ///   - version: of the image, whatever the disk's own are.
  ///   - below: clusters that deltas have over which it is to lie.
  /// - Throws: `.exists` when there is a file that is not ours; `.locked`, `.target`, `.outOfSpace`.
  package static func image(
    _ name: String, in folder: ImageFolder, of geometry: Geometry, version: ImageVersion = .v2,
    over below: Bitmap? = nil
  ) throws(BackupError) -> any BackupSink {
    let new = Geometry(
      version: version, clusterShift: geometry.clusterShift, sizeBytes: geometry.sizeBytes)
    let journalFile = JournalFile(folder: folder, name: journal(of: name))
    return ImageSink(
      image: try ImageWriter(name, journal: journalFile, in: folder, geometry: new), below: below,
      isSharing: true
    ) { (_) throws(BackupError) in
      try journalFile.remove()
      return nil
    }
  }
}

/// An image by itself, or over others.
struct ImageSink: BackupSink {
  let image: ImageWriter
  let below: Bitmap?
  /// Whether clusters may share blocks with what they are copied from: nobody is told their checksums then.
  var isSharing = false
  /// Makes it a whole copy, once everything is durable; may be repeated.
  let complete: @Sendable (ImageWriter) throws(BackupError) -> PointManifest.Result?

  var cursor: UInt64 { image.cursor }
  var totals: StepJournal.Totals { image.totals }

  func zeroesNeeded(in range: Range<UInt64>) -> [Range<UInt64>] { below?.runs(in: range) ?? [] }

  func store(_ region: ByteRegion, at cluster: UInt64) throws(BackupError) {
    try image.store(region, at: cluster)
  }

  func share(
    _ clusters: Range<UInt64>, of source: any BackupSource
  ) throws(BackupError) -> Bool {
    guard isSharing else { return false }
    return try image.share(clusters, of: source)
  }

  func storeZeroes(_ clusters: Range<UInt64>) throws(BackupError) {
    try image.storeZeroes(clusters)
  }

  func commit(cursor: UInt64, _ totals: StepJournal.Totals) throws(BackupError) {
    try image.commit(cursor: cursor, totals)
  }

  func finish() throws(BackupError) -> PointManifest.Result? {
    guard image.cursor == image.geometry.clusterCount else {
      throw BackupError(.mismatch, "not everything has been copied")
    }
    try image.close()
    let result = try complete(image)
    image.letGo()
    return result
  }

  func letGo() { image.letGo() }
}
