internal import PloopDevice
package import PloopFormat
package import PloopIO

/// Writes an image from beginning to end, each cluster behind the last one, and goes on after
/// a crash at its last commit (docs/crash-safety.md, "A copy is written").
///
/// Until it is whole its own index is empty and it is marked as in use, so nobody takes it for more than it
/// is: what is in it says its journal.
package final class ImageWriter: Sendable {
  package let geometry: Geometry
  let file: ImageFile
  private let record: CopyRecord
  private let zeroes: ByteRegion
  /// Whether blocks can be shared with what is copied, as far as is known.
  private let mayShare: Locked<Bool>

  /// Begins an image, or goes on with one that was begun.
  ///
  /// - Parameters:
  ///   - name: of the image. What exists under it is taken for ours only if the journal is there.
  ///   - journalFile: its journal.
  /// - Throws: `.exists`; `.locked` when somebody else writes it; `.target`, `.outOfSpace`.
  init(
    _ name: String, journal journalFile: JournalFile, in folder: ImageFolder, geometry: Geometry
  ) throws(BackupError) {
    self.geometry = geometry
    zeroes = AlignedBuffer(count: Int(max(geometry.clusterBytes, 1 << 20))).region
    let journal: StepJournal
    if let begun = try ImageWriter.begun(name, journalFile, in: folder, geometry) {
      (file, journal) = (begun.file, begun.journal)
    } else {
      file = try ImageWriter.begin(name, journalFile, in: folder, geometry)
      journal = StepJournal()
    }
    record = CopyRecord(journal, in: journalFile, of: file.path)
    mayShare = Locked(file.mayShareBlocks)
  }

  /// What an earlier life has left, if it is of any use; else it is removed.
  private static func begun(
    _ name: String, _ journalFile: JournalFile, in folder: ImageFolder, _ geometry: Geometry
  ) throws(BackupError) -> (file: ImageFile, journal: StepJournal)? {
    guard journalFile.exists else { return nil }
    let journal = try journalFile.read(clusterCount: geometry.clusterCount).journal
    guard folder.contains(name) else {
      try journalFile.remove()
      return nil
    }
    let file = try onTarget { () throws(IOError) in try folder.open(name, writable: true) }
    try lock(file)
    let end =
      geometry.headerBytes + UInt64(journal.entries.count) << UInt64(geometry.clusterShift)
    guard journal.cursor > 0, try geometryOf(file) == geometry,
      try onTarget({ () throws(IOError) in try file.size() }) >= end
    else {
      try onTarget { () throws(IOError) in
        try folder.unlink(name)
        try folder.sync()
      }
      try journalFile.remove()
      return nil
    }
    // What is behind the cursor may be in the page cache alone; it is cut off, and written again.
    try journalFile.restart(keeping: journal.byteCount)
    try onTarget { () throws(IOError) in try file.truncate(to: end) }
    return (file, journal)
  }

  private static func begin(
    _ name: String, _ journalFile: JournalFile, in folder: ImageFolder, _ geometry: Geometry
  ) throws(BackupError) -> ImageFile {
    guard !folder.contains(name) else {
      throw BackupError(.exists, "\(folder.path)/\(name) exists")
    }
    try journalFile.create()
    try onImages { () throws(DeviceError) in
      try ImageCreator.create(in: folder, name: name, geometry: geometry, inUse: true)
    }
    let file = try onTarget { () throws(IOError) in try folder.open(name, writable: true) }
    try lock(file)
    return file
  }

  private static func lock(_ file: ImageFile) throws(BackupError) {
    do { try ImageLock.acquire(file, for: .write) } catch { throw BackupError(error) }
  }

  /// - Returns: nil when there is no header that describes the file.
  private static func geometryOf(_ file: ImageFile) throws(BackupError) -> Geometry? {
    let buffer = AlignedBuffer(count: Header.byteCount)
    return try onTarget { () throws(IOError) in
      let count = try file.read(into: buffer.region, at: 0)
      let bytes = try file.size()
      return try? Header(parsing: buffer.region.slice(0, count).bytes).geometry(fileBytes: bytes)
    }
  }

  // MARK: Storing

  package var cursor: UInt64 { record.cursor }
  package var totals: StepJournal.Totals { record.totals }
  /// Of the last commit.
  package var entryCount: Int { record.entryCount }

  /// Stores whole clusters behind everything that was stored before.
  package func store(_ region: ByteRegion, at cluster: UInt64) throws(BackupError) {
    try record.attempt { () throws(BackupError) in
      let entries = CopyRecord.entries(
        of: region, from: cluster, clusterBytes: Int(geometry.clusterBytes))
      try write(region, at: try place(entries))
    }
  }

  /// Takes the next places, and notes what will be there.
  ///
  /// - Returns: where they begin, in bytes.
  private func place(_ entries: [StepJournal.Entry]) throws(BackupError) -> UInt64 {
    let most = geometry.physicalLimit + 1 - min(geometry.headerClusters, geometry.physicalLimit)
    guard let place = record.note(entries, limit: most) else {
      throw BackupError(.mismatch, "\(file.path): the disk has too many clusters for one image")
    }
    return (geometry.headerClusters + place) << UInt64(geometry.clusterShift)
  }

  private func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {
    try onTarget { () throws(IOError) in try file.write(region, at: offset) }
    file.beginWriteback(offset: offset, length: UInt64(region.count))
  }

  /// Stores whole clusters behind everything that was stored before, by sharing the blocks that they have in
  /// `source`. Their checksums are not known. Where it turns out that nothing can be shared these are copied, and all
  /// that comes later is not taken.
  ///
  /// - Returns: false, with nothing stored, where they have to be read.
  func share(
    _ clusters: Range<UInt64>, of source: any BackupSource
  ) throws(BackupError) -> Bool {
    guard mayShare.withLock({ $0 }) else { return false }
    try record.attempt { () throws(BackupError) in
      let offset = try place(
        clusters.map { StepJournal.Entry(cluster: UInt32(clamping: $0), checksum: 0) })
      guard try !source.share(clusters, with: file, at: offset) else { return }
      mayShare.withLock { $0 = false }
      let buffer = AlignedBuffer(count: clusters.count << geometry.clusterShift)
      try source.read(into: buffer.region, from: clusters.lowerBound)
      try write(buffer.region, at: offset)
    }
    return true
  }

  package func storeZeroes(_ clusters: Range<UInt64>) throws(BackupError) {
    let most = UInt64(zeroes.count) >> UInt64(geometry.clusterShift)
    var cluster = clusters.lowerBound
    while cluster < clusters.upperBound {
      let count = min(most, clusters.upperBound - cluster)
      try store(zeroes.slice(0, Int(count << UInt64(geometry.clusterShift))), at: cluster)
      cluster += count
    }
  }

  package func commit(cursor: UInt64, _ totals: StepJournal.Totals) throws(BackupError) {
    try record.commit(cursor: cursor, totals) { () throws(BackupError) in
      try onTarget { () throws(IOError) in try file.sync() }
    }
  }

  // MARK: The end

  /// Nobody stores anything here any more.
  package func letGo() {
    record.end()
    // The file may be held for a moment longer by a thread of the last step.
    ImageLock.release(file)
  }

  /// Gives the image its index, and closes it.
  package func close() throws(BackupError) {
    try record.attempt { () throws(BackupError) in
      let journal = record.journal
      var header = Header(new: geometry)
      if !journal.entries.isEmpty { header.flags &= ~Header.Flags.empty }
      let first = try onTarget { () throws(IOError) in
        try writeIndex(of: journal, header)
      }
      guard let first else {
        throw BackupError(
          .corrupt(clusters: []), "\(file.path): the journal names a cluster twice")
      }
      let end =
        geometry.headerBytes + UInt64(journal.entries.count) << UInt64(geometry.clusterShift)
      try onTarget { () throws(IOError) in
        try file.truncate(to: end)
        try file.sync()
        first.copy(from: AlignedBuffer(header.encoded).region)
        try file.write(first, at: 0)
        try file.sync()
      }
    }
  }

  /// Writes the index, with a header that is marked as in use.
  ///
  /// - Returns: the first sector; nil, with a part written, when a cluster is named twice.
  private func writeIndex(
    of journal: StepJournal, _ header: Header
  ) throws(IOError) -> ByteRegion? {
    // Cluster and place in one word, since they are sorted by the cluster.
    var words = journal.entries.enumerated().map { number, entry in
      UInt64(entry.cluster) << 32 | (geometry.headerClusters + UInt64(number))
    }
    words.sort()
    for (word, next) in zip(words, words.dropFirst()) where word >> 32 == next >> 32 { return nil }
    var marked = header
    marked.inUse = Header.InUse.open
    let sector = AlignedBuffer(count: Int(Geometry.sectorBytes)).region
    let chunk = AlignedBuffer(count: Int(min(geometry.headerBytes, 1 << 20))).region
    let slotsAtOnce = UInt64(chunk.count / 4)
    var rest = words[...]
    var slot: UInt64 = 0
    while slot < geometry.headerBytes / 4 {
      chunk.zero()
      while let word = rest.first, word >> 32 + Geometry.headerSlots < slot + slotsAtOnce {
        let place = Int(word >> 32 + Geometry.headerSlots - slot)
        chunk.setLittleEndian(geometry.entry(of: word & 0xFFFF_FFFF), at: 4 * place)
        rest = rest.dropFirst()
      }
      if slot == 0 {
        chunk.copy(from: AlignedBuffer(marked.encoded).region)
        sector.copy(from: chunk.slice(0, sector.count))
      }
      let count = Int(min(UInt64(chunk.count), geometry.headerBytes - slot * 4))
      try file.write(chunk.slice(0, count), at: slot * 4)
      slot += slotsAtOnce
    }
    return sector
  }
}
