internal import ArgumentParser
internal import PloopJSON

struct DeltaGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "deltas", abstract: "The files of a chain, by hand.",
    subcommands: [
      DeltaList.self, DeltaShow.self, DeltaAdd.self, DeltaMoved.self, DeltaMerged.self,
      DeltaFlip.self,
    ])
}

/// A delta of a device.
struct DeltaName: ParsableArguments {
  @OptionGroup var name: DeviceName
  @Argument(help: "Its level: 0 is the oldest, 'top' the one that is written.") var level: String
  var path: [String] { [name.device, level] }
}

struct DeltaList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List the chain of a device, oldest first.")
  @OptionGroup var name: DeviceName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.listDeltas, [name.device]) }
  var view: View {
    .table([
      Column("LEVEL", "level", .count), Column("PATH", "path"), Column("FORMAT", "format"),
      Column("FILE", "file_bytes", .bytes), Column("ON DISK", "disk_bytes", .bytes),
    ])
  }
}

struct DeltaShow: RequestCommand {
  static let configuration = CommandConfiguration(commandName: "show", abstract: "Show a delta.")
  @OptionGroup var delta: DeltaName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getDelta, delta.path) }
}

struct DeltaAdd: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "add", abstract: "Put a delta directly below the top of a suspended device.")
  @OptionGroup var name: DeviceName
  @Argument(help: "The file, as ROOT:PATH.") var path: String
  @Flag(help: "It has the bytes of a disk as they are.") var raw = false
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .addDelta, [name.device], headers: change.headers,
      body: .members(["path": .string(path), "format": raw ? .string("raw") : nil]))
  }
}

struct DeltaMoved: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "moved",
    abstract: "Say where another program has put a lower delta, or parts of it.",
    discussion: "Either --path or --cluster is expected.")
  @OptionGroup var delta: DeltaName
  @Option(help: ArgumentHelp("Where its file is now.", valueName: "path")) var path: String?
  @Option(
    name: .customLong("cluster"),
    help: ArgumentHelp(
      "A cluster of the disk, and the one of the file where it lies now; several may be given.",
      valueName: "cluster=place"))
  var clusters: [String] = []
  @Flag(help: "Look only at what is named, not at all of the file.") var noVerify = false
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      guard (path == nil) != clusters.isEmpty else {
        throw ValidationError("either --path or --cluster is expected")
      }
      let index = try clusters.map { text throws -> JSON in
        let numbers = text.split(separator: "=").map { UInt64($0) }
        guard numbers.count == 2, let cluster = numbers[0], let place = numbers[1] else {
          throw ValidationError("--cluster: \(text) is not CLUSTER=PLACE")
        }
        return .members(["cluster": .count(cluster), "to": .count(place)])
      }
      return Request(
        .changeDelta, delta.path, headers: change.headers,
        body: .members([
          "path": path.map(JSON.string), "index": index.isEmpty ? nil : .array(index),
          "verify": noVerify ? .bool(false) : nil,
        ]))
    }
  }
}

struct DeltaMerged: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "merged", abstract: "Say that another program has merged a delta into a neighbour."
  )
  @OptionGroup var delta: DeltaName
  @Argument(help: "forward: into the newer file; backward: into the older one.")
  var direction: Direction
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .notifyMerged, delta.path, headers: change.headers,
      body: .members(["direction": .string(direction.rawValue)]))
  }
}

struct DeltaFlip: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "flip", abstract: "Have the top and the delta below it change places.",
    discussion: "The device has to be suspended, with 'noresume'.")
  @OptionGroup var name: DeviceName
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.flipUpperDeltas, [name.device], headers: change.headers) }
}

/// Which of two files receives.
enum Direction: String, ExpressibleByArgument, CaseIterable {
  case forward, backward
}
