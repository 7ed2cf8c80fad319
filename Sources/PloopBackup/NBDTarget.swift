internal import PloopFormat
package import PloopIO

/// An export of an NBD server that holds one full backup at a time, as the disk's bytes are.
///
/// An export has no names, so what is known of the backup lies in a folder of ours: its manifest, its
/// journal, and a lock that keeps two writers apart who share the folder. Whoever else writes the export is
/// found out by the checksums.
package struct NBDTarget: Sendable {
  private static let lockName = "lock"

  private let records: PointRecords
  private let open: @Sendable () throws(BackupError) -> any BlockExport

  /// - Parameters:
  ///   - uri: `nbd://`, `nbds://`, `nbd+unix://` or `nbds+unix://`.
  ///   - records: a folder for this target alone.
  package init(_ uri: String, _ options: NBDOptions = NBDOptions(), records: ImageFolder) {
    self.init(records: records) { () throws(BackupError) in try NBDConnection(uri, options) }
  }

  /// - Parameter open: connects to the export, anew for each use.
  package init(
    records: ImageFolder, open: @escaping @Sendable () throws(BackupError) -> any BlockExport
  ) {
    self.records = PointRecords(folder: records)
    self.open = open
  }

  /// Whether the server can be reached, and what it says of the export.
  ///
  /// - Throws: `.target` when it cannot be reached, or has no such export; `.mismatch` when it may not be.
  package func probe() throws(BackupError) -> ExportFacts {
    let export = try open()
    defer { export.hangUp() }
    return export.facts
  }

  // MARK: What is there

  /// The backup, if there is one, and what else there are records of. The server is not asked.
  package func points() throws(BackupError) -> [BackupPoint] {
    try records.ids().map { (id) throws(BackupError) in
      let state = try records.state(of: id)
      let manifest = try? records.manifest(id)
      return BackupPoint(
        id: id, state: state, manifest: manifest, chainLength: state == .whole ? 1 : 0,
        diskBytes: manifest?.result?.bytesWritten ?? 0)
    }
  }

  /// - Throws: `.notFound`, `.corrupt`, `.mismatch` when it is of another version.
  package func manifest(_ id: String) throws(BackupError) -> PointManifest {
    try records.manifest(id)
  }

  /// - Throws: `.notFound`; `.corrupt`; `.locked` while somebody writes the export; `.target`, `.mismatch`.
  package func reader(_ id: String) throws(BackupError) -> ExportPoint {
    let manifest = try records.manifest(id)
    let lock = try lock(for: .read)
    return try ExportPoint(manifest, records, try open(), lock)
  }

  package func check(_ id: String) throws(BackupError) -> PointCheck { try reader(id).check() }

  // MARK: Writing

  /// Begins a backup, or goes on with it where a crash or an error has left it. Any other that the export
  /// holds is forgotten, before its first byte is overwritten.
  ///
  /// - Parameter manifest: of a full backup, without result. Of one that was begun it has to say the same.
  /// - Throws: `.mismatch` when the export cannot hold it, or not what was begun; `.exists` when it is whole;
  ///   `.locked`, `.target`, `.outOfSpace`.
  package func write(_ manifest: PointManifest) throws(BackupError) -> any BackupSink {
    guard BackupNames.isValid(manifest.id), let geometry = manifest.geometry,
      manifest.result == nil, manifest.mode == .full, manifest.parent == nil,
      manifest.wantedDigest == nil
    else { throw BackupError(.mismatch, "\(manifest.id): an export holds whole disks only") }
    let lock = try lock(for: .write)
    guard try !records.isWhole(manifest.id) else {
      throw BackupError(.exists, "\(records.folder.path): the backup \(manifest.id) is whole")
    }
    let export = try open()
    let store = try ExportStore(export, for: geometry, lock)
    for other in try records.ids() where other != manifest.id { try records.remove(other) }
    try records.begin(manifest)
    let file = records.journal(of: manifest.id)
    let journal = try begun(file, geometry, in: export)
    let records = records
    return FlatWriter(
      store, CopyRecord(journal, in: file, of: export.name), of: geometry, keepsChecksums: true
    ) { (record) throws(BackupError) in
      try records.write(
        records.completed(
          manifest, clusterBytes: geometry.clusterBytes, storedClusters: record.entryCount,
          record.totals))
    }
  }

  /// Removes what is known of a backup, so that nobody takes the export's bytes for it any more. The bytes
  /// stay.
  ///
  /// - Throws: `.locked` while somebody writes or reads the export; `.notFound`, `.target`.
  package func remove(_ id: String) throws(BackupError) {
    let lock = try lock(for: .write)
    defer { withExtendedLifetime(lock) {} }
    guard try records.ids().contains(id) else {
      throw BackupError(.notFound, "\(records.folder.path): there is no backup \(id)")
    }
    try records.remove(id)
  }

  private func lock(for use: ImageLock.Use) throws(BackupError) -> ImageFile {
    let folder = records.folder
    let file = try onTarget { () throws(IOError) in
      if !folder.contains(NBDTarget.lockName) {
        // Whoever comes at the same time has made it, then.
        do throws(IOError) { _ = try folder.create(NBDTarget.lockName) } catch {
          guard folder.contains(NBDTarget.lockName) else { throw error }
        }
      }
      return try folder.open(NBDTarget.lockName, writable: true)
    }
    do { try ImageLock.acquire(file, for: use) } catch { throw BackupError(error) }
    return file
  }
}
