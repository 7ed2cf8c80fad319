import ArgumentParser
import Foundation
import TestSupport
import Testing

@testable import PloopClient

@Suite("Commands of docs/recovery.md")
struct RecoveryGuideTests {
  /// What stands between backticks or in an indented line, and begins with the name of a program.
  private static func commands(of program: String) throws -> [[String]] {
    let folder = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let text = try String(contentsOfFile: "\(folder)/docs/recovery.md", encoding: .utf8)
    let indented = text.split(separator: "\n").filter { $0.hasPrefix("    ") }
      .map { $0.dropFirst(4) }
    // Spans may go over the end of a line.
    let parts = text.split(separator: "`", omittingEmptySubsequences: false)
    let spans = parts.indices.filter { $0 % 2 == 1 }.map { parts[$0] }
    return (indented + spans).map { words(String($0)) }
      .filter { $0.first == program && $0.count > 1 }.map { Array($0.dropFirst()) }
  }

  /// As a shell splits them, where nothing but single quotes is used.
  private static func words(_ line: String) -> [String] {
    line.split(separator: "'", omittingEmptySubsequences: false).enumerated().flatMap {
      $0 % 2 == 1 ? [String($1)] : $1.split { $0 == " " || $0 == "\n" }.map(String.init)
    }
  }

  @Test("ploopctl takes each of its commands as it stands there")
  func client() throws {
    let commands = Set(try Self.commands(of: "ploopctl"))
    #expect(commands.count > 40)
    // By its own group alone: the whole tree takes its time each time it is put together.
    let groups = PloopctlCommand.configuration.subcommands
    for words in commands {
      let name = words.first
      let group = try #require(groups.first { $0.configuration.commandName == name }, "\(words)")
      #expect(throws: Never.self, "\(words)") {
        let command = try group.parseAsRoot(Array(words.dropFirst()))
        // A group alone would be taken as well, and print how it is used.
        let request = try #require(command as? any ServiceCommand)
        _ = try request.request
      }
    }
  }

  /// Each is a group and what is done with one of it.
  @Test("ploopd has each of its commands")
  func service() throws {
    let commands = Set(
      try Self.commands(of: "ploopd").map { $0.prefix(2) })
    #expect(commands.count > 3)
    for command in commands {
      let help = try Tool.shell(
        "'\(RunningService.program)' help \(command.joined(separator: " "))", check: false)
      let isUsage = help.output.contains("USAGE: ploopd \(command.joined(separator: " "))")
      #expect(help.status == 0 && isUsage, "\(command)")
    }
  }
}
