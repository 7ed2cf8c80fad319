internal import ArgumentParser
internal import PloopJSON
internal import PloopTerminal

struct RunGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Begin long work: jobs, which go on after any crash.",
    discussion: """
      Without --wait a command ends as soon as its job is on the disk. Example: ploopctl run merge vm1 --wait
      """,
    subcommands: [
      RunMerge.self, RunResize.self, RunHash.self, RunCheck.self, RunCompact.self, RunCopyUp.self,
      RunBackup.self,
      RunRestore.self, RunVerify.self, RunPrune.self, RunClone.self, RunImport.self, RunExport.self,
      RunMigrate.self, RunClean.self, RunOther.self,
    ])
}

struct RunMerge: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "merge", abstract: "Give a snapshot up: its delta and the one above it become one."
  )
  @OptionGroup var name: DeviceName
  @Option(help: ArgumentHelp("Which one; otherwise the newest.", valueName: "guid"))
  var snapshot: String?
  @Option(help: ArgumentHelp("Which one, by its level.", valueName: "number")) var level: Int?
  @Option(
    help: ArgumentHelp(
      "Which file receives, forward or backward; otherwise the cheaper way.", valueName: "direction"
    ))
  var direction: Direction?
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      try options.request(
        "merge", device: name.device,
        .members([
          "snapshot": snapshot.map(JSON.string), "level": level.map { .integer(Int64($0)) },
          "direction": direction.map { .string($0.rawValue) },
        ]))
    }
  }
  var question: String? { "Merge a snapshot of \(name.device) away?" }
}

struct RunResize: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "resize", abstract: "Make a disk larger while it is used.")
  @OptionGroup var name: DeviceName
  @Argument(help: "How large it shall be, as 20G.") var size: ByteSize
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      try options.request("resize", device: name.device, .members(["size": size.json]))
    }
  }
  var question: String? {
    "Make \(name.device) \(size.exact) large? It cannot be made smaller again."
  }
}

struct RunHash: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "hash", abstract: "Compute the SHA-256 of a disk, or find bit rot in its deltas.")
  @OptionGroup var name: DeviceName
  @Flag(help: "Of each read-only delta, held against what it was the last time.") var deltas = false
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      try options.request(
        "hash", device: name.device, .members(["what": deltas ? .string("deltas") : nil]))
    }
  }
}

struct RunCheck: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Look whether images are in order, or mend them.",
    discussion: """
      Of a device all of its chain is looked at, while it is used. Images that no device has are named by --image, or \
      by --delta for each of a chain, oldest first, or by --descriptor. A forced repair takes the plan that a check \
      has said.
      """)
  @Option(
    help: ArgumentHelp("The device.", valueName: "name"), completion: .names(of: .listDevices))
  var device: String?
  @Option(help: ArgumentHelp("One image.", valueName: "path")) var image: String?
  @Option(
    name: .customLong("delta"),
    help: ArgumentHelp("Images of a chain, oldest first.", valueName: "path"))
  var deltas: [String] = []
  @Option(help: ArgumentHelp("A DiskDescriptor.xml.", valueName: "path")) var descriptor: String?
  @Option(help: ArgumentHelp("With it, one of its snapshots.", valueName: "guid"))
  var snapshot: String?
  @Flag(help: "Mend what can be mended without losing anything.") var repair = false
  @Option(
    help: ArgumentHelp("Do what this plan of a check says; asks first.", valueName: "plan"))
  var forcePlan: String?
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      let repair: String? = forcePlan != nil ? "force" : self.repair ? "safe" : nil
      return try options.request(
        "check", device: device,
        .members([
          "image": image.map(JSON.string), "descriptor": descriptor.map(JSON.string),
          "deltas": deltas.isEmpty ? nil : .array(deltas.map(JSON.string)),
          "snapshot": snapshot.map(JSON.string), "repair": repair.map(JSON.string),
          "plan": forcePlan.map(JSON.string),
        ]))
    }
  }
  var question: String? { forcePlan.map { "Repair by plan \($0)? Content may be lost." } }
}

struct RunCompact: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "compact", abstract: "Make the newest file of a disk smaller while it is used.")
  @OptionGroup var name: DeviceName
  @Option(
    name: .customLong("what"),
    help: ArgumentHelp(
      "zeroes, defragment, shrink or holes; several may be given, otherwise all but defragment.",
      valueName: "way"))
  var ways: [String] = []
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      try options.request(
        "compact", device: name.device,
        .members(["what": ways.isEmpty ? nil : .array(ways.map(JSON.string))]))
    }
  }
}

struct RunCopyUp: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "copy-up", abstract: "Make a full disk of a linked clone while it is used.",
    discussion: "The snapshots that it shares are merged into its own files, and are its no longer."
  )
  @OptionGroup var name: DeviceName
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws { try options.request("copy_up", device: name.device, .members([:])) }
  }
}

struct RunClean: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "clean", abstract: "Remove files that nobody names any more.",
    discussion: "'ploopctl images list --state orphaned' lists them; each is named here.")
  @Argument(help: "Files, as they are listed.") var paths: [String]
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws {
      try options.request("clean", .members(["paths": .array(paths.map(JSON.string))]))
    }
  }
  var question: String? {
    "Remove \(paths.count == 1 ? "this file" : "these \(paths.count) files")?"
  }
}

struct RunOther: RunCommand {
  static let configuration = CommandConfiguration(
    commandName: "other", abstract: "Begin a job of any type, its parameters one by one.",
    discussion: """
      Example: ploopctl run other clone --device vm1 --param to.id=vm2 --param to.directory=main:vm2. A value is JSON \
      where it can be read as such, otherwise text. Asks first.
      """)
  @Argument(help: "The type of the job.") var type: String
  @Option(
    help: ArgumentHelp("The device.", valueName: "name"), completion: .names(of: .listDevices))
  var device: String?
  @Option(
    name: .customLong("param"),
    help: ArgumentHelp("A parameter; several may be given.", valueName: "path=value"))
  var params: [String] = []
  @OptionGroup var options: RunOptions

  var request: Request {
    get throws { try options.request(type, device: device, try Parameters.json(params)) }
  }
  var question: String? { "Begin the job \(type)?" }
}
