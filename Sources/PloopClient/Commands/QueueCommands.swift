internal import ArgumentParser
internal import PloopJSON

struct QueueGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "queue", abstract: "What holds for all jobs.",
    subcommands: [QueueShow.self, QueueSet.self])
}

struct QueueShow: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show settings, and how many jobs there are.")
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getQueue) }
}

struct QueueSet: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Change what holds for all jobs.")
  @Flag(inversion: .prefixedNo, help: "Begin no job.") var pause: Bool?
  @Option(help: ArgumentHelp("How many jobs run at a time.", valueName: "count")) var slots: UInt64?
  @Option(
    help: ArgumentHelp("How many of them on one file system.", valueName: "count"))
  var slotsPerFilesystem: UInt64?
  @OptionGroup var limits: LimitOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      let slots = JSON.members([
        "total": slots.map(JSON.count), "per_filesystem": slotsPerFilesystem.map(JSON.count),
      ])
      let body = JSON.members([
        "paused": pause.map(JSON.bool), "slots": slots == .object([]) ? nil : slots,
        "limits": limits.json,
      ])
      guard body != .object([]) else { throw ValidationError("what is to be changed?") }
      return Request(.changeQueue, body: body)
    }
  }
}

struct ImageGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "images", abstract: "What lies beneath the roots, and whose it is.",
    subcommands: [ImageList.self])
}

struct ImageList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List images and descriptors; orphans too.")
  @Option(help: ArgumentHelp("Only beneath this root.", valueName: "name")) var root: String?
  @Option(
    help: ArgumentHelp("Only these: used, orphaned or unknown.", valueName: "state"))
  var state: String?
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(.listImages, query: ["limit": "1000", "root": root, "state": state])
  }
  var view: View {
    .table([
      Column("PATH", "path"), Column("KIND", "kind"), Column("STATE", "state"),
      Column("USAGE", "usage"), Column("ON DISK", "disk_bytes", .bytes),
      Column("USED BY", "used_by", .names("id")), Column("REASON", "reason"),
    ])
  }
}
