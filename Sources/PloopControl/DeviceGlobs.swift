/// Some of all devices, by patterns of their ids: `*` stands for any characters, `?` for one.
package struct DeviceGlobs: Sendable, Equatable {
  /// At least one.
  package let patterns: [String]

  private static let mostPatterns = 64
  private static let longestPattern = 63

  /// - Returns: nil for no patterns, too many, or one that could be no id's.
  package init?(_ patterns: [String]) {
    guard (1...DeviceGlobs.mostPatterns).contains(patterns.count),
      patterns.allSatisfy({ pattern in
        (1...DeviceGlobs.longestPattern).contains(pattern.utf8.count)
          && pattern.utf8.allSatisfy(DeviceGlobs.isFit)
      })
    else { return nil }
    self.patterns = patterns
  }

  /// What ids are made of (`Names`), and the two that stand for something. SQLite's GLOB reads such a
  /// pattern the same way.
  private static func isFit(_ byte: UInt8) -> Bool {
    (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) || "._-*?".utf8.contains(byte)
  }

  package func contains(_ id: String) -> Bool {
    let id = Array(id.utf8)
    return patterns.contains { DeviceGlobs.matches(Array($0.utf8), id) }
  }

  /// In the product of both lengths at most: only the last `*` is ever come back to.
  private static func matches(_ pattern: [UInt8], _ text: [UInt8]) -> Bool {
    var (place, at) = (0, 0)
    var star: (place: Int, at: Int)?
    while at < text.count {
      if place < pattern.count, pattern[place] == UInt8(ascii: "*") {
        star = (place, at)
        place += 1
      } else if place < pattern.count,
        pattern[place] == UInt8(ascii: "?") || pattern[place] == text[at]
      {
        place += 1
        at += 1
      } else if let last = star {
        star = (last.place, last.at + 1)
        place = last.place + 1
        at = last.at + 1
      } else {
        return false
      }
    }
    return pattern[place...].allSatisfy { $0 == UInt8(ascii: "*") }
  }
}
