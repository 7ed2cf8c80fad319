internal import ArgumentParser
internal import BenchKit
internal import Foundation
internal import TestSupport

/// `bench run`: ploopd beside its peers, row by row.
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Measures ploopd beside other NBD servers.",
    discussion: "Rows: \(Suite.rowIDs.joined(separator: ", ")).")

  @OptionGroup var suite: SuiteOptions

  @Option(help: "The ploopd to measure; the one beside this program if not given.")
  var server = RunningService.builtProgram("ploopd")

  @Option(help: "Peers to measure, separated by commas: \(Peer.list).")
  var peers: String?

  @Flag(help: "Writes docs/benchmarks.md and docs/benchmarks.svg.")
  var writeDocs = false

  func run() throws {
    var settings = try suite.settings(program: server)
    if let peers {
      settings.peers = Set(
        try peers.split(separator: ",").map { name in
          guard let peer = Peer(rawValue: String(name)) else {
            throw ValidationError("no peer \(name); there are \(Peer.list)")
          }
          return peer
        })
    }
    let report = try suite.run(settings)
    if writeDocs { try report.writeDocuments() }
  }
}

extension Peer {
  static let list = allCases.filter { $0 != .base }.map(\.rawValue).joined(separator: ", ")
}

/// What `run` and `compare` share.
struct SuiteOptions: ParsableArguments {
  @Option(help: "Rows to measure, separated by commas; all if not given.")
  var rows: String?

  @Option(help: "Interleaved rounds.")
  var rounds: Int?

  @Option(help: "How long each measurement of a row takes.")
  var seconds: Double?

  @Option(help: "Bytes of the working set.")
  var span: Size?

  @Option(help: "Bytes of the disk.")
  var disk: Size?

  @Flag(help: "A minute for all rows: shows that it works, not how fast.")
  var small = false

  @Option(help: "Where images are made; the file system matters.")
  var folder = "/tmp"

  @Option(help: "Where the report is written as JSON.")
  var json: String?

  func settings(program: String) throws -> SuiteSettings {
    var settings = SuiteSettings(program: program)
    if small { settings.makeSmall() }
    settings.folder = folder
    settings.rounds = rounds ?? settings.rounds
    settings.seconds = seconds ?? settings.seconds
    settings.spanBytes = span?.bytes ?? settings.spanBytes
    settings.diskBytes = disk?.bytes ?? settings.diskBytes
    settings.rows = rows.map { Set($0.split(separator: ",").map(String.init)) }
    return settings
  }

  /// Runs it, writes the JSON, prints the tables.
  func run(_ settings: SuiteSettings) throws -> Report {
    let report = try Suite(settings) { FileHandle.standardError.write(Data("\($0)\n".utf8)) }.run()
    if let json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      try encoder.encode(report).write(to: URL(fileURLWithPath: json))
    }
    print(Table.everything(report))
    print(Table.goals(report))
    return report
  }
}
