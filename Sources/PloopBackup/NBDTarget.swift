internal import PloopFormat
package import PloopIO

/// An export of an NBD server that holds one full backup at a time, as the disk's bytes are.
///
/// An export has no names, so what is known of the backup lies in a folder of ours: its manifest, its
/// journal, and a lock that keeps two writers apart who share the folder. Whoever else writes the export is
/// found out by the checksums.
package struct NBDTarget: SinglePointTarget {
  private static let lockName = "lock"

  package let name: String
  private let records: PointRecords
  private let open: @Sendable () throws(BackupError) -> any BlockExport

  /// - Parameters:
  ///   - uri: `nbd://`, `nbds://`, `nbd+unix://` or `nbds+unix://`.
  ///   - records: a folder for this target alone.
  package init(_ uri: String, _ options: NBDOptions = NBDOptions(), records: ImageFolder) {
    self.init(uri, records: records) { () throws(BackupError) in try NBDConnection(uri, options) }
  }

  /// - Parameter open: connects to the export, anew for each use.
  package init(
    _ name: String, records: ImageFolder,
    open: @escaping @Sendable () throws(BackupError) -> any BlockExport
  ) {
    self.name = name
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

  package func points() throws(BackupError) -> [BackupPoint] {
    try records.ids().map { (id) throws(BackupError) in
      // The export may have anything anywhere.
      records.single(id, try records.state(of: id), isReadWhole: true)
    }
  }

  package func manifest(_ id: String) throws(BackupError) -> PointManifest {
    try records.manifest(id)
  }

  package func reader(_ id: String) throws(BackupError) -> any BackupSource { try point(id) }

  package func check(_ id: String) throws(BackupError) -> PointCheck { try point(id).check() }

  private func point(_ id: String) throws(BackupError) -> ExportPoint {
    let manifest = try records.manifest(id)
    let lock = try lock(for: .read)
    return try ExportPoint(manifest, records, try open(), lock)
  }

  // MARK: Writing

  /// Where the export has lost what was copied, it is written from the beginning.
  package func write(
    _ manifest: PointManifest, isContinued: Bool
  ) throws(BackupError) -> any BackupSink {
    let lock = try lock(for: .write)
    let geometry = try records.geometry(beginning: manifest)
    let export = try open()
    let store = try ExportStore(export, for: geometry, lock)
    for other in try records.ids() where other != manifest.id { try records.remove(other) }
    try records.begin(manifest)
    let file = records.journal(of: manifest.id)
    let journal = try begun(file, geometry, in: export)
    let records = records
    return FlatWriter(
      store, CopyRecord(journal, in: file, of: export.name), of: geometry
    ) { (record) throws(BackupError) in
      try records.complete(
        manifest, geometry, storedClusters: record.entryCount, record.totals)
    }
  }

  /// The export's bytes stay.
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
