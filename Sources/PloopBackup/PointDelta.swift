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
    try self.init(
      chain.manifest(id), chain.records, image: id + BackupNames.image, in: chain.folder)
  }

  /// - Parameters:
  ///   - records: what is known of it.
  ///   - name: of its image.
  /// - Throws: as above.
  init(
    _ manifest: PointManifest, _ records: PointRecords, image name: String, in folder: ImageFolder
  ) throws(BackupError) {
    self.manifest = manifest
    guard let geometry = manifest.geometry else {
      throw BackupError(.mismatch, "\(manifest.id): no backup can be so")
    }
    self.geometry = geometry
    entries = try records.entries(of: manifest, geometry)
    guard folder.contains(name) else {
      throw BackupError(.corrupt(clusters: []), "\(folder.path)/\(name) is missing")
    }
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

extension PointDelta: CheckedContent {
  var clusterShift: Int { geometry.clusterShift }

  var places: Range<UInt64> {
    geometry.headerClusters..<geometry.headerClusters + UInt64(entries.count)
  }

  func known(
    from place: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, wrong: [UInt64]?) { (limit, nil) }

  func wrong(in places: Range<UInt64>) throws(BackupError) -> [UInt64] {
    let buffer = AlignedBuffer(unfilled: places.count << geometry.clusterShift)
    return try read(into: buffer.region, physical: places.lowerBound).compactMap { index in
      entry(at: places.lowerBound + UInt64(index)).map { UInt64($0.cluster) }
    }
  }

  /// Clusters that are stored and not in the index, or in it and not stored, or elsewhere.
  func misplaced() throws(BackupError) -> Set<UInt64> {
    var wrong = Set(entries.map { UInt64($0.cluster) })
    try forEachEntry { cluster, physical in
      if entry(at: physical).map({ UInt64($0.cluster) }) == cluster {
        wrong.remove(cluster)
      } else {
        wrong.insert(cluster)
      }
    }
    return wrong
  }
}
