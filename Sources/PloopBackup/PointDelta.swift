internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// The image of one whole point, opened for reading, with the checksums of what is in it.
///
/// That the journal is the one that was written, and the image the manifest's, is checked when it is
/// opened; the bytes of clusters are when they are read.
struct PointDelta: Sendable {
  let manifest: PointManifest
  let geometry: Geometry
  let source: DeltaSource
  let entries: [StepJournal.Entry]

  /// - Throws: `.notFound`; `.corrupt`; `.locked` when somebody writes it; `.target`.
  init(_ id: String, of chain: BackupChain) throws(BackupError) {
    let folder = chain.folder
    manifest = try chain.manifest(id)
    guard let result = manifest.result, let geometry = manifest.geometry else {
      throw BackupError(.corrupt(clusters: []), "\(folder.path): the backup \(id) is not whole")
    }
    self.geometry = geometry
    let name = id + BackupNames.image
    for file in [name, id + BackupNames.journal] where !folder.contains(file) {
      throw BackupError(.corrupt(clusters: []), "\(folder.path)/\(file) is missing")
    }
    let journalFile = JournalFile(folder: folder, name: id + BackupNames.journal)
    let (journal, isWhole) = try journalFile.read(clusterCount: geometry.clusterCount)
    guard isWhole, try journalFile.digest() == result.journalDigest else {
      throw BackupError(
        .corrupt(clusters: []), "\(folder.path)/\(journalFile.name) is not what was written")
    }
    entries = journal.entries
    source = DeltaSource(
      file: try onTarget { () throws(IOError) in try folder.open(name, writable: false) },
      folder: folder, name: name)
    do {
      try ImageLock.acquire(source.file, for: .read)
    } catch { throw BackupError(error) }
    try checkHeader()
  }

  private func checkHeader() throws(BackupError) {
    let buffer = AlignedBuffer(count: Header.byteCount)
    let (count, bytes) = try onTarget { () throws(IOError) in
      (try source.file.read(into: buffer.region, at: 0), try source.file.size())
    }
    do throws(FormatError) {
      let header = try Header(parsing: buffer.region.slice(0, count).bytes)
      guard try header.geometry(fileBytes: bytes) == geometry, header.isClean else {
        throw FormatError(.geometryMismatch, "it is in use, or of another disk than its manifest")
      }
    } catch {
      throw BackupError(.corrupt(clusters: []), "\(source.file.path): \(error.detail)")
    }
  }

  /// Hands out what the image's own index maps, in ascending order of clusters.
  ///
  /// - Throws: `.corrupt` at the first entry that must not be followed.
  func forEachEntry(
    _ body: (_ cluster: UInt64, _ physical: UInt64) -> Void
  ) throws(BackupError) {
    try onImages { () throws(DeviceError) in
      let bytes: UInt64
      do throws(IOError) { bytes = try source.file.size() } catch { throw DeviceError(error) }
      var scan = IndexScan(geometry, fileBytes: bytes)
      try scan.run(source.file) { (cluster, physical) throws(DeviceError) in
        body(cluster, physical)
      } fault: { (fault) throws(DeviceError) in
        throw DeviceError(
          FormatError(.corrupt, "entry \(fault.entry) of cluster \(fault.cluster)", fault: fault),
          level: 0, path: source.file.path)
      }
    }
  }

  /// What was stored at a place of the file.
  func entry(at physical: UInt64) -> StepJournal.Entry? {
    guard physical >= geometry.headerClusters,
      physical - geometry.headerClusters < UInt64(entries.count)
    else { return nil }
    return entries[Int(physical - geometry.headerClusters)]
  }

  /// Reads clusters that lie behind each other in the file.
  ///
  /// - Returns: those of them that are not what was stored, as places in the region.
  func read(into region: ByteRegion, physical: UInt64) throws(BackupError) -> [Int] {
    let shift = UInt64(geometry.clusterShift)
    try onTarget { () throws(IOError) in
      try source.file.readOrZero(into: region, at: physical << shift)
    }
    let bytes = Int(geometry.clusterBytes)
    return (0..<region.count / bytes).filter { index in
      entry(at: physical + UInt64(index))?.checksum
        != CRC32C.checksum(region.slice(index * bytes, bytes))
    }
  }
}
