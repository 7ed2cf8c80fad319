import PloopIO
import TestSupport
import Testing

@Suite("CRC-32C")
struct ChecksumTests {
  private static let examples: [(bytes: [UInt8], sum: UInt32)] = [
    ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
    ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43),
    ([UInt8](0..<32), 0x46DD_794E), (Array("123456789".utf8), 0xE306_9283), ([], 0),
  ]

  @Test("is the one of RFC 3720", arguments: examples)
  func known(bytes: [UInt8], sum: UInt32) {
    let buffer = AlignedBuffer(bytes)
    #expect(CRC32C.checksum(bytes) == sum)
    #expect(CRC32C.checksum(buffer.region) == sum)
    #expect(CRC32C.plainChecksum(buffer.region) == sum)
  }

  @Test("is the same with and without the instruction, and piece by piece")
  func pieces() {
    var random = SeededGenerator(seed: 7)
    let bytes = AlignedBuffer((0..<4099).map { _ in UInt8.random(in: 0...255, using: &random) })
    for cut in [0, 1, 7, 8, 64, 1001, 4099] {
      let first = CRC32C.checksum(bytes.region.slice(0, cut))
      let rest = bytes.region.slice(cut, bytes.count - cut)
      #expect(CRC32C.checksum(rest, continuing: first) == CRC32C.checksum(bytes.region))
      #expect(
        CRC32C.plainChecksum(rest, continuing: first) == CRC32C.plainChecksum(bytes.region))
    }
    #expect(CRC32C.checksum(bytes.region) == CRC32C.plainChecksum(bytes.region))
  }
}
