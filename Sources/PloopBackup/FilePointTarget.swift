internal import Glibc
internal import PloopFormat
package import PloopIO

/// One file that holds one full backup: a ploop image, or the disk's bytes as they are.
///
/// Until it is whole it has another name, which says whose it is; so what has the file's own name is whole,
/// or somebody else's, and is never written. What is known of it lies in a folder of ours
/// (docs/crash-safety.md, "A file that holds a backup").
package struct FilePointTarget: SinglePointTarget {
  package enum Format: Sendable {
    case raw, image
  }

  let folder: ImageFolder
  let file: String
  let format: Format
  let records: PointRecords

  /// - Parameters:
  ///   - file: its name in `folder`; it may not be there yet.
  ///   - records: a folder for this target alone.
  package init(
    _ file: String, in folder: ImageFolder, as format: Format, records: ImageFolder
  ) {
    self.file = file
    self.folder = folder
    self.format = format
    self.records = PointRecords(folder: records)
  }

  /// The longest name that leaves room for that of the half file.
  package static let nameLimitBytes = 255 - ".\(String(repeating: "x", count: 64)).part".utf8.count

  /// What it is called until it is whole.
  package static func part(of file: String, _ id: String) -> String { "\(file).\(id).part" }

  /// Whether a name is such a one.
  package static func isPart(_ name: String, of file: String) -> Bool {
    let id = name.dropFirst(file.count + 1).dropLast(".part".count)
    return BackupNames.isValid(String(id)) && name == part(of: file, String(id))
  }

  package var name: String {
    folder.path.hasSuffix(":") ? folder.path + file : "\(folder.path)/\(file)"
  }

  func part(_ id: String) -> String { FilePointTarget.part(of: file, id) }

  /// Whether anything is where the file is to be.
  package var isThere: Bool { folder.contains(file) }

  // MARK: What is there

  package func points() throws(BackupError) -> [BackupPoint] {
    try records.ids().map { (id) throws(BackupError) in
      var state = try records.state(of: id)
      let isWhole = state == .whole
      if isWhole, !isThere { state = .damaged("\(name) is missing") }
      let bytes = try onTarget { () throws(IOError) in
        try folder.diskBytes(of: isWhole ? file : part(id))
      }
      return records.single(id, state, diskBytes: bytes, isReadWhole: format == .raw)
    }
  }

  package func manifest(_ id: String) throws(BackupError) -> PointManifest {
    try records.manifest(id)
  }

  package func reader(_ id: String) throws(BackupError) -> any BackupSource {
    switch format {
    case .raw: try rawPoint(id)
    case .image: try PointReader(delta(id))
    }
  }

  package func check(_ id: String) throws(BackupError) -> PointCheck {
    switch format {
    case .raw: try rawPoint(id).check()
    case .image: try PointCheck(delta(id))
    }
  }

  private func delta(_ id: String) throws(BackupError) -> PointDelta {
    try PointDelta(records.manifest(id), records, image: file, in: folder)
  }

  private func rawPoint(_ id: String) throws(BackupError) -> ExportPoint {
    let manifest = try records.manifest(id)
    guard isThere else { throw BackupError(.corrupt(clusters: []), "\(name) is missing") }
    let file = try onTarget { () throws(IOError) in try folder.open(self.file, writable: false) }
    do { try ImageLock.acquire(file, for: .read) } catch { throw BackupError(error) }
    return try ExportPoint(manifest, records, StoredFile(file), file)
  }

  // MARK: Writing

  package func write(
    _ manifest: PointManifest, isContinued: Bool
  ) throws(BackupError) -> any BackupSink {
    let geometry = try records.geometry(beginning: manifest)
    let part = part(manifest.id)
    guard !isThere else { return try renamed(manifest, geometry) }
    guard !isContinued || folder.contains(part) else {
      throw BackupError(.target(code: 2), "\(folder.path)/\(part): what was begun is not there")
    }
    for other in try records.ids() where other != manifest.id { try discard(other) }
    try records.begin(manifest)
    let journal = records.journal(of: manifest.id)
    switch format {
    case .image:
      let image = try ImageWriter(part, journal: journal, in: folder, geometry: geometry)
      return ImageSink(image: image, below: nil) { (image) throws(BackupError) in
        try complete(manifest, geometry, storedClusters: image.entryCount, image.totals)
      }
    case .raw:
      let (file, record) = try RawFile.open(part, journal, in: folder, of: geometry)
      return FlatWriter(file, record, of: geometry) { (record) throws(BackupError) in
        try complete(manifest, geometry, storedClusters: record.entryCount, record.totals)
      }
    }
  }

  /// 1 the file has its name, durably … 2 its manifest says that it is whole
  private func complete(
    _ manifest: PointManifest, _ geometry: Geometry, storedClusters count: Int,
    _ totals: StepJournal.Totals
  ) throws(BackupError) -> PointManifest.Result? {
    do throws(IOError) {
      try folder.rename(part(manifest.id), toUnused: file)
      try folder.sync()
    } catch {
      throw error.code == EEXIST ? BackupError(.exists, "\(name) exists") : BackupError(error)
    }
    return try records.complete(
      manifest, geometry, storedClusters: count, totals, modifiedAt: modifiedAt())
  }

  private func modifiedAt() throws(BackupError) -> Double {
    let stamp = try onTarget { () throws(IOError) in
      try folder.open(file, writable: false).stamp()
    }
    return Double(stamp.seconds) + Double(stamp.nanoseconds) / 1e9
  }

  /// Something has the file's name.
  ///
  /// - Throws: `.exists` unless it is this backup, which lacks nothing but the word that it is whole.
  private func renamed(
    _ manifest: PointManifest, _ geometry: Geometry
  ) throws(BackupError) -> any BackupSink {
    let exists = BackupError(.exists, "\(name) exists")
    guard records.folder.contains(manifest.id + BackupNames.manifest) else { throw exists }
    try records.begin(manifest)
    guard let journal = try stored(manifest.id, geometry) else { throw exists }
    return RenamedFile(
      cursor: journal.cursor, totals: journal.totals
    ) { () throws(BackupError) in
      try onTarget { () throws(IOError) in try folder.sync() }
      return try records.complete(
        manifest, geometry, storedClusters: journal.entries.count, journal.totals,
        modifiedAt: modifiedAt())
    }
  }

  // MARK: Removing

  /// A file that is not what was stored any more is somebody else's, and stays.
  package func remove(_ id: String) throws(BackupError) {
    guard try records.ids().contains(id) else {
      throw BackupError(.notFound, "\(records.folder.path): there is no backup \(id)")
    }
    if try isOwn(id) { try unlink(file) }
    try discard(id)
  }

  private func isOwn(_ id: String) throws(BackupError) -> Bool {
    let manifest: PointManifest
    do throws(BackupError) { manifest = try records.manifest(id) } catch {
      if case .target = error.kind { throw error }
      return false
    }
    guard let geometry = manifest.geometry, try stored(id, geometry) != nil else { return false }
    guard let result = manifest.result else { return true }
    return try result.modifiedAt == modifiedAt()
  }

  /// Removes what was begun of a backup, and what is known of it: the records last, which say whose the rest
  /// is.
  private func discard(_ id: String) throws(BackupError) {
    if folder.contains(part(id)) { try unlink(part(id)) }
    try records.remove(id)
  }

  private func unlink(_ name: String) throws(BackupError) {
    let file = try onTarget { () throws(IOError) in try folder.open(name, writable: true) }
    do { try ImageLock.acquire(file, for: .write) } catch { throw BackupError(error) }
    try onTarget { () throws(IOError) in
      try folder.unlink(name)
      try folder.sync()
    }
    ImageLock.release(file)
  }

  /// Whether what has the file's name is a backup, as far as its size and a few clusters tell.
  ///
  /// - Returns: the backup's journal, all of it copied; nil when it is not.
  private func stored(_ id: String, _ geometry: Geometry) throws(BackupError) -> StepJournal? {
    let journalFile = records.journal(of: id)
    guard isThere, !folder.contains(part(id)), journalFile.exists else { return nil }
    let journal = try journalFile.read(clusterCount: geometry.clusterCount).journal
    guard journal.cursor == geometry.clusterCount else { return nil }
    let (shift, isImage) = (UInt64(geometry.clusterShift), format == .image)
    let end =
      isImage
      ? geometry.headerBytes + UInt64(journal.entries.count) << shift : geometry.sizeBytes
    let buffer = AlignedBuffer(unfilled: Int(geometry.clusterBytes))
    let isSame = try onTarget { () throws(IOError) in
      let file = try folder.open(self.file, writable: false)
      guard try file.size() == end else { return false }
      for place in journal.samplePlaces {
        let entry = journal.entries[place]
        let number = isImage ? geometry.headerClusters + UInt64(place) : UInt64(entry.cluster)
        try file.readOrZero(into: buffer.region, at: number << shift)
        guard CRC32C.checksum(buffer.region) == entry.checksum else { return false }
      }
      // Of a disk of zeroes nothing is stored, so nothing is to be there.
      return isImage || !journal.entries.isEmpty || file.nextData(from: 0) == nil
    }
    return isSame ? journal : nil
  }
}

/// A file that is copied, and has its name already.
private struct RenamedFile: BackupSink {
  let cursor: UInt64
  let totals: StepJournal.Totals
  let complete: @Sendable () throws(BackupError) -> PointManifest.Result?

  private var nothing: BackupError { BackupError(.failed, "everything has been copied") }

  func zeroesNeeded(in range: Range<UInt64>) -> [Range<UInt64>] { [] }
  func store(_ region: ByteRegion, at cluster: UInt64) throws(BackupError) { throw nothing }
  func storeZeroes(_ clusters: Range<UInt64>) throws(BackupError) { throw nothing }
  func commit(
    cursor: UInt64, _ totals: StepJournal.Totals
  ) throws(BackupError) { throw nothing }
  func finish() throws(BackupError) -> PointManifest.Result? { try complete() }
  func letGo() {}
}

/// A raw file that is read.
private struct StoredFile: BlockExport {
  let file: ImageFile
  let facts: ExportFacts

  init(_ file: ImageFile) throws(BackupError) {
    self.file = file
    var facts = ExportFacts(sizeBytes: try onTarget { () throws(IOError) in try file.size() })
    facts.isReadOnly = true
    facts.tellsZeroes = false
    self.facts = facts
  }

  var name: String { file.path }

  func read(into region: ByteRegion, at offset: UInt64) throws(BackupError) {
    try onTarget { () throws(IOError) in try file.readOrZero(into: region, at: offset) }
  }

  private var readOnly: BackupError { BackupError(.mismatch, "\(name) is only read") }

  func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) { throw readOnly }
  func zero(_ range: Range<UInt64>) throws(BackupError) { throw readOnly }
  func flush() throws(BackupError) { throw readOnly }
  func extents(in range: Range<UInt64>) throws(BackupError) -> [ExportExtent] { [] }
  func hangUp() {}
}
