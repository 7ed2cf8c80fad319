import CrashKit
import Foundation
import TestSupport
import Testing

@Suite("Seeds that have failed")
struct FailedSeedTests {
  private static let path =
    "/" + #filePath.split(separator: "/").dropLast().joined(separator: "/") + "/failed-seeds"

  private static let lines = Result { try FailedSeeds(path).lines }

  /// The release build looks at all of them (`crash-enumeration --keep`): some have ten thousand states.
  @Test("name what is still looked at", arguments: try lines.get())
  func subject(_ line: FailedSeeds.Line) {
    #expect(Subject.all.contains { $0.name == line.subject })
  }

  @Test("are read back as they were written, each once, and what is no seed is told")
  func file() throws {
    let scratch = try TemporaryFolder()
    let path = "\(scratch.path)/seeds"
    try Tool.shell("printf '# of people\n17 2 chain: a name, of parts # why\n\n' > '\(path)'")
    #expect(try FailedSeeds(path).lines.map(\.description) == ["17 2 chain: a name, of parts"])
    let new = FailedSeeds.Line(seed: .max, samples: 1, subject: "disk: FUA")
    for _ in 0..<2 { try FailedSeeds(path).add(new, why: "a fault\nof two lines") }
    #expect(
      try FailedSeeds(path).lines.map(\.description) == [
        "17 2 chain: a name, of parts", "18446744073709551615 1 disk: FUA",
      ])
    for line in ["17", "17 0 disk: FUA", "-1 1 disk: FUA", "seed 1 disk: FUA"] {
      try Tool.shell("echo '\(line)' > '\(path)'")
      #expect(throws: FailedSeeds.NotASeed.self) { try FailedSeeds(path) }
    }
  }

  @Test("docs/testing.md says of each what writes it, and names no other")
  func table() throws {
    let root = Self.path.split(separator: "/").dropLast(3).joined(separator: "/")
    let text = try String(contentsOfFile: "/\(root)/docs/testing.md", encoding: .utf8)
    let table = try #require(text.components(separatedBy: "### What is in which enumeration").last)
      .split(separator: "\n").filter { $0.hasPrefix("| ") }.joined()
    let named = table.split(separator: "\"").map(String.init).filter { $0.contains(": ") }
    #expect(named.sorted() == Subject.all.map(\.name).sorted())
  }

  @Test("each subject has a name of its own, by which seeds are kept")
  func names() {
    let names = Subject.all.map(\.name)
    #expect(Set(names).count == names.count && names.count > 30)
  }
}
