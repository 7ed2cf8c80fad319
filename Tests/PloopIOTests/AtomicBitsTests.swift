import PloopIO
import TestSupport
import Testing

@Suite("Bits that many threads set")
struct AtomicBitsTests {
  @Test("Ranges, runs, bytes and counts agree with a plain array, for random ranges")
  func model() {
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SeededGenerator(seed: seed)
    for count in [1, 7, 63, 64, 65, 1000] {
      let bits = AtomicBits(count: count)
      var model = [Bool](repeating: false, count: count)
      for _ in 0..<20 {
        let low = Int.random(in: 0..<count, using: &random)
        let range = low..<Int.random(in: low...count, using: &random)
        #expect(bits.contains(range) == range.allSatisfy { model[$0] }, "seed \(seed)")
        bits.set(range)
        for index in range { model[index] = true }
        #expect((0..<count).map { bits[$0] } == model, "seed \(seed)")
        #expect(bits.setCount == model.count(where: { $0 }), "seed \(seed)")
        let start = Int.random(in: 0..<count, using: &random)
        let end = (start..<count).first { model[$0] != model[start] } ?? count
        #expect(bits.endOfRun(from: start) == end, "seed \(seed)")
        let copy = AtomicBits(count: count)
        copy.formUnion(bits.bytes + [0xFF])
        #expect((0..<count).map { copy[$0] } == model, "seed \(seed)")
        #expect(bits.bytes.count == (count + 7) / 8)
      }
      bits.clearAll()
      #expect(bits.setCount == 0)
    }
  }

  @Test("No bit that threads set at once in the same words is lost")
  func together() throws {
    let bits = AtomicBits(count: 4096)
    let threads = try (0..<4).map { thread in
      try Thread(name: "bits") {
        for index in stride(from: thread, to: 4096, by: 4) { bits.set(index..<index + 1) }
      }
    }
    threads.forEach { $0.join() }
    #expect(bits.setCount == 4096)
  }
}
