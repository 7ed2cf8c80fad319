package import PloopBackup
package import PloopIO

/// A file as an export, so that what is done to it is recorded and made to fail like everything else.
package struct FileExport: BlockExport {
  private let file: ImageFile
  package let facts: ExportFacts

  package init(_ file: ImageFile, tellsZeroes: Bool = false, blockBytes: UInt64 = 1) throws {
    self.file = file
    var facts = ExportFacts(sizeBytes: try file.size())
    facts.tellsZeroes = tellsZeroes
    facts.blockBytes = blockBytes
    self.facts = facts
  }

  package var name: String { file.path }

  private func onFile<Result>(
    _ body: () throws(IOError) -> Result
  ) throws(BackupError) -> Result {
    do { return try body() } catch { throw BackupError(error) }
  }

  package func read(into region: ByteRegion, at offset: UInt64) throws(BackupError) {
    _ = try onFile { () throws(IOError) in try file.read(into: region, at: offset) }
  }

  package func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {
    try onFile { () throws(IOError) in try file.write(region, at: offset) }
  }

  package func zero(_ range: Range<UInt64>) throws(BackupError) {
    try write(AlignedBuffer(count: range.count).region, at: range.lowerBound)
  }

  package func flush() throws(BackupError) {
    try onFile { () throws(IOError) in try file.sync() }
  }

  /// Block by block.
  package func extents(in range: Range<UInt64>) throws(BackupError) -> [ExportExtent] {
    let buffer = AlignedBuffer(count: range.count)
    try read(into: buffer.region, at: range.lowerBound)
    return stride(from: 0, to: range.count, by: 512).map { place in
      let part = buffer.region.slice(place, min(512, range.count - place))
      return ExportExtent(length: UInt64(part.count), isZero: part.isZero)
    }
  }

  package func hangUp() {}
}
