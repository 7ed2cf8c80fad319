internal import ArgumentParser
internal import PloopJSON

struct SnapshotGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "snapshots", abstract: "Restore points of a device.",
    subcommands: [
      SnapshotList.self, SnapshotShow.self, SnapshotCreate.self, SnapshotSet.self,
      SnapshotSwitch.self, SnapshotDelete.self,
    ])
}

/// A snapshot of a device.
struct SnapshotName: ParsableArguments {
  @OptionGroup var name: DeviceName
  @Argument(help: "Its GUID, with braces or without.") var snapshot: String
  var path: [String] { [name.device, snapshot] }
}

struct SnapshotList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List the snapshots of a device.")
  @OptionGroup var name: DeviceName
  @Flag(help: "Each beneath the one that it builds on.") var tree = false
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(.listSnapshots, [name.device], query: ["view": tree ? "tree" : nil])
  }
  var view: View {
    if tree { return .tree }
    return .table([
      Column("SNAPSHOT", "uuid"), Column("NAME", "name"), Column("LEVEL", "level", .count),
      Column("MADE", "created_at", .time), Column("FREES", "exclusive_bytes", .bytes),
      Column("CURRENT", "current"), Column("PROTECTED", "protected"),
      Column("DELETABLE", "deletable"),
    ])
  }
}

struct SnapshotShow: RequestCommand {
  static let configuration = CommandConfiguration(commandName: "show", abstract: "Show a snapshot.")
  @OptionGroup var snapshot: SnapshotName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getSnapshot, snapshot.path) }
}

struct SnapshotCreate: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Freeze the state so far, while the disk is used.")
  @OptionGroup var device: DeviceName
  @Option(help: ArgumentHelp("What people call it.", valueName: "text")) var name: String?
  @Option(help: ArgumentHelp("What it is for.", valueName: "text")) var description: String?
  @OptionGroup var labels: LabelOptions
  @Flag(help: "It is neither merged nor deleted until that is taken away.") var protect = false
  @Option(
    help: ArgumentHelp("Begin a checkpoint of this name with it.", valueName: "name"))
  var checkpoint: String?
  @Option(help: ArgumentHelp("Its GUID; otherwise a new one.", valueName: "guid")) var uuid: String?
  @Option(
    help: ArgumentHelp("An empty image that becomes the new top.", valueName: "path"))
  var deltaPath: String?
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      Request(
        .addSnapshot, [device.device], headers: change.headers,
        body: .members([
          "name": name.map(JSON.string), "description": description.map(JSON.string),
          "labels": try labels.json, "protected": protect ? .bool(true) : nil,
          "checkpoint": checkpoint.map(JSON.string), "uuid": uuid.map(JSON.string),
          "delta_path": deltaPath.map(JSON.string),
        ]))
    }
  }
}

struct SnapshotSet: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Change what is known of a snapshot.")
  @OptionGroup var snapshot: SnapshotName
  @Option(help: ArgumentHelp("What people call it; '' for nothing.", valueName: "text"))
  var name: String?
  @Option(help: ArgumentHelp("What it is for; '' for nothing.", valueName: "text"))
  var description: String?
  @Flag(inversion: .prefixedNo, help: "Whether it may be neither merged nor deleted.")
  var protect: Bool?
  @OptionGroup var labels: LabelChanges
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      func text(_ value: String?) -> JSON? { value.map { $0.isEmpty ? .null : .string($0) } }
      let body = JSON.members([
        "name": text(name), "description": text(description),
        "protected": protect.map(JSON.bool), "labels": try labels.json,
      ])
      guard body != .object([]) else { throw ValidationError("what is to be changed?") }
      return Request(.changeSnapshot, snapshot.path, headers: change.headers, body: body)
    }
  }
}

struct SnapshotSwitch: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "switch", abstract: "Go back to a snapshot, with nobody connected.",
    discussion: "What becomes of the state so far has to be said: --keep-top-as or --discard-top.")
  @OptionGroup var snapshot: SnapshotName
  @Option(
    help: ArgumentHelp("Keep the state so far as a snapshot of this name.", valueName: "text"))
  var keepTopAs: String?
  @Flag(help: "Remove the state so far and its file; asks first.") var discardTop = false
  @OptionGroup var consent: Consent
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      guard (keepTopAs == nil) == discardTop else {
        throw ValidationError("either --keep-top-as or --discard-top is expected")
      }
      return Request(
        .switchSnapshot, snapshot.path, headers: change.headers,
        body: .members([
          "keep_top_as": keepTopAs.map(JSON.string), "discard_top": discardTop ? .bool(true) : nil,
        ]))
    }
  }
  var question: (text: String, isAnswered: Bool)? {
    guard discardTop else { return nil }
    return (
      "Remove what \(snapshot.name.device) is now, and go back to \(snapshot.snapshot)?",
      consent.yes
    )
  }
}

struct SnapshotDelete: PlannedCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Delete a snapshot, while the disk is used: a job.")
  @OptionGroup var snapshot: SnapshotName
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "Course") var course: JobCourse
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(.removeSnapshot, snapshot.path, headers: change.headers)
  }
  var question: String? { "Delete snapshot \(snapshot.snapshot) of \(snapshot.name.device)?" }
}
