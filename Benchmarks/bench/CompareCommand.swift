internal import ArgumentParser
internal import BenchKit
internal import TestSupport

/// `bench compare BASE`: this ploopd beside that of another commit.
struct CompareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare",
    abstract: "Builds ploopd of another commit and measures both, round by round.")

  @Argument(help: "The commit to compare with.")
  var base: String

  @OptionGroup var suite: SuiteOptions

  @Option(help: "The ploopd to measure; the one beside this program if not given.")
  var server = RunningService.builtProgram("ploopd")

  func run() throws {
    let folder = try TemporaryFolder()
    let tree = "\(folder.path)/tree"
    try Tool.shell("git worktree add --detach '\(tree)' '\(base)'")
    defer { _ = try? Tool.shell("git worktree remove --force '\(tree)'") }
    print("building \(base)")
    try Tool.shell("cd '\(tree)' && swift build -c release --product ploopd", seconds: 1800)
    var settings = try suite.settings(program: server)
    settings.base = "\(tree)/.build/release/ploopd"
    _ = try suite.run(settings)
  }
}
