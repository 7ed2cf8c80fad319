import Foundation
import PloopFormat
import Testing

@testable import PloopControl
@testable import PloopHTTP

@Suite("Every problem is what some test expects")
struct ProblemCoverageTests {
  /// A target would have to become one of another type between a job's look at it and its use.
  private static let outOfReach: Set<String> = ["target-unsuitable"]

  /// What stands in files of tests behind a quote or a dot: texts, and names of cases.
  private static func words() throws -> Set<Substring> {
    let folder = "/" + #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
    var words: Set<Substring> = []
    let files = FileManager.default.enumerator(atPath: folder)
    while let name = files?.nextObject() as? String {
      guard name.hasSuffix("Tests.swift"), !name.hasSuffix("ProblemCoverageTests.swift") else {
        continue
      }
      let text = try String(contentsOfFile: "\(folder)/\(name)", encoding: .utf8)
      // Whatever else stands between two of them is no slug.
      for part in text.utf8.split(whereSeparator: { $0 == UInt8(ascii: "\"") }) {
        words.insert(Substring(part.prefix { $0 != UInt8(ascii: "\\") }))
      }
      for part in text.utf8.split(whereSeparator: { $0 == UInt8(ascii: ".") }) {
        words.insert(
          Substring(
            part.prefix { Character(Unicode.Scalar($0)).isLetter || (48...57).contains($0) })
        )
      }
    }
    return words
  }

  /// How a slug stands in a test: as text, or as a case of the service's or of the format's.
  private static func spellings(_ slug: String) -> [String] {
    let words = slug.split(separator: "-").map(String.init)
    let rest = words.dropFirst().map { $0 == "uuid" ? "UUID" : $0.capitalized }
    let name = (words.first ?? "") + rest.joined()
    return [slug, name] + (FormatError.Code(rawValue: slug).map { ["\($0)"] } ?? [])
  }

  @Test("each slug of the catalogue stands in a test")
  func coverage() throws {
    let words = try Self.words()
    #expect(words.count > 1_000)
    for entry in ProblemCatalogue.all where !Self.outOfReach.contains(entry.slug) {
      let isExpected = Self.spellings(entry.slug).contains { words.contains(Substring($0)) }
      #expect(isExpected, "no test expects \(entry.slug)")
    }
    #expect(!words.contains("no-slug-" + "at-all"))
  }
}
