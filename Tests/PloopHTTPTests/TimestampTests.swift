import Foundation
import TestSupport
import Testing

@testable import PloopHTTP

@Suite("Times")
struct TimestampTests {
  private static let style = Date.ISO8601FormatStyle(includingFractionalSeconds: true)

  @Test("every one is written as Foundation writes it")
  func same() {
    var random = SeededGenerator(seed: 7)
    var wrong: [Double] = []
    let edges: [Double] = [
      0, 0.9995, 951_782_399, 951_782_400, 951_868_800, 4_107_542_399.5, 4_107_542_400,
      253_402_300_799, 253_402_300_800, -1.5,
    ]
    // Milliseconds that a number cannot say exactly are cut off by either in its own way: halves between two
    // are the same for both.
    let some = (0..<20_000).map { _ in
      Double(Int.random(in: 0..<253_402_300_800, using: &random)) + 0.25
    }
    for seconds in edges + some {
      let wanted = Date(timeIntervalSince1970: seconds).formatted(Self.style)
      if Timestamp.text(seconds) != wanted { wrong.append(seconds) }
    }
    #expect(wrong.isEmpty, "\(wrong.prefix(5))")
    #expect(Timestamp.text(1_764_000_000.125) == "2025-11-24T16:00:00.125Z")
    #expect(Timestamp.text(1_764_000_000.9999) == "2025-11-24T16:00:00.999Z")
  }
}
