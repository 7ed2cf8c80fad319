package import PloopIO

/// A file that holds a disk's bytes as they are, to be read. Nobody may write it meanwhile: QEMU's lock
/// keeps its programs from that.
package final class RawFileExport: BlockExport {
  private let file: ImageFile
  package let facts: ExportFacts

  /// - Throws: `.locked` when a program of QEMU's writes it; `.target`.
  package init(_ file: ImageFile) throws(BackupError) {
    self.file = file
    do { try ImageLock.acquire(file, for: .read) } catch { throw BackupError(error) }
    facts = try onTarget { () throws(IOError) in
      // What was not synced yet may be listed as nothing at all.
      try file.sync()
      var facts = ExportFacts(sizeBytes: try file.size())
      facts.isReadOnly = true
      return facts
    }
  }

  package var name: String { file.path }

  package func read(into region: ByteRegion, at offset: UInt64) throws(BackupError) {
    let count = try onTarget { () throws(IOError) in try file.read(into: region, at: offset) }
    guard count == region.count else {
      throw BackupError(.source, "\(name) has become shorter while it was read")
    }
  }

  package func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {
    throw BackupError(.mismatch, "\(name) is read-only")
  }

  package func zero(_ range: Range<UInt64>) throws(BackupError) {
    throw BackupError(.mismatch, "\(name) is read-only")
  }

  package func flush() throws(BackupError) {}

  package func extents(in range: Range<UInt64>) throws(BackupError) -> [ExportExtent] {
    try onTarget { () throws(IOError) in
      var found: [ExportExtent] = []
      var place = range.lowerBound
      while place < range.upperBound {
        let hole = try file.nextUnwritten(from: place, before: range.upperBound)
        let start = hole?.lowerBound ?? range.upperBound
        if start > place { found.append(ExportExtent(length: start - place, isZero: false)) }
        guard let hole else { break }
        found.append(ExportExtent(length: hole.upperBound - start, isZero: true))
        place = hole.upperBound
      }
      return found
    }
  }

  package func hangUp() {}
}
