internal import ArgumentParser
internal import BenchKit
internal import Foundation

/// `bench render FILE`: the tables of a report that `run --json` has written.
struct RenderCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "render", abstract: "Makes the tables, or the page, of a report in JSON.")

  @Argument(help: "What run or compare wrote with --json.")
  var file: String

  @Flag(help: "Writes docs/benchmarks.md and docs/benchmarks.svg instead of printing tables.")
  var writeDocs = false

  func run() throws {
    let data = try Data(contentsOf: URL(fileURLWithPath: file))
    let report = try JSONDecoder().decode(Report.self, from: data)
    guard writeDocs else {
      print(Table.everything(report))
      print(Table.goals(report))
      return
    }
    try report.writeDocuments()
  }
}

extension Report {
  /// Writes the page and its picture beneath the current folder.
  func writeDocuments() throws {
    try Table.document(self).write(
      toFile: "docs/benchmarks.md", atomically: true, encoding: .utf8)
    try Chart.svg(self).write(toFile: "docs/benchmarks.svg", atomically: true, encoding: .utf8)
  }
}
