internal import ArgumentParser
internal import PloopJSON
internal import PloopTerminal

/// The device that a command is about.
struct DeviceName: ParsableArguments {
  @Argument(help: "The device.", completion: .names(of: .listDevices)) var device: String
}

/// `--yes`, before what cannot be undone.
struct Consent: ParsableArguments {
  @Flag(name: .shortAndLong, help: "Do not ask.") var yes = false
}

/// Labels that something gets.
struct LabelOptions: ParsableArguments {
  @Option(
    name: .customLong("label"),
    help: ArgumentHelp("A label that it gets; several may be given.", valueName: "name=value"))
  var labels: [String] = []

  /// nil where there are none.
  var json: JSON? {
    get throws {
      labels.isEmpty ? nil : .object(try labels.map { try pair($0, "--label") })
    }
  }
}

/// Labels that are to be there or to be gone.
struct LabelChanges: ParsableArguments {
  @OptionGroup var added: LabelOptions
  @Option(
    name: .customLong("remove-label"),
    help: ArgumentHelp("A label that it loses; several may be given.", valueName: "name"))
  var removed: [String] = []

  var json: JSON? {
    get throws {
      let members =
        try added.labels.map { try pair($0, "--label") }
        + removed.map { JSON.Member(name: $0, value: .null) }
      return members.isEmpty ? nil : .object(members)
    }
  }
}

/// Those that have a label.
struct LabelFilter: ParsableArguments {
  @Option(
    name: .customLong("label"),
    help: ArgumentHelp("Only those with this label; several may be given.", valueName: "name=value")
  )
  var labels: [String] = []

  func adding(to request: Request) throws -> Request {
    try labels.reduce(request) { request, text in
      let label = try pair(text, "--label")
      return request.adding("label.\(label.name)", label.value.text ?? "")
    }
  }
}

/// Whether to wait for who has the device, and for which state of things a change is meant.
struct ChangeOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Wait as long, at most 60, for a job that has the device.", valueName: "seconds"))
  var patience: Int?
  @Option(
    help: ArgumentHelp(
      "Only if this is its revision, as it was seen.", valueName: "revision"))
  var ifRevision: UInt64?

  var headers: [String] {
    [patience.map { "Prefer: wait=\($0)" }, ifRevision.map { "If-Match: \"\($0)\"" }].compactMap {
      $0
    }
  }
}

/// Speed limits.
struct LimitOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "At most so many bytes a second, as 100M; 0 for no limit.", valueName: "size"))
  var bps: ByteSize?
  @Option(
    help: ArgumentHelp("At most so many clusters a second; 0 for no limit.", valueName: "count"))
  var iops: UInt64?

  /// nil where there are none.
  var json: JSON? {
    let limits = JSON.members(["bps": bps?.json, "iops": iops.map(JSON.count)])
    return limits == .object([]) ? nil : limits
  }
}

/// `name=value`
func pair(_ text: String, _ option: String) throws -> JSON.Member {
  guard let sign = text.firstIndex(of: "="), sign > text.startIndex else {
    throw ValidationError("\(option): \(text) is not NAME=VALUE")
  }
  return JSON.Member(
    name: String(text[..<sign]), value: .string(String(text[text.index(after: sign)...])))
}

extension ByteSize {
  var json: JSON { .count(bytes) }
}
