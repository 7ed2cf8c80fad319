import Foundation
import PloopIO
import Testing

@Suite("Memory that nobody uses")
struct UnusedMemoryTests {
  private static func residentBytes() throws -> Int {
    let text = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("RssAnon:") })
    return try #require(Int(line.filter(\.isNumber))) << 10
  }

  @Test("goes back to the system, also from between what is in use")
  func returned() throws {
    // Pieces that are too small to be the system's own, and one in 256 of them stays.
    var kept: [UnsafeMutableRawPointer] = []
    var freed: [UnsafeMutableRawPointer] = []
    for number in 0..<(128 << 20) / 16_000 {
      let piece = UnsafeMutableRawPointer.allocate(byteCount: 16_000, alignment: 16)
      piece.initializeMemory(as: UInt8.self, repeating: 1, count: 16_000)
      if number % 256 == 0 { kept.append(piece) } else { freed.append(piece) }
    }
    for piece in freed { piece.deallocate() }
    #expect(UnusedMemory.bytes > 100 << 20)
    let before = try Self.residentBytes()
    UnusedMemory.giveBack()
    let after = try Self.residentBytes()
    #expect(after < before - (64 << 20), "\(before) to \(after)")
    #expect(kept.allSatisfy { $0.load(as: UInt8.self) == 1 })
    for piece in kept { piece.deallocate() }
  }
}
