internal import ArgumentParser
internal import Glibc
internal import PloopIO
internal import PloopJSON

/// `ploopctl events`: what happens, as it happens.
struct EventCommand: ServiceCommand {
  static let configuration = CommandConfiguration(
    commandName: "events", abstract: "Follow what happens: devices, exports, jobs, backups.",
    discussion: """
      Until Ctrl-C, or with --list what has happened and is kept. A connection that ends is made anew, and nothing is \
      lost between the two.
      """, aliases: ["watch"])
  @Option(
    help: ArgumentHelp(
      "Begin behind this revision; otherwise with what is to come.", valueName: "revision"))
  var after: UInt64?
  @Option(
    help: ArgumentHelp("Only these types, as device.*,job.state.", valueName: "types"))
  var types: String?
  @Option(
    help: ArgumentHelp("Only what is about this device.", valueName: "name"),
    completion: .names(of: .listDevices))
  var device: String?
  @Flag(help: "List what is kept, and end.") var list = false
  @OptionGroup(title: "The service") var service: ServiceOptions

  /// How long a service is waited for that does not answer.
  private static let patienceSeconds = 120

  func request(after revision: UInt64?) -> Request {
    Request(
      .listEvents,
      query: [
        "after": revision.map(String.init), "types": types, "device": device,
        "limit": list ? "1000" : nil,
      ], headers: list ? [] : ["Accept: text/event-stream"])
  }

  var request: Request { request(after: after) }

  func perform(_ request: Request, _ client: APIClient) throws(ClientFault) {
    guard list else { return try follow(client) }
    try show(
      try client.send(request),
      .table([
        Column("REVISION", "revision", .count), Column("AT", "at", .time), Column("TYPE", "type"),
        Column("SUBJECT", "subject"), Column("DEVICE", "device"), Column("ACTOR", "actor"),
      ]))
  }

  private func follow(_ client: APIClient) throws(ClientFault) {
    var stream = client
    // The service says something every 15 seconds; how long the whole takes is not limited.
    stream.seconds = 0
    var parser = EventParser()
    var deadline = Deadline.after(seconds: EventCommand.patienceSeconds)
    while true {
      let revision = parser.lastID.flatMap { UInt64($0) } ?? after
      do throws(ClientFault) {
        try stream.stream(request(after: revision)) { bytes in
          deadline = Deadline.after(seconds: EventCommand.patienceSeconds)
          for event in parser.take(bytes) { tell(event) }
          return true
        }
      } catch {
        guard error.status == .unreachable, parser.lastID != nil, !deadline.hasPassed else {
          throw error
        }
      }
      poll(nil, 0, 1000)
    }
  }

  private func tell(_ event: EventParser.Event) {
    guard let json = try? JSONParser.parse(Array(event.data.utf8)) else { return }
    guard !service.json else { return Output.print(json) }
    guard event.type != "reset" else {
      return Output.print(["some events are not known any more; it goes on from now"])
    }
    var words = [json.at("at")?.text.map(Units.time) ?? "-", event.type]
    words += ["subject", "actor"].compactMap { json.at($0)?.text }
    if let object = json.at("object") {
      words += ["state", "phase"].compactMap { object.at($0)?.text }
      if let progress = object.at("progress").flatMap({ Progress($0) }) {
        words.append("\(progress.percent) %")
      }
    }
    Output.print([words.map(Terminal.safe).joined(separator: "  ")])
  }
}

/// Server-sent events (WHATWG HTML, "Server-sent events"), from pieces of any size.
struct EventParser {
  struct Event: Equatable {
    var type: String
    var data: String
  }

  private static let mostBytes = 64 << 20

  /// Behind which the stream goes on.
  private(set) var lastID: String?
  private var rest: [UInt8] = []
  private var type = ""
  private var data: [String] = []

  mutating func take(_ bytes: some Sequence<UInt8>) -> [Event] {
    rest += bytes
    var events: [Event] = []
    var start = 0
    while let end = rest[start...].firstIndex(of: UInt8(ascii: "\n")) {
      if let event = line(String(decoding: rest[start..<end], as: UTF8.self)) {
        events.append(event)
      }
      start = end + 1
    }
    rest.removeFirst(start)
    // No event is so long; whoever sends it is no such service.
    if rest.count > EventParser.mostBytes { rest = [] }
    return events
  }

  private mutating func line(_ text: String) -> Event? {
    guard !text.isEmpty else {
      defer { (type, data) = ("", []) }
      return data.isEmpty ? nil : Event(type: type, data: data.joined(separator: "\n"))
    }
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard let name = parts.first, !name.isEmpty else { return nil }
    var value = parts.count > 1 ? parts[1] : ""
    if value.first == " " { value.removeFirst() }
    switch name {
    case "id": lastID = String(value)
    case "event": type = String(value)
    case "data": data.append(String(value))
    default: break
    }
    return nil
  }
}
