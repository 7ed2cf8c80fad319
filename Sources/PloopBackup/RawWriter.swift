internal import PloopFormat
internal import PloopIO

/// Writes the disk's bytes as they are into a new file, each cluster at its own place.
final class RawWriter: BackupSink {
  private struct State {
    var journal: StepJournal
    var isFailed = false
  }

  private let geometry: Geometry
  private let file: ImageFile
  private let journalFile: JournalFile
  private let state: Locked<State>

  /// - Throws: `.exists` when there is a file and no journal of ours beside it; `.locked`, `.target`,
  ///   `.outOfSpace`.
  init(
    _ name: String, journal journalName: String, in folder: ImageFolder, geometry: Geometry
  ) throws(BackupError) {
    self.geometry = geometry
    journalFile = JournalFile(folder: folder, name: journalName)
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
    file = try onTarget { () throws(IOError) in try folder.open(name, writable: true) }
    do {
      try ImageLock.acquire(file, for: .write)
    } catch { throw BackupError(error) }
    file.dropFromPageCache()
    try journalFile.restart(keeping: journal.byteCount)
    // What is behind the cursor may hold anything, and zeroes are left out.
    let end = min(journal.cursor << UInt64(geometry.clusterShift), geometry.sizeBytes)
    let size = geometry.sizeBytes
    let file = file
    try onTarget { () throws(IOError) in
      try file.truncate(to: end)
      try file.truncate(to: size)
    }
    state = Locked(State(journal: journal))
  }

  var cursor: UInt64 { state.withLock { $0.journal.cursor } }
  var totals: StepJournal.Totals { state.withLock { $0.journal.totals } }

  /// The file has a hole there.
  func zeroesNeeded(in range: Range<UInt64>) -> [Range<UInt64>] { [] }

  func storeZeroes(_ clusters: Range<UInt64>) throws(BackupError) {}

  private func attempt(_ body: () throws(BackupError) -> Void) throws(BackupError) {
    if state.withLock({ $0.isFailed }) {
      throw BackupError(.failed, "\(file.path): an earlier write failed")
    }
    do { try body() } catch {
      state.withLock { $0.isFailed = true }
      throw error
    }
  }

  func store(_ region: ByteRegion, at cluster: UInt64) throws(BackupError) {
    try attempt { () throws(BackupError) in
      let offset = cluster << UInt64(geometry.clusterShift)
      let count = min(UInt64(region.count), geometry.sizeBytes - offset)
      try onTarget { () throws(IOError) in
        try file.write(region.slice(0, Int(count)), at: offset)
      }
      file.beginWriteback(offset: offset, length: count)
    }
  }

  func commit(cursor: UInt64, _ totals: StepJournal.Totals) throws(BackupError) {
    try attempt { () throws(BackupError) in
      let journal = state.withLock { $0.journal }
      let (record, bytes) = journal.record(of: [], cursor: cursor, totals)
      try onTarget { () throws(IOError) in try file.sync() }
      try journalFile.append(bytes, at: journal.byteCount)
      state.withLock { $0.journal.take(record) }
    }
  }

  func finish() throws(BackupError) {
    guard cursor == geometry.clusterCount else {
      throw BackupError(.mismatch, "\(file.path): not everything has been copied")
    }
    try attempt { () throws(BackupError) in
      try onTarget { () throws(IOError) in try file.sync() }
      try journalFile.remove()
    }
    letGo()
  }

  func letGo() {
    state.withLock { $0.isFailed = true }
    ImageLock.release(file)
  }
}
