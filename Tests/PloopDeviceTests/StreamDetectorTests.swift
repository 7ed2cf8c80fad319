import TestSupport
import Testing

@testable import PloopDevice

@Suite("Readers in order")
struct StreamDetectorTests {
  private static let step: UInt64 = 64 << 10

  /// Reads in order from `start`, as a page cache would see it that keeps what was read ahead.
  ///
  /// - Returns: how many reads missed it.
  private func go(
    _ detector: StreamDetector, from start: UInt64, steps: Int, cached: inout Set<UInt64>
  ) -> Int {
    var misses = 0
    for index in 0..<steps {
      let offset = start + UInt64(index) * Self.step
      if cached.contains(offset) { continue }
      misses += 1
      guard let ahead = detector.missed(offset: offset, length: Self.step) else { continue }
      for place in stride(from: ahead.lowerBound, to: ahead.upperBound, by: Int(Self.step)) {
        cached.insert(place)
      }
    }
    return misses
  }

  @Test("a reader in order soon waits once for 4 MiB")
  func inOrder() {
    var cached: Set<UInt64> = []
    let misses = go(StreamDetector(), from: 1 << 30, steps: 1024, cached: &cached)
    // 64 MiB: two misses until it is noticed, five windows that double, then 4 MiB each.
    #expect(misses <= 24)
  }

  @Test("four readers do not disturb each other")
  func several() {
    let detector = StreamDetector()
    var cached: Set<UInt64> = []
    var misses = 0
    for round in 0..<64 {
      for reader: UInt64 in 0..<4 {
        misses += go(
          detector, from: reader << 32 + UInt64(round) * 16 * Self.step, steps: 16, cached: &cached)
      }
    }
    #expect(misses <= 4 * 24)
  }

  @Test("reads in no order are left alone")
  func random() {
    var random = SeededGenerator(seed: 3)
    let detector = StreamDetector()
    var ahead = 0
    for _ in 0..<10_000 {
      // Of 64 TiB: nothing comes near anything by chance more than a few times.
      let offset = UInt64.random(in: 0..<(1 << 46) / 4096, using: &random) * 4096
      if detector.missed(offset: offset, length: 4096) != nil { ahead += 1 }
    }
    #expect(ahead < 10)
  }

  @Test("requests of one reader that overtake each other are one stream")
  func overtaking() {
    let detector = StreamDetector()
    var asked: [Range<UInt64>] = []
    for index: UInt64 in [1, 0, 3, 2, 5, 4, 7, 6, 8] {
      if let range = detector.missed(offset: index * Self.step, length: Self.step) {
        asked.append(range)
      }
    }
    #expect(!asked.isEmpty)
    // Nothing is asked for twice.
    for (one, next) in zip(asked, asked.dropFirst()) { #expect(one.upperBound <= next.lowerBound) }
  }
}
