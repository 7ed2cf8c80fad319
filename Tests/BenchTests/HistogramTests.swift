import BenchKit
import TestSupport
import Testing

@Suite("Latencies")
struct HistogramTests {
  @Test("quantiles are right to a thirty-second")
  func quantiles() {
    var histogram = Histogram()
    var generator = SeededGenerator(seed: 3)
    var values: [UInt64] = []
    for _ in 0..<10_000 {
      let value = generator.next() >> UInt64.random(in: 24..<64, using: &generator)
      values.append(value)
      histogram.record(value)
    }
    values.sort()
    for share in [0.01, 0.5, 0.9, 0.99, 0.999] {
      let exact = Double(values[Int(Double(values.count) * share) - 1])
      #expect(abs(Double(histogram.quantile(share)) - exact) <= exact / 32 + 1, "\(share)")
    }
  }

  @Test("two together are as one, and none is 0")
  func together() {
    var (one, other, both) = (Histogram(), Histogram(), Histogram())
    for value in UInt64(0)..<1000 {
      both.record(value * 77)
      if value % 3 == 0 { one.record(value * 77) } else { other.record(value * 77) }
    }
    one.add(other)
    #expect(one.count == 1000)
    #expect(one.quantile(0.99) == both.quantile(0.99))
    #expect(Histogram().quantile(0.5) == 0)
  }
}
