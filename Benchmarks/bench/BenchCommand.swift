internal import ArgumentParser

/// The command line as a whole; each command has a file of its own.
struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measures NBD servers: loads, the ceiling, and ploopd beside its peers.",
    subcommands: [
      RunCommand.self, CompareCommand.self, RenderCommand.self, LoadCommand.self,
      NullServerCommand.self,
    ])
}
