internal import ArgumentParser
internal import PloopJSON
internal import PloopTerminal

struct DeviceGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "devices", abstract: "Disks that the service hosts.",
    subcommands: [
      DeviceList.self, DeviceShow.self, DeviceCreate.self, DeviceAttach.self, DeviceDetach.self,
      DeviceMove.self, DeviceSet.self, DeviceSuspend.self, DeviceResume.self, DeviceMap.self,
      DeviceStatistics.self,
    ])
}

struct DeviceList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List the devices.")
  @Option(
    help: ArgumentHelp(
      "Only those in this state: attaching, online, suspended, degraded, failed or detaching.",
      valueName: "state"))
  var state: String?
  @OptionGroup var labels: LabelFilter
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      try labels.adding(to: Request(.listDevices, query: ["limit": "1000", "state": state]))
    }
  }
  var view: View {
    .table([
      Column("DEVICE", "id"), Column("STATE", "state"), Column("SIZE", "size", .bytes),
      Column("DELTAS", "deltas", .count), Column("EXPORTS", "exports", .names("name")),
    ])
  }
}

struct DeviceShow: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show a device with its chain, exports and conditions.")
  @OptionGroup var name: DeviceName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getDevice, [name.device]) }
}

/// What every new device can have.
struct NewDeviceOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Open a door of this name for NBD clients.", valueName: "name"))
  var export: String?
  @OptionGroup var labels: LabelOptions
  @Flag(help: "Admit no guest until it is resumed.") var suspended = false
  @Flag(help: "Do not bring it back when the service starts again.") var noAutostart = false

  func body(_ id: String, _ members: KeyValuePairs<String, JSON?>) throws -> JSON {
    guard case .object(let own) = JSON.members(members),
      case .object(let common) = JSON.members([
        "export": export.map { .members(["name": .string($0)]) }, "labels": try labels.json,
        "suspended": suspended ? .bool(true) : nil, "autostart": noAutostart ? .bool(false) : nil,
      ])
    else { return .null }
    return .object([JSON.Member(name: "id", value: .string(id))] + own + common)
  }
}

struct DeviceCreate: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Make a disk, and host it.",
    discussion: "Example: ploopctl devices create vm1 --size 10G --export vm1")
  @Argument(help: "What the device is called.") var device: String
  @Option(
    help: ArgumentHelp("How large it is, as 10G: a whole number of clusters.", valueName: "size"))
  var size: ByteSize
  @Option(
    help: ArgumentHelp(
      "The folder of its files, as ROOT:FOLDER; otherwise one of the device's name.",
      valueName: "path"))
  var directory: String?
  @Option(
    help: ArgumentHelp("The unit of mapping, from 4K to 64M; otherwise 1M.", valueName: "size"))
  var clusterSize: ByteSize?
  @Option(help: ArgumentHelp("Of the format, 1 or 2.", valueName: "version"))
  var formatVersion: Int?
  @Option(
    help: ArgumentHelp(
      "It is the copy of a disk that is still somebody else's, who calls it so; see 'devices set --take-over'.",
      valueName: "name"))
  var incoming: String?
  @OptionGroup var options: NewDeviceOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      let create = JSON.members([
        "directory": .string(directory ?? device), "size": size.json,
        "cluster_size": clusterSize?.json, "version": formatVersion.map { .integer(Int64($0)) },
      ])
      return Request(
        .attachDevice,
        body: try options.body(device, ["create": create, "incoming": incoming.map(JSON.string)]))
    }
  }
}

struct DeviceAttach: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "attach", abstract: "Host a disk whose images are there.",
    discussion: """
      Either --descriptor, or each image of the chain with --delta, oldest first. Paths are ROOT:PATH; with one root \
      its name may be left out.
      """)
  @Argument(help: "What the device is called.") var device: String
  @Option(help: ArgumentHelp("Its DiskDescriptor.xml.", valueName: "path")) var descriptor: String?
  @Option(
    help: ArgumentHelp("With --descriptor: a snapshot of it, for reading.", valueName: "guid"))
  var at: String?
  @Option(
    name: .customLong("delta"),
    help: ArgumentHelp("An image, oldest first; several may be given.", valueName: "path"))
  var deltas: [String] = []
  @Option(
    help: ArgumentHelp("A raw file beneath all of them.", valueName: "path"))
  var rawBase: String?
  @Flag(help: "Mend an image that was not closed; that destroys nothing.") var repair = false
  @Flag(help: "Only for reading.") var readonly = false
  @Flag(help: "A clean detach writes checkpoints into the image as well.") var bitmapsInImage =
    false
  @OptionGroup var options: NewDeviceOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      guard (descriptor == nil) == (rawBase != nil || !deltas.isEmpty) else {
        throw ValidationError("either --descriptor or --delta is expected")
      }
      let base: [JSON] =
        rawBase.map {
          [.members(["path": .string($0), "format": .string("raw")])]
        } ?? []
      let chain = base + deltas.map { .members(["path": .string($0)]) }
      return Request(
        .attachDevice,
        body: try options.body(
          device,
          [
            "descriptor": descriptor.map(JSON.string), "at": at.map(JSON.string),
            "deltas": chain.isEmpty ? nil : .array(chain),
            "repair": repair ? .string("safe") : nil, "readonly": readonly ? .bool(true) : nil,
            "bitmaps_in_image": bitmapsInImage ? .bool(true) : nil,
          ]))
    }
  }
}

struct DeviceDetach: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "detach", abstract: "Host a disk no more; its images stay, closed and clean.")
  @OptionGroup var name: DeviceName
  @Flag(help: "Cut clients off that are connected; asks first.") var hard = false
  @OptionGroup var consent: Consent
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .detachDevice, [name.device], query: ["mode": hard ? "hard" : nil], headers: change.headers)
  }
  var view: View { .done("\(name.device): detached") }
  var question: (text: String, isAnswered: Bool)? {
    hard ? ("Cut off all clients of \(name.device)?", consent.yes) : nil
  }

  func perform(_ request: Request, _ client: APIClient) throws(ClientFault) {
    // Nobody else misses the copy that somebody's move is making, and nobody could name it afterwards.
    if !consent.yes,
      try client.send(Request(.getDevice, [name.device])).json.at("incoming")?.text != nil
    {
      try Question.ask(
        "\(name.device) is a copy that a move has begun here: its files go with it. Detach it?",
        isAnswered: false)
    } else if let question {
      try Question.ask(question.text, isAnswered: question.isAnswered)
    }
    try show(try client.send(request), view)
  }
}

struct DeviceSet: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Change settings of a device.")
  @OptionGroup var name: DeviceName
  @Flag(inversion: .prefixedNo, help: "Bring it back when the service starts again.")
  var autostart: Bool?
  @Flag(inversion: .prefixedNo, help: "Let nobody resume it, nor any time limit.")
  var noresume: Bool?
  @Flag(
    help:
      "It is a disk like any other from now on, no longer the copy of somebody else's; asks first.")
  var takeOver = false
  @Option(help: ArgumentHelp("As whose 'noresume' is set.", valueName: "name")) var holder: String?
  @OptionGroup(title: "How fast its clients may go") var rates: RateOptions
  @OptionGroup var labels: LabelChanges
  @OptionGroup var consent: Consent
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      let body = JSON.members([
        "autostart": autostart.map(JSON.bool), "noresume": noresume.map(JSON.bool),
        "incoming": takeOver ? .null : nil, "holder": holder.map(JSON.string),
        "throttle": rates.json, "labels": try labels.json,
      ])
      guard body != .object([]) else { throw ValidationError("what is to be changed?") }
      return Request(.changeDevice, [name.device], headers: change.headers, body: body)
    }
  }
  var question: (text: String, isAnswered: Bool)? {
    takeOver
      ? ("Take \(name.device) over? Nobody else may have this disk any more.", consent.yes) : nil
  }
}

struct DeviceSuspend: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "suspend",
    abstract: "Flush a disk and have its clients wait, until it is resumed.")
  @OptionGroup var name: DeviceName
  @Option(
    name: .customLong("for"),
    help: ArgumentHelp(
      "It resumes by itself after so long; otherwise after 300.", valueName: "seconds"))
  var seconds: Int?
  @Option(help: ArgumentHelp("As whose.", valueName: "name")) var holder: String?
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .changeDevice, [name.device], headers: change.headers,
      body: .members([
        "suspended": .bool(true),
        "suspend_timeout_seconds": seconds.map { .integer(Int64($0)) },
        "holder": holder.map(JSON.string),
      ]))
  }
}

struct DeviceResume: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "resume", abstract: "Let the clients of a suspended disk go on.")
  @OptionGroup var name: DeviceName
  @Flag(help: "Whoever has suspended it, and 'noresume' too; asks first.") var force = false
  @OptionGroup var consent: Consent
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .changeDevice, [name.device], headers: change.headers,
      body: .members(["suspended": .bool(false), "force": force ? .bool(true) : nil]))
  }
  var question: (text: String, isAnswered: Bool)? {
    force
      ? (
        "Resume \(name.device) by force? A disk that was handed over is then there and here.",
        consent.yes
      ) : nil
  }
}

struct DeviceMap: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "map", abstract: "Show which delta holds what of a disk.")
  @OptionGroup var name: DeviceName
  @Option(help: ArgumentHelp("From where.", valueName: "size")) var offset: ByteSize?
  @Option(help: ArgumentHelp("How much.", valueName: "size")) var length: ByteSize?
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .getMap, [name.device],
      query: [
        "offset": offset.map { String($0.bytes) }, "length": length.map { String($0.bytes) },
        "limit": "10000",
      ])
  }
}

struct DeviceStatistics: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "stats", abstract: "Show counters and latencies since the attach.")
  @OptionGroup var name: DeviceName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getStatistics, [name.device]) }
}
