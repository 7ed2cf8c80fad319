internal import PloopIO

/// A ``StepJournal`` in its file.
struct JournalFile: Sendable {
  let folder: ImageFolder
  let name: String

  var exists: Bool { folder.contains(name) }

  /// Makes an empty one, durably.
  func create() throws(BackupError) {
    try onTarget { () throws(IOError) in
      _ = try folder.create(name)
      try folder.sync()
    }
  }

  /// - Returns: the records that count, and whether there is nothing behind them.
  func read(clusterCount: UInt64) throws(BackupError) -> (journal: StepJournal, isWhole: Bool) {
    let bytes = try bytes()
    let journal = StepJournal(parsing: bytes.region, clusterCount: clusterCount)
    return (journal, journal.byteCount == UInt64(bytes.count))
  }

  private func bytes() throws(BackupError) -> AlignedBuffer {
    try onTarget { () throws(IOError) in
      let file = try folder.open(name, writable: false)
      let size = try file.size()
      guard size <= UInt64(StepJournal.limitBytes) else {
        throw IOError("read", path: file.path, code: 27)
      }
      let buffer = AlignedBuffer(unfilled: Int(size))
      try file.readOrZero(into: buffer.region, at: 0)
      return buffer
    }
  }

  /// The SHA-256 of the whole file.
  func digest() throws(BackupError) -> String {
    var hash = SHA256()
    hash.update(try bytes().region)
    return hash.hexDigest()
  }

  /// Keeps nothing but the first bytes, and writes those anew: after a sync that failed they may be in the
  /// page cache and on no disk.
  func restart(keeping count: UInt64) throws(BackupError) {
    let kept = try bytes().region.slice(0, Int(count)).bytes
    try onTarget { () throws(IOError) in try folder.replace(name, with: kept) }
  }

  /// Writes a record behind the others, durably.
  func append(_ record: AlignedBuffer, at offset: UInt64) throws(BackupError) {
    try onTarget { () throws(IOError) in
      let file = try folder.open(name, writable: true)
      try file.write(record.region, at: offset)
      try file.sync()
    }
  }

  /// Removes it, durably.
  func remove() throws(BackupError) {
    try onTarget { () throws(IOError) in
      for file in [name, "\(name).tmp"] where folder.contains(file) { try folder.unlink(file) }
      try folder.sync()
    }
  }
}
