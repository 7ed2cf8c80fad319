import Testing

@testable import PloopDevice

@Suite("Statistics")
struct StatisticsTests {
  @Test("a request is counted in the bucket whose edges its time lies between")
  func buckets() {
    for (index, microseconds) in Statistics.boundariesMicroseconds.enumerated() {
      #expect(Statistics.bucket(of: microseconds * 1_000) == index)
      #expect(Statistics.bucket(of: microseconds * 1_000 + 1) == index + 1)
    }
    #expect(Statistics.bucket(of: 0) == 0)
    #expect(Statistics.bucket(of: .max) == Statistics.boundariesMicroseconds.count)
  }
}
