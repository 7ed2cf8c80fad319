internal import ArgumentParser
internal import PloopJSON
internal import PloopTerminal

struct ExportGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "exports", abstract: "Doors by which NBD clients reach a disk.",
    subcommands: [
      ExportList.self, ExportShow.self, ExportCreate.self, ExportDelete.self, ExportExtents.self,
      ExportData.self,
    ])
}

/// An export.
struct ExportName: ParsableArguments {
  @Argument(help: "The export.", completion: .names(of: .listExports, by: "name")) var export:
    String
}

struct ExportList: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List the exports.")
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.listExports, query: ["limit": "1000"]) }
  var view: View {
    .table([
      Column("EXPORT", "name"), Column("DEVICE", "device"), Column("READONLY", "readonly"),
      Column("SIZE", "size", .bytes), Column("CLIENTS", "clients", .count),
      Column("URI", "uris"),
    ])
  }
}

struct ExportShow: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show an export with its addresses and clients.")
  @OptionGroup var name: ExportName
  @OptionGroup(title: "The service") var service: ServiceOptions
  var request: Request { Request(.getExport, [name.export]) }
}

struct ExportCreate: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Open a door to a device, or to one of its snapshots.")
  @Argument(help: "What clients call it.") var export: String
  @OptionGroup var name: DeviceName
  @Option(help: ArgumentHelp("One of its snapshots, for reading.", valueName: "guid"))
  var snapshot: String?
  @Flag(help: "Only for reading.") var readonly = false
  @Flag(help: "Though there is another one for writing.") var sharedWriters = false
  @Option(help: ArgumentHelp("What clients are told of it.", valueName: "text"))
  var description: String?
  @OptionGroup(title: "Who may use it") var access: AccessOptions
  @Option(
    help: ArgumentHelp(
      "Wait as long, at most 60, for a job that has the device.", valueName: "seconds"))
  var patience: Int?
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .addExport, headers: patience.map { ["Prefer: wait=\($0)"] } ?? [],
      body: .members([
        "name": .string(export), "device": .string(name.device),
        "snapshot": snapshot.map(JSON.string), "readonly": readonly ? .bool(true) : nil,
        "shared_writers": sharedWriters ? .bool(true) : nil,
        "description": description.map(JSON.string), "access": access.json,
      ]))
  }
}

/// Who may use an export that is opened.
struct AccessOptions: ParsableArguments {
  @Flag(help: "Only by TLS.") var tls = false
  @Option(
    help: ArgumentHelp(
      "Only for clients whose certificate (dns:, uri:, mail:, cn:) or key (psk:) has this name; may be given several times.",
      valueName: "kind:name"))
  var clientName: [String] = []
  @Option(
    help: ArgumentHelp(
      "Only for clients of this address or network; may be given several times.",
      valueName: "address"))
  var clientAddress: [String] = []

  /// nil for everybody.
  var json: JSON? {
    guard tls || !clientName.isEmpty || !clientAddress.isEmpty else { return nil }
    func list(_ texts: [String]) -> JSON? {
      texts.isEmpty ? nil : .array(texts.map(JSON.string))
    }
    return .members([
      "tls": tls ? .bool(true) : nil, "names": list(clientName), "addresses": list(clientAddress),
    ])
  }
}

struct ExportDelete: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Close a door.")
  @OptionGroup var name: ExportName
  @Flag(help: "Cut clients off that are connected; asks first.") var hard = false
  @OptionGroup var consent: Consent
  @OptionGroup var change: ChangeOptions
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .removeExport, [name.export], query: ["mode": hard ? "hard" : nil], headers: change.headers)
  }
  var view: View { .done("\(name.export): closed") }
  var question: (text: String, isAnswered: Bool)? {
    hard ? ("Cut off all clients of \(name.export)?", consent.yes) : nil
  }
}

struct ExportExtents: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "extents", abstract: "Show which bytes of an export are worth being read.")
  @OptionGroup var name: ExportName
  @Option(
    help: ArgumentHelp(
      "base: where there is data; depth: which delta has it; dirty:NAME: what was written since a checkpoint.",
      valueName: "context"))
  var context: String?
  @Option(help: ArgumentHelp("From where.", valueName: "size")) var offset: ByteSize?
  @Option(help: ArgumentHelp("How much.", valueName: "size")) var length: ByteSize?
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    Request(
      .listExtents, [name.export],
      query: [
        "context": context, "offset": offset.map { String($0.bytes) },
        "length": length.map { String($0.bytes) }, "limit": "10000",
      ])
  }
}

struct ExportData: RequestCommand {
  static let configuration = CommandConfiguration(
    commandName: "data", abstract: "Print the bytes of an export, all of them or some.",
    discussion: "Example: ploopctl exports data vm1 > vm1.raw")
  @OptionGroup var name: ExportName
  @Option(help: ArgumentHelp("From where.", valueName: "size")) var offset: ByteSize?
  @Option(help: ArgumentHelp("How much; otherwise all that follows.", valueName: "size"))
  var length: ByteSize?
  @OptionGroup(title: "The service") var service: ServiceOptions

  var request: Request {
    get throws {
      Request(
        .getExportData, [name.export], headers: try byteRange(from: offset, length: length))
    }
  }
  var view: View { .bytes }
}

/// The header that asks for a part; none for everything.
func byteRange(from offset: ByteSize?, length: ByteSize?) throws -> [String] {
  guard offset != nil || length != nil else { return [] }
  let first = offset?.bytes ?? 0
  guard let length else { return ["Range: bytes=\(first)-"] }
  let (end, overflow) = first.addingReportingOverflow(length.bytes)
  guard !overflow, length.bytes > 0 else {
    throw ValidationError("--length: too much, or nothing")
  }
  return ["Range: bytes=\(first)-\(end - 1)"]
}
