import PloopIO
import TestSupport
import Testing

@Suite("What of a file was ever written")
struct ExtentTests {
  private static let block: UInt64 = 1 << 16

  private func file(_ folder: TemporaryFolder) throws -> ImageFile {
    let file = try ImageFolder(path: folder.path).create("a")
    try file.allocate(offset: 0, length: 16 * Self.block)
    return file
  }

  private func write(_ file: ImageFile, _ blocks: [UInt64]) throws {
    let region = AlignedBuffer([UInt8](repeating: 7, count: Int(Self.block))).region
    for block in blocks { try file.write(region, at: block * Self.block) }
  }

  private func ranges(_ file: ImageFile, _ end: UInt64, step: UInt64) throws -> Set<UInt64> {
    var written = WrittenRanges(file, endingAt: end)
    var found: Set<UInt64> = []
    var start: UInt64 = 0
    while let range = try written.next(from: start) {
      #expect(range.lowerBound >= start && range.upperBound <= end && !range.isEmpty)
      // As who reads it in pieces.
      start = min(range.upperBound, range.lowerBound + step)
      for block in range.lowerBound / Self.block...(start - 1) / Self.block { found.insert(block) }
    }
    return found
  }

  @Test("What lies in the page cache only is written, in space that was reserved too")
  func unsynced() throws {
    let folder = try TemporaryFolder()
    let file = try file(folder)
    try write(file, [2, 3, 9])
    let gap = try file.nextUnwritten(from: 2 * Self.block, before: 16 * Self.block)
    #expect(gap.map { $0.lowerBound >= 4 * Self.block } ?? true)
    for step in [Self.block / 2, Self.block, 16 * Self.block] {
      #expect(try ranges(file, 16 * Self.block, step: step).isSuperset(of: [2, 3, 9]))
    }
  }

  @Test("Holes are left out, and what lies beyond the end is not taken for one")
  func holes() throws {
    let folder = try TemporaryFolder()
    let file = try ImageFolder(path: folder.path).create("a")
    try file.truncate(to: 8 * Self.block)
    try write(file, [1, 5, 6])
    for step in [Self.block / 2, 16 * Self.block] {
      #expect(try ranges(file, 8 * Self.block, step: step) == [1, 5, 6])
      #expect(try ranges(file, 6 * Self.block, step: step) == [1, 5])
      #expect(try ranges(file, 10 * Self.block, step: step) == [1, 5, 6, 8, 9])
    }
    #expect(try ranges(file, 0, step: 1).isEmpty)
  }
}
