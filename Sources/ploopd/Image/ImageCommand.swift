internal import ArgumentParser

/// `ploopd image …`: looks at, makes and mends images that no service has open.
///
/// One file for each command; docs/image-command.md is their manual.
struct ImageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "image",
    abstract: "Create, look at and mend images, without a running service.",
    discussion: "Exit status: 0 done, 1 failed, 64 wrong usage; check has more.",
    subcommands: [
      ImageCreateCommand.self, ImageInfoCommand.self, ImageCheckCommand.self, ImageMapCommand.self,
      ImageFillCommand.self,
    ])
}
