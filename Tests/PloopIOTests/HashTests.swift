import PloopIO
import TestSupport
import Testing

@Suite("SHA-256")
struct HashTests {
  @Test(
    "is what sha256sum says, at every length about a block's",
    arguments: [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000])
  func whole(count: Int) throws {
    let text = String(repeating: "x", count: count)
    let wanted = try Tool.shell("printf '%s' '\(text)' | sha256sum | cut -c 1-64").output
    #expect(SHA256.hexDigest(Array(text.utf8)) + "\n" == wanted)
  }

  @Test("does not depend on the pieces in which the bytes come")
  func pieces() {
    let seed = UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    var generator = SeededGenerator(seed: seed)
    let message = (0..<5_000).map { _ in UInt8.random(in: 0...255, using: &generator) }
    let wanted = SHA256.hexDigest(message)
    let region = AlignedBuffer(message).region
    for _ in 0..<20 {
      var hash = SHA256()
      var place = 0
      while place < message.count {
        let count = Int.random(in: 0...min(200, message.count - place), using: &generator)
        hash.update(region.slice(place, count))
        place += count
      }
      // Looking at it changes nothing.
      #expect(hash.hexDigest() == wanted)
      hash.update([0])
      #expect(hash.hexDigest() == SHA256.hexDigest(message + [0]))
    }
  }
}
