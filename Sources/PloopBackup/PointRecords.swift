internal import PloopFormat
internal import PloopIO

/// The manifests and the journals of points, in one folder.
struct PointRecords: Sendable {
  let folder: ImageFolder

  func journal(of id: String) -> JournalFile {
    JournalFile(folder: folder, name: id + BackupNames.journal)
  }

  /// The points that there is any record of, in order of their names.
  func ids() throws(BackupError) -> [String] {
    let names = try onTarget { () throws(IOError) in try folder.names() }
    return Set(names.compactMap(BackupNames.point(ofFile:))).sorted()
  }

  /// What a point is, or is to be: one without result was begun.
  ///
  /// - Throws: `.notFound`, `.corrupt`, `.mismatch` when it is of another version.
  func manifest(_ id: String) throws(BackupError) -> PointManifest {
    let name = id + BackupNames.manifest
    guard BackupNames.isValid(id), folder.contains(name) else {
      throw BackupError(.notFound, "\(folder.path): there is no manifest of a backup \(id)")
    }
    let bytes = try onTarget { () throws(IOError) in
      try folder.bytes(of: name, limit: PointManifest.limitBytes)
    }
    let manifest = try PointManifest(parsing: bytes, path: "\(folder.path)/\(name)")
    guard manifest.id == id else {
      throw BackupError(.mismatch, "\(folder.path)/\(name) is the manifest of \(manifest.id)")
    }
    return manifest
  }

  /// The manifest is durable, or is there already and says the same.
  func begin(_ manifest: PointManifest) throws(BackupError) {
    guard folder.contains(manifest.id + BackupNames.manifest) else { return try write(manifest) }
    var begun = try self.manifest(manifest.id)
    begun.result = nil
    guard begun == manifest else {
      throw BackupError(.mismatch, "\(folder.path): \(manifest.id) was begun as another backup")
    }
  }

  /// Replaces the manifest, durably.
  func write(_ manifest: PointManifest) throws(BackupError) {
    try onTarget { () throws(IOError) in
      try folder.replace(manifest.id + BackupNames.manifest, with: manifest.file)
    }
  }

  /// The manifest of a point of which everything is durable.
  func completed(
    _ manifest: PointManifest, clusterBytes: UInt64, storedClusters count: Int,
    _ totals: StepJournal.Totals
  ) throws(BackupError) -> PointManifest {
    var whole = manifest
    whole.result = PointManifest.Result(
      storedClusters: UInt64(count), bytesRead: totals.bytesRead,
      bytesWritten: UInt64(count) * clusterBytes,
      zeroBytes: totals.zeroBytes, journalDigest: try journal(of: manifest.id).digest(),
      completedAt: wallClockSeconds())
    return whole
  }

  /// What a whole point has stored, with the checksums.
  ///
  /// - Throws: `.corrupt` when it is not whole, or its journal is not the one that was written.
  func entries(
    of manifest: PointManifest, _ geometry: Geometry
  ) throws(BackupError) -> [StepJournal.Entry] {
    let file = journal(of: manifest.id)
    guard let result = manifest.result else {
      throw BackupError(
        .corrupt(clusters: []), "\(folder.path): the backup \(manifest.id) is not whole")
    }
    guard file.exists else {
      throw BackupError(.corrupt(clusters: []), "\(folder.path)/\(file.name) is missing")
    }
    let (journal, isWhole) = try file.read(clusterCount: geometry.clusterCount)
    guard isWhole, try file.digest() == result.journalDigest else {
      throw BackupError(
        .corrupt(clusters: []), "\(folder.path)/\(file.name) is not what was written")
    }
    return journal.entries
  }

  /// Whether there is a manifest that says so; it is durable then.
  func isWhole(_ id: String) throws(BackupError) -> Bool {
    guard folder.contains(id + BackupNames.manifest), try manifest(id).result != nil else {
      return false
    }
    // Whoever was killed in the middle of the rename has perhaps not made it durable.
    try onTarget { () throws(IOError) in try folder.sync() }
    return true
  }

  /// What is known of a point without reading its clusters.
  func state(of id: String) throws(BackupError) -> BackupPoint.State {
    do {
      guard try manifest(id).result != nil else { return .partial }
    } catch {
      if case .target = error.kind { throw error }
      return .damaged(error.detail)
    }
    let name = journal(of: id).name
    return folder.contains(name) ? .whole : .damaged("\(name) is missing")
  }

  /// Removes all records of a point, the manifest last: as long as it is there it says what the rest belonged
  /// to.
  func remove(_ id: String) throws(BackupError) {
    try onTarget { () throws(IOError) in
      let files = try folder.names().filter { BackupNames.point(ofFile: $0) == id }
      let manifest = id + BackupNames.manifest
      for file in files where file != manifest { try folder.unlink(file) }
      try folder.sync()
      guard files.contains(manifest) else { return }
      try folder.unlink(manifest)
      try folder.sync()
    }
  }
}
