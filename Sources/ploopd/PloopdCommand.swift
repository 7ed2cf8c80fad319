internal import ArgumentParser
internal import PloopIO

/// The command line as a whole; each command has a file of its own.
struct PloopdCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ploopd",
    abstract: "Serves ploop disks over NBD and manages them over HTTP.",
    version: "ploopd \(ProductVersion.current)",
    subcommands: [ServeCommand.self, ImageCommand.self, TokenCommand.self, AuditCommand.self])
}
