internal import ArgumentParser
internal import PloopJSON
internal import PloopTerminal

struct PushBackupGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "push-backup", abstract: "A disk frozen for a copier, while guests go on.",
    discussion: "'ploopctl run backup' does all of it; this is for copiers of one's own.",
    subcommands: [
      PushBackupStart.self, PushBackupShow.self, PushBackupRead.self, PushBackupConfirm.self,
      PushBackupData.self, PushBackupStop.self,
    ])
}

/// Which push backup of a device is meant.
struct PushBackupName: ParsableArguments {
  @OptionGroup var name: DeviceName
  @Argument(help: "Its UUID, which the start has answered.") var uuid: String
}

struct PushBackupStart: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "start", abstract: "Freeze a disk for a copier.")
  @OptionGroup var name: DeviceName
  @Option(
    help: ArgumentHelp(
      "Only what was written since this checkpoint; otherwise everything.", valueName: "name"))
  var since: String?
  @Option(help: ArgumentHelp("Begin this checkpoint with it.", valueName: "name"))
  var checkpoint: String?
  @Option(
    help: ArgumentHelp(
      "What a guest does that has waited too long: abort, wait or spill.", valueName: "what"))
  var onDeadline: String?
  @Option(help: ArgumentHelp("How long that is.", valueName: "seconds")) var deadline: UInt64?
  @Option(
    help: ArgumentHelp("With spill: a file for what was not copied yet.", valueName: "path"))
  var spill: String?
  @Option(help: ArgumentHelp("With --spill: how large it may become.", valueName: "size"))
  var spillMax: ByteSize?
  @Flag(help: "Open a door by which the copier reads over NBD.") var export = false
  @Option(help: ArgumentHelp("Its UUID; otherwise a new one.", valueName: "uuid")) var uuid: String?
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      if spill != nil, spillMax == nil { throw ValidationError("--spill-max is expected") }
      return Request(
        .startPushBackup, [name.device],
        body: .members([
          "uuid": uuid.map(JSON.string),
          "clusters": since.map { .members(["since_checkpoint": .string($0)]) },
          "checkpoint": checkpoint.map(JSON.string), "on_deadline": onDeadline.map(JSON.string),
          "deadline_seconds": deadline.map(JSON.count),
          "spill": spill.map { .members(["path": .string($0), "max_bytes": spillMax?.json]) },
          "export": export ? .bool(true) : nil,
        ]))
    }
  }
}

struct PushBackupShow: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show how far the copier is.")
  @OptionGroup var name: DeviceName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getPushBackup, [name.device]) }
}

struct PushBackupRead: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "read", abstract: "Show what guests wait for, and what is left.")
  @OptionGroup var backup: PushBackupName
  @Option(help: ArgumentHelp("At most so many that are waited for.", valueName: "count"))
  var max: UInt64?
  @Option(
    name: .customLong("wait"),
    help: ArgumentHelp("Wait as long for one, at most 60.", valueName: "seconds"))
  var seconds: UInt64?
  @Option(help: ArgumentHelp("What is left from this cluster on.", valueName: "cluster"))
  var leftFrom: UInt64?
  @Option(help: ArgumentHelp("At most so many ranges of it.", valueName: "count"))
  var leftMax: UInt64?
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .readPushBackup, [backup.name.device],
      body: .members([
        "uuid": .string(backup.uuid), "max": max.map(JSON.count),
        "wait_seconds": seconds.map(JSON.count), "left_from": leftFrom.map(JSON.count),
        "left_max": leftMax.map(JSON.count),
      ]))
  }
}

struct PushBackupConfirm: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "confirm", abstract: "Say which clusters the copier has.")
  @OptionGroup var backup: PushBackupName
  @Argument(help: "Clusters, each a number or, for several, FIRST+COUNT.") var clusters: [String]
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      let ranges = try clusters.map { text throws -> JSON in
        let numbers = text.split(separator: "+", omittingEmptySubsequences: false).map {
          UInt64($0)
        }
        guard numbers.count <= 2, let first = numbers[0], let last = numbers[numbers.count - 1]
        else {
          throw ValidationError("\(text) is neither a cluster nor FIRST+COUNT")
        }
        return .members(["cluster": .count(first), "count": .count(numbers.count == 2 ? last : 1)])
      }
      return Request(
        .confirmPushBackup, [backup.name.device],
        body: .members(["uuid": .string(backup.uuid), "ranges": .array(ranges)]))
    }
  }
}

struct PushBackupData: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "data", abstract: "Print bytes of the frozen disk, at most 16M at a time.")
  @OptionGroup var backup: PushBackupName
  @Option(help: ArgumentHelp("From where.", valueName: "size")) var offset = ByteSize(bytes: 0)
  @Option(help: ArgumentHelp("How much.", valueName: "size")) var length: ByteSize
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      Request(
        .getPushBackupData, [backup.name.device], query: ["uuid": backup.uuid],
        headers: try byteRange(from: offset, length: length))
    }
  }
  var view: View { .bytes }
}

struct PushBackupStop: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "End a push backup.")
  @OptionGroup var backup: PushBackupName
  @Flag(help: "Whatever is left to copy; otherwise everything has to be confirmed.")
  var abort = false
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request {
    Request(
      .stopPushBackup, [backup.name.device],
      query: ["uuid": backup.uuid, "outcome": abort ? "abort" : "complete"])
  }
}
