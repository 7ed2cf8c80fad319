internal import PloopFormat
internal import PloopIO

/// A place that holds one full backup at a time, and no names of what is known of it: an export of an NBD
/// server, or one file. Manifest and journal lie in a folder of ours, whose only user it is.
package protocol SinglePointTarget: Sendable {
  /// What holds the backup, in messages.
  var name: String { get }

  /// The backup, if there is one, and what else there are records of. A server is not asked.
  func points() throws(BackupError) -> [BackupPoint]

  /// - Throws: `.notFound`, `.corrupt`, `.mismatch` when it is of another version.
  func manifest(_ id: String) throws(BackupError) -> PointManifest

  /// What a restore reads, which hands out nothing that was not stored.
  ///
  /// - Throws: `.notFound`; `.corrupt`; `.locked` while somebody writes it; `.target`, `.mismatch`.
  func reader(_ id: String) throws(BackupError) -> any BackupSource

  /// - Throws: as ``reader(_:)``.
  func check(_ id: String) throws(BackupError) -> PointCheck

  /// Begins a backup, or goes on with it where a crash or an error has left it. Any other that is known of
  /// is forgotten, before its first byte is overwritten.
  ///
  /// - Parameters:
  ///   - manifest: of a full backup, without result. Of one that was begun it has to say the same.
  ///   - isContinued: whether the caller has begun it: what cannot be found then is away, and not to be
  ///     begun anew.
  /// - Throws: `.mismatch` when the place cannot hold it, or not what was begun; `.exists` when it is whole, or
  ///   something that is not ours is there; `.locked`, `.target`, `.outOfSpace`.
  func write(
    _ manifest: PointManifest, isContinued: Bool
  ) throws(BackupError) -> any BackupSink

  /// Removes a backup, or what is known of it, so that nobody takes the place's bytes for it any more.
  ///
  /// - Throws: `.locked` while somebody writes or reads it; `.notFound`, `.target`.
  func remove(_ id: String) throws(BackupError)
}

extension SinglePointTarget {
  package func write(_ manifest: PointManifest) throws(BackupError) -> any BackupSink {
    try write(manifest, isContinued: false)
  }
}

extension PointRecords {
  /// - Parameter state: where the place itself says more than the records.
  func single(
    _ id: String, _ state: BackupPoint.State, diskBytes: UInt64? = nil,
    isReadWhole: Bool
  ) -> BackupPoint {
    let manifest = try? manifest(id)
    let stored = manifest?.result?.bytesWritten
    return BackupPoint(
      id: id, state: state, manifest: manifest, chainLength: state == .whole ? 1 : 0,
      diskBytes: diskBytes ?? stored ?? 0,
      checkedBytes: isReadWhole
        ? manifest?.geometry.map { $0.clusterCount * $0.clusterBytes } : stored)
  }

  /// - Returns: of the disk that a manifest is of, which begins a backup of all of it.
  func geometry(beginning manifest: PointManifest) throws(BackupError) -> Geometry {
    guard BackupNames.isValid(manifest.id), let geometry = manifest.geometry,
      manifest.result == nil, manifest.mode == .full, manifest.parent == nil,
      manifest.wantedDigest == nil
    else { throw BackupError(.mismatch, "\(manifest.id): only whole disks are held there") }
    guard try !isWhole(manifest.id) else {
      throw BackupError(.exists, "\(folder.path): the backup \(manifest.id) is whole")
    }
    return geometry
  }

  /// Everything is durable: the backup is whole from now on.
  func complete(
    _ manifest: PointManifest, _ geometry: Geometry, storedClusters count: Int,
    _ totals: StepJournal.Totals, modifiedAt: Double? = nil
  ) throws(BackupError) -> PointManifest.Result? {
    var whole = try completed(
      manifest, clusterBytes: geometry.clusterBytes, storedClusters: count, totals)
    whole.result?.modifiedAt = modifiedAt
    try write(whole)
    return whole.result
  }
}

extension StepJournal {
  private static let samples = 16

  /// Places of entries that tell whether what was stored still is there; the last one first, which is the
  /// likeliest to be lost.
  var samplePlaces: [Int] {
    let count = min(StepJournal.samples, entries.count)
    return (0..<count).map { entries.count - 1 - $0 * entries.count / count }
  }
}
