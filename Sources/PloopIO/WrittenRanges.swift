/// The parts of a file's beginning that may hold something, one after the other: those that the file system
/// does not know to be unwritten.
package struct WrittenRanges {
  private let file: ImageFile
  private let end: UInt64
  /// The unwritten range that is next; empty at the end.
  private var gap: Range<UInt64> = 0..<0

  /// - Parameter end: what lies beyond the end of the file counts as written, so that whoever reads it meets it.
  package init(_ file: ImageFile, endingAt end: UInt64) {
    self.file = file
    self.end = end
  }

  /// - Parameter offset: not before that of an earlier call.
  /// - Returns: the next such range, from `offset` on; nil behind the last.
  package mutating func next(from offset: UInt64) throws(IOError) -> Range<UInt64>? {
    var start = offset
    while start < end {
      if start >= gap.upperBound {
        gap = try file.nextUnwritten(from: start, before: min(end, file.size())) ?? end..<end
      }
      guard gap.contains(start) else { return start..<gap.lowerBound }
      start = gap.upperBound
    }
    return nil
  }
}
