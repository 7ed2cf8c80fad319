internal import ArgumentParser
internal import PloopJSON
internal import PloopTerminal

struct TrackingGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tracking", abstract: "Which clusters of a disk are written, for a copier.",
    subcommands: [
      TrackingStart.self, TrackingShow.self, TrackingNext.self, TrackingBitmap.self,
      TrackingStop.self,
    ])
}

struct TrackingStart: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "start", abstract: "Note which clusters are written from now on.")
  @OptionGroup var name: DeviceName
  @Option(
    help: ArgumentHelp(
      "Count clusters of the image, or virtual ones of the disk.", valueName: "space"))
  var space: String?
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request {
    Request(.startTracking, [name.device], body: .members(["space": space.map(JSON.string)]))
  }
}

struct TrackingShow: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show how many clusters there are.")
  @OptionGroup var name: DeviceName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getTracking, [name.device]) }
}

struct TrackingNext: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "next", abstract: "Hand some clusters out: they count as copied.")
  @OptionGroup var name: DeviceName
  @Option(help: ArgumentHelp("At most so many.", valueName: "count")) var max: UInt64?
  @Option(
    name: .customLong("wait"),
    help: ArgumentHelp("Wait as long for one, at most 60.", valueName: "seconds"))
  var seconds: UInt64?
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request {
    Request(
      .takeTracked, [name.device],
      body: .members(["max": max.map(JSON.count), "wait_seconds": seconds.map(JSON.count)]))
  }
}

struct TrackingBitmap: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "bitmap", abstract: "Show all clusters, and hand out none.")
  @OptionGroup var name: DeviceName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getTrackingBitmap, [name.device]) }
}

struct TrackingStop: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "Note nothing more.")
  @OptionGroup var name: DeviceName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.stopTracking, [name.device]) }
  var view: View { .done("\(name.device): not tracked") }
}

struct CheckpointGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "checkpoints", abstract: "What was written of a disk since some instants.",
    subcommands: [
      CheckpointList.self, CheckpointShow.self, CheckpointCreate.self, CheckpointBitmap.self,
      CheckpointDelete.self,
    ])
}

/// A checkpoint of a device.
struct CheckpointName: ParsableArguments {
  @OptionGroup var name: DeviceName
  @Argument(help: "The checkpoint.") var checkpoint: String
  var path: [String] { [name.device, checkpoint] }
}

struct CheckpointList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List the checkpoints of a device.")
  @OptionGroup var name: DeviceName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.listCheckpoints, [name.device]) }
  var view: View {
    .table([
      Column("CHECKPOINT", "name"), Column("BEGUN", "created_at", .time),
      Column("WRITTEN", "dirty_bytes", .bytes), Column("CONSISTENT", "consistent"),
      Column("USED BY", "used_by"),
    ])
  }
}

struct CheckpointShow: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show how much was written since.")
  @OptionGroup var checkpoint: CheckpointName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getCheckpoint, checkpoint.path) }
}

struct CheckpointCreate: RequestCommand {
  static let configuration = CommandConfiguration(commandName: "create", abstract: "Begin one.")
  @OptionGroup var checkpoint: CheckpointName
  @Option(help: ArgumentHelp("What counts as one, as 64K.", valueName: "size"))
  var granularity: ByteSize?
  @Option(
    help: ArgumentHelp(
      "Wait as long, at most 60, for a job that has the device.", valueName: "seconds"))
  var patience: Int?
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request {
    Request(
      .addCheckpoint, [checkpoint.name.device],
      headers: patience.map { ["Prefer: wait=\($0)"] } ?? [],
      body: .members([
        "name": .string(checkpoint.checkpoint), "granularity": granularity?.json,
      ]))
  }
}

struct CheckpointBitmap: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "bitmap", abstract: "Show what was written since.")
  @OptionGroup var checkpoint: CheckpointName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getCheckpointBitmap, checkpoint.path) }
}

struct CheckpointDelete: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete",
    abstract: "Forget a checkpoint; the next increment copies everything. Asks first.")
  @OptionGroup var checkpoint: CheckpointName
  @OptionGroup var consent: Consent
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.removeCheckpoint, checkpoint.path) }
  var view: View { .done("\(checkpoint.checkpoint): forgotten") }
  var question: (text: String, isAnswered: Bool)? {
    (
      "Forget checkpoint \(checkpoint.checkpoint) of \(checkpoint.name.device)?", consent.yes
    )
  }
}
