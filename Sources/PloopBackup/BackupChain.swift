internal import PloopDevice
package import PloopFormat
package import PloopIO

/// A folder with one full backup and the increments that build on it.
///
/// It is a chain of ploop deltas with a descriptor: every whole point is a snapshot of it, the newest one
/// the top. The descriptor alone decides which points there are; files of others are of points that were
/// begun, or are of no use.
package struct BackupChain: Sendable {
  package let folder: ImageFolder
  let locks: DescriptorLocks

  /// - Parameter locks: of the service that may have points attached for reading.
  package init(in folder: ImageFolder, locks: DescriptorLocks = DescriptorLocks()) {
    self.folder = folder
    self.locks = locks
  }

  var records: PointRecords { PointRecords(folder: folder) }
  var descriptorFile: DescriptorFile { DescriptorFile(in: folder) }

  /// - Returns: nil when no point is whole yet.
  package func descriptor() throws(BackupError) -> Descriptor? {
    guard folder.contains(Descriptor.fileName) else { return nil }
    return try onImages { () throws(DeviceError) in try descriptorFile.read() }
  }

  /// Whether a point was begun here, and is not removed; it may be whole.
  package func has(_ id: String) -> Bool {
    BackupNames.isValid(id) && folder.contains(id + BackupNames.manifest)
  }

  /// Whether the descriptor names a point; it does so durably then.
  package func isWhole(_ id: String) throws(BackupError) -> Bool {
    guard try ids(descriptor()).contains(id) else { return false }
    // Whoever was killed in the middle of the rename has perhaps not made it durable.
    try onTarget { () throws(IOError) in try folder.sync() }
    return true
  }

  /// The whole points, oldest first.
  func ids(_ descriptor: Descriptor?) throws(BackupError) -> [String] {
    guard let descriptor else { return [] }
    do {
      return try descriptor.chain(to: descriptor.topGUID).map { BackupChain.id($0) }
    } catch { throw BackupError(error, descriptorFile.path) }
  }

  /// What another tool has put into the chain has its file's name.
  private static func id(_ shot: Descriptor.Shot) -> String {
    shot.file.hasSuffix(BackupNames.image)
      ? String(shot.file.dropLast(BackupNames.image.count)) : shot.file
  }

  /// What a point is, or is to be: one without result was begun.
  ///
  /// - Throws: `.notFound`, `.corrupt`, `.mismatch` when it is of another version.
  package func manifest(_ id: String) throws(BackupError) -> PointManifest {
    try records.manifest(id)
  }

  // MARK: Writing

  /// Begins a point, or goes on with it where a crash or an error has left it.
  ///
  /// - Parameters:
  ///   - manifest: without result. Of a point that was begun it has to say the same: the instant may not
  ///     be another.
  ///   - wanted: see ``BackupSource/wanted``.
  /// - Throws: `.mismatch` when it does not fit the chain, or not what was begun; `.exists` when the point
  ///   is whole; `.locked`, `.chainIsFull`, `.target`, `.outOfSpace`, and `.corrupt` when a point below it is.
  package func write(
    _ manifest: PointManifest, wanted: Bitmap? = nil
  ) throws(BackupError) -> PointWriter {
    guard BackupNames.isValid(manifest.id), let geometry = manifest.geometry,
      manifest.result == nil
    else { throw BackupError(.mismatch, "\(manifest.id): no backup can be so") }
    let digest = manifest.wantsEverMore && wanted != nil ? nil : PointManifest.digest(of: wanted)
    guard digest == manifest.wantedDigest else {
      throw BackupError(.mismatch, "\(manifest.id): other clusters are wanted than it says")
    }
    let ids = try ids(descriptor())
    guard try !isWhole(manifest.id) else {
      throw BackupError(.exists, "\(folder.path): the backup \(manifest.id) is whole")
    }
    guard ids.last == manifest.parent else {
      throw BackupError(
        .mismatch,
        "\(folder.path): the newest backup is \(ids.last ?? "none"), not \(manifest.parent ?? "none")"
      )
    }
    guard ids.count < Descriptor.shotLimit else {
      throw BackupError(.chainIsFull, "\(folder.path): there are \(ids.count) backups in the chain")
    }
    let below = try below(ids, geometry)
    try records.begin(manifest)
    let image = try ImageWriter(
      manifest.id + BackupNames.image, journal: records.journal(of: manifest.id), in: folder,
      geometry: geometry)
    return PointWriter(manifest, image, below: below, chain: self)
  }

  /// Which clusters some point maps.
  private func below(_ ids: [String], _ geometry: Geometry) throws(BackupError) -> Bitmap? {
    guard !ids.isEmpty else { return nil }
    var below = Bitmap(count: Int(geometry.clusterCount))
    for id in ids {
      let delta = try PointDelta(id, of: self)
      guard delta.geometry.clusterShift == geometry.clusterShift,
        delta.geometry.sizeBytes <= geometry.sizeBytes
      else {
        throw BackupError(.mismatch, "\(folder.path): \(id) is of a disk of another size")
      }
      try delta.forEachEntry { cluster, _ in below[Int(cluster)] = true }
    }
    return below
  }

  /// A point is whole: its manifest says so, and the descriptor names it.
  func publish(_ manifest: PointManifest) throws(BackupError) {
    let lock = try lock()
    defer { withExtendedLifetime(lock) {} }
    try records.write(manifest)
    guard let geometry = manifest.geometry else { return }
    let file = manifest.id + BackupNames.image
    guard var new = try descriptor() else {
      return try replace(Descriptor(new: geometry, file: file))
    }
    let ids = try ids(new)
    guard let newest = ids.last, newest == manifest.parent else {
      throw BackupError(.mismatch, "\(folder.path): \(ids.last ?? "none") is the newest by now")
    }
    guard let guid = GUID(try self.manifest(newest).guid) else { return }
    do {
      try new.addSnapshot(guid, newTopFile: file)
    } catch { throw BackupError(error, descriptorFile.path) }
    new.resize(toSectors: manifest.sizeBytes / Geometry.sectorBytes)
    try replace(new)
  }

  func replace(_ descriptor: Descriptor) throws(BackupError) {
    try onImages { () throws(DeviceError) in try descriptorFile.replace(with: descriptor) }
  }

  /// The lock of OpenVZ's tools; nil while there is no descriptor.
  func lock() throws(BackupError) -> DescriptorLock? {
    do {
      return try locks.acquire(in: folder, exclusive: true)
    } catch { throw BackupError(error) }
  }
}
