internal import ArgumentParser
internal import Glibc
internal import PloopIO
internal import PloopTerminal

/// The command line as a whole; each group of commands has a file of its own.
struct PloopctlCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ploopctl", abstract: "Manages the disks of a ploopd.",
    discussion: """
      A client of the HTTP interface: each command is one request, or few. --curl shows which. Sizes may have a unit: \
      512, 64K, 1M, 10G, 2T. With --json the answer is what the service says.

      The status says what kind of problem there was: 0 none, 2 the command line or a value, 3 not found, 4 something \
      is in the way, 5 not allowed, 6 no answer, 7 the job has failed, 8 it was cancelled, 9 the question was not \
      answered with yes, 130 Ctrl-C, 1 anything else.
      """,
    version: "ploopctl \(ProductVersion.current)",
    subcommands: [
      DeviceGroup.self, SnapshotGroup.self, ExportGroup.self, RunGroup.self, JobGroup.self,
      QueueGroup.self, TargetGroup.self, BackupGroup.self, ImageGroup.self, DeltaGroup.self,
      CheckpointGroup.self, TrackingGroup.self, PushBackupGroup.self, EventCommand.self,
      NodeGroup.self, ServiceGroup.self, APICommand.self,
    ])

  /// Does what the command line says, and ends the process.
  static func start() -> Never {
    Interruption.begin()
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch let fault as ClientFault {
      let lines = fault.lines.map(Terminal.safe)
      writeToStandardError("ploopctl: \(lines.joined(separator: "\n"))\n")
      _exit(fault.status.rawValue)
    } catch {
      guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
      writeToStandardError(fullMessage(for: error) + "\n")
      _exit(Outcome.usage.rawValue)
    }
    fflush(nil)
    _exit(Outcome.ok.rawValue)
  }
}

/// What the program is.
package enum Ploopctl {
  /// Does what the command line says, and ends the process.
  package static func start() -> Never { PloopctlCommand.start() }
}
