import Foundation
import Testing

@testable import PloopHTTP

@Suite("docs/recovery.md")
struct RecoveryGuideTests {
  /// What stands between backticks in a line.
  private static func spans(_ line: Substring) -> [Substring] {
    let parts = line.split(separator: "`", omittingEmptySubsequences: false)
    return parts.indices.filter { $0 % 2 == 1 }.map { parts[$0] }
  }

  private let lines: [Substring]

  init() throws {
    let folder = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    lines = try String(contentsOfFile: "\(folder)/docs/recovery.md", encoding: .utf8)
      .split(separator: "\n", omittingEmptySubsequences: false)
  }

  @Test("has one heading for each problem, with something to do, and none for another")
  func headings() throws {
    var sections: [Substring: Int] = [:]
    var slug: Substring?
    for line in lines {
      if line.hasPrefix("#") { slug = nil }
      if line.hasPrefix("### ") {
        let name = line.dropFirst(4)
        #expect(sections[name] == nil, "twice: \(name)")
        sections[name] = 0
        slug = name
      } else if let slug {
        sections[slug, default: 0] += line.count
      }
    }
    let known = Set(ProblemCatalogue.all.map { Substring($0.slug) })
    #expect(known.subtracting(sections.keys).sorted() == [])
    #expect(Set(sections.keys).subtracting(known).sorted() == [])
    #expect(sections.filter { $0.value < 20 }.keys.sorted() == [])
  }

  @Test("names requests that the contract has, and places of itself that are there")
  func references() throws {
    let operations = try Contract.own.get().operations.map { "\($0.method) \($0.path)" }
    let methods = Set(try Contract.own.get().operations.map(\.method))
    var requests = 0
    for line in lines {
      for span in Self.spans(line) where methods.contains(String(span.prefix { $0 != " " })) {
        requests += 1
        #expect(operations.contains(String(span)), "\(span)")
      }
      for link in line.components(separatedBy: "](#").dropFirst() {
        let slug = link.prefix { $0 != ")" }
        #expect(lines.contains("### \(slug)"), "\(slug)")
      }
    }
    #expect(requests > 0)
  }
}
