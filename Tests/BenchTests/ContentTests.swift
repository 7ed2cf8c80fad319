import BenchKit
import TestSupport
import Testing

@Suite("What is on a benchmark's disks")
struct ContentTests {
  /// `count` bytes of the disk at `offset`, as `stamp` writes them.
  private func bytes(_ offset: UInt64, _ count: Int, _ stamp: UInt8) -> [UInt8] {
    var result = [UInt8](repeating: 0xEE, count: count)
    result.withUnsafeMutableBytes { buffer in
      if let start = buffer.baseAddress {
        Content.fill(start, count: count, offset: offset, stamp: stamp)
      }
    }
    return result
  }

  private func stamp(of bytes: [UInt8], _ offset: UInt64, entirely: Bool = true) -> UInt8? {
    bytes.withUnsafeBytes { buffer in
      buffer.baseAddress.flatMap {
        Content.stamp($0, count: buffer.count, offset: offset, entirely: entirely)
      }
    }
  }

  @Test("a writer is recognised, in whole units and in parts of one", arguments: [0, 1, 2, 255])
  func recognised(writer: UInt8) {
    for (offset, count) in [(0, 4096), (8192, 512), (4096 + 512, 512), (4096 * 99 + 8, 4088)] {
      #expect(stamp(of: bytes(UInt64(offset), count, writer), UInt64(offset)) == writer)
    }
  }

  @Test("it does not matter in which pieces something is written")
  func pieces() {
    let whole = bytes(1 << 20, 16384, 7)
    let pieces = bytes(1 << 20, 5000 & ~7, 7) + bytes(1 << 20 + 5000 & ~7, 16384 - 5000 & ~7, 7)
    #expect(whole.count == 16384)
    #expect(whole.prefix(pieces.count) == pieces.prefix(whole.count))
  }

  @Test("bytes of another place, of two writers, or with one bit changed are not anybody's")
  func strangers() {
    #expect(stamp(of: bytes(4096, 4096, 1), 8192) == nil)
    #expect(stamp(of: bytes(0, 2048, 1) + bytes(2048, 2048, 2), 0, entirely: false) == nil)
    #expect(stamp(of: bytes(0, 4088, 1) + [UInt8](repeating: 0, count: 8), 0) == nil)
    var generator = SeededGenerator(seed: 5)
    for _ in 0..<200 {
      var unit = bytes(40960, 4096, 3)
      let bit = Int.random(in: 0..<32768, using: &generator)
      unit[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(stamp(of: unit, 40960) != 3, "bit \(bit)")
    }
  }
}
