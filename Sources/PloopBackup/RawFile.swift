internal import PloopFormat
internal import PloopIO

/// A raw file that is being written; it has a hole wherever nothing was stored.
struct RawFile: FlatStore {
  private let file: ImageFile
  private let sizeBytes: UInt64

  /// Makes the file, or opens one that was begun and forgets what does not count.
  ///
  /// - Returns: also what counts of it.
  /// - Throws: `.exists` when there is a file and no journal of ours beside it; `.locked`, `.target`,
  ///   `.outOfSpace`.
  static func open(
    _ name: String, _ journalFile: JournalFile, in folder: ImageFolder, of geometry: Geometry
  ) throws(BackupError) -> (file: RawFile, record: CopyRecord) {
    var journal = StepJournal()
    if journalFile.exists {
      journal = try journalFile.read(clusterCount: geometry.clusterCount).journal
    } else {
      guard !folder.contains(name) else {
        throw BackupError(.exists, "\(folder.path)/\(name) exists")
      }
      try journalFile.create()
    }
    if !folder.contains(name) {
      // Its name is durable before anything counts.
      journal = StepJournal()
      try onTarget { () throws(IOError) in
        _ = try folder.create(name)
        try folder.sync()
      }
    }
    let file = try onTarget { () throws(IOError) in try folder.open(name, writable: true) }
    do {
      try ImageLock.acquire(file, for: .write)
    } catch { throw BackupError(error) }
    try journalFile.restart(keeping: journal.byteCount)
    // What is behind the cursor may hold anything, and zeroes are left out.
    let end = min(journal.cursor << UInt64(geometry.clusterShift), geometry.sizeBytes)
    try onTarget { () throws(IOError) in
      try file.truncate(to: end)
      try file.truncate(to: geometry.sizeBytes)
    }
    return (
      RawFile(file: file, sizeBytes: geometry.sizeBytes),
      CopyRecord(journal, in: journalFile, of: file.path)
    )
  }

  var path: String { file.path }
  var needsZeroes: Bool { false }
  var zeroesAtOnceBytes: UInt64 { 1 << 20 }

  func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {
    let count = min(UInt64(region.count), sizeBytes - offset)
    try onTarget { () throws(IOError) in
      try file.write(region.slice(0, Int(count)), at: offset)
    }
    file.beginWriteback(offset: offset, length: count)
  }

  func zero(_ range: Range<UInt64>) throws(BackupError) {}

  func flush() throws(BackupError) {
    try onTarget { () throws(IOError) in try file.sync() }
  }

  func letGo() { ImageLock.release(file) }
}
