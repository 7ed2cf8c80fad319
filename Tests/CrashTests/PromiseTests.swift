import Foundation
import Testing

@Suite("What the documents promise")
struct PromiseTests {
  private static let root = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")

  private static func text(_ path: String) throws -> String {
    try String(contentsOfFile: "\(root)/\(path)", encoding: .utf8)
  }

  /// The names of all suites, tests and scenarios: whatever stands in quotes in a file of theirs.
  private static let names: Result<Set<String>, any Error> = Result {
    var names: Set<String> = []
    let files = FileManager.default.enumerator(atPath: "\(root)/Tests")
    while let name = files?.nextObject() as? String {
      guard name.hasSuffix(".swift"), !name.hasSuffix("PromiseTests.swift") else { continue }
      for line in try text("Tests/\(name)").split(separator: "\n") {
        names.formUnion(quoted(line.replacingOccurrences(of: "\\\"", with: "\u{1}")))
      }
    }
    return names
  }

  private static func quoted(_ text: some StringProtocol) -> [String] {
    let parts = text.split(separator: "\"", omittingEmptySubsequences: false)
    return stride(from: 1, to: parts.count - 1, by: 2).map {
      parts[$0].replacingOccurrences(of: "\u{1}", with: "\"").split(whereSeparator: \.isWhitespace)
        .joined(
          separator: " ")
    }
  }

  private static func missing(in text: some StringProtocol) throws -> [String] {
    let names = try names.get()
    return quoted(text).filter { !names.contains($0) }
  }

  @Test(
    "each has its number and is held by tests that are there",
    arguments: ["docs/SPECIFICATION.md", "docs/threat-model.md"])
  func numbers(document: String) throws {
    var last: [Character: Int] = [:]
    for line in try Self.text(document).split(separator: "\n") {
      let cells = line.split(separator: "|").map { $0.drop { $0 == " " } }
      guard line.hasPrefix("| "), let first = cells.first, let letter = first.first,
        letter.isUppercase, let number = Int(first.dropFirst().prefix { $0 != " " })
      else { continue }
      // A number stays: it is given to one promise, and none is left out.
      #expect(number == (last[letter] ?? 0) + 1, "\(line)")
      last[letter] = number
      let proof = try #require(cells.last { !$0.isEmpty })
      #expect(proof.contains("\"") || proof.contains("`scripts/"), "\(letter)\(number) has no test")
      #expect(try Self.missing(in: proof) == [], "\(letter)\(number)")
      for script in proof.split(separator: "`") where script.hasPrefix("scripts/") {
        #expect(FileManager.default.fileExists(atPath: "\(Self.root)/\(script)"))
      }
    }
    #expect(last.values.reduce(0, +) > 20)
  }

  @Test(
    "what is said of tests beside an order of steps is so",
    arguments: ["docs/crash-safety.md", "docs/locking.md", "docs/nbd.md"])
  func steps(document: String) throws {
    var count = 0
    for paragraph in try Self.text(document).components(separatedBy: "\n\n") {
      if let place = paragraph.range(of: "*Tests*") {
        #expect(try Self.missing(in: paragraph[place.upperBound...]) == [])
        count += 1
      }
      for word in paragraph.split(separator: "`") where word.hasSuffix("Tests") {
        guard word.allSatisfy(\.isLetter) else { continue }
        #expect(try Self.isThere(word), "\(word)")
        count += 1
      }
    }
    #expect(count > 5)
  }

  /// Whether tests are in a file, or a folder, of that name.
  private static func isThere(_ name: some StringProtocol) throws -> Bool {
    let files = FileManager.default.enumerator(atPath: "\(root)/Tests")
    while let path = files?.nextObject() as? String {
      let last = path.split(separator: "/").last ?? ""
      if last == name || last == "\(name).swift" { return true }
    }
    return false
  }

  @Test("and a name that no test has is seen")
  func control() throws {
    #expect(
      try Self.missing(in: "\"Power loss at any moment\", \"no such \("suite")\"") == [
        "no such suite"
      ])
  }

  @Test("each operation that writes says what a crash leaves of it, and by which tests that is so")
  func sections() throws {
    let text = try Self.text("docs/crash-safety.md")
    let sections = text.components(separatedBy: "\n## ").dropFirst()
    #expect(sections.count > 20)
    for section in sections {
      #expect(section.contains("*Tests*"), "\(section.prefix { $0 != "\n" })")
    }
  }
}
