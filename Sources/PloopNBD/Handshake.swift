/// The haggling phase as a value: an option goes in, messages and a decision come out. No I/O.
struct Handshake<Directory: ExportDirectory> {
  enum Outcome {
    /// Haggling goes on.
    case again
    case transmit(Session<Directory.Door>)
    case close
  }

  private let directory: Directory
  private let limits: Limits
  private let skipsZeroes: Bool
  private let isFixed: Bool
  private var structured = false
  /// For which export `base:allocation` was selected.
  private var context: [UInt8]?
  private var optionCount = 0

  init(directory: Directory, limits: Limits, clientFlags: UInt32) {
    self.directory = directory
    self.limits = limits
    isFixed = clientFlags & ClientFlags.fixedNewstyle != 0
    skipsZeroes = clientFlags & ClientFlags.noZeroes != 0
  }

  static func accepts(clientFlags: UInt32) -> Bool {
    clientFlags & ~(ClientFlags.fixedNewstyle | ClientFlags.noZeroes) == 0
  }

  /// - Parameter data: nil when the option's data was longer than is looked at.
  mutating func receive(option: UInt32, data: [UInt8]?, into out: inout MessageWriter) -> Outcome {
    optionCount += 1
    guard optionCount <= limits.options, isFixed || option == OptionNumber.exportName else {
      return .close
    }
    guard let data else {
      guard option != OptionNumber.exportName else { return .close }
      refuse(option, OptionReply.tooBig, "the option's data is too long", &out)
      return .again
    }
    switch option {
    case OptionNumber.exportName: return exportName(data, &out)
    case OptionNumber.abort:
      reply(option, OptionReply.ack, [], &out)
      return .close
    case OptionNumber.list: list(data, &out)
    case OptionNumber.startTLS:
      refuse(option, OptionReply.policy, "this server has no TLS", &out)
    case OptionNumber.info, OptionNumber.go: return go(option, data, &out)
    case OptionNumber.structuredReply:
      guard data.isEmpty, !structured else {
        refuse(option, OptionReply.invalid, "no data, and only once", &out)
        return .again
      }
      structured = true
      reply(option, OptionReply.ack, [], &out)
    case OptionNumber.listMetaContext, OptionNumber.setMetaContext:
      metaContext(option, data, &out)
    default: refuse(option, OptionReply.unsupported, "unknown option \(option)", &out)
    }
    return .again
  }

  // MARK: Options

  private func find(_ name: [UInt8]) -> Result<Directory.Door?, NBDError> {
    do throws(NBDError) { return .success(try directory.export(named: name)) } catch {
      return .failure(error)
    }
  }

  private func exportName(_ data: [UInt8], _ out: inout MessageWriter) -> Outcome {
    guard data.count <= limits.nameBytes, case .success(let door?) = find(data) else {
      return .close
    }
    let session = session(door, name: data)
    out.append(door.size)
    out.append(session.flags)
    if !skipsZeroes { out.append([UInt8](repeating: 0, count: 124)) }
    return .transmit(session)
  }

  private func list(_ data: [UInt8], _ out: inout MessageWriter) {
    guard data.isEmpty else {
      return refuse(OptionNumber.list, OptionReply.invalid, "LIST has no data", &out)
    }
    for (name, summary) in directory.list() {
      var body = MessageWriter()
      body.append(UInt32(clamping: name.count))
      body.append(name)
      body.append(Array(summary.utf8.prefix(limits.nameBytes)))
      reply(OptionNumber.list, OptionReply.server, body.bytes, &out)
    }
    reply(OptionNumber.list, OptionReply.ack, [], &out)
  }

  private func go(_ option: UInt32, _ data: [UInt8], _ out: inout MessageWriter) -> Outcome {
    var reader = MessageReader(data)
    guard let length = reader.number(UInt32.self), let name = reader.bytes(Int(length)),
      let count = reader.number(UInt16.self), reader.remaining == Int(count) * 2,
      name.count <= limits.nameBytes
    else {
      refuse(option, OptionReply.invalid, "malformed INFO or GO", &out)
      return .again
    }
    var wanted: Set<UInt16> = []
    while let type = reader.number(UInt16.self) { wanted.insert(type) }
    let door: Directory.Door
    switch find(name) {
    case .success(let found?): door = found
    case .success(nil):
      refuse(option, OptionReply.unknown, "no export has this name", &out)
      return .again
    case .failure(let error):
      refuse(
        option, error.kind == .shuttingDown ? OptionReply.shutdown : OptionReply.policy,
        error.message, &out)
      return .again
    }
    let session = session(door, name: name)
    info(option, wanted, door, session, name, &out)
    reply(option, OptionReply.ack, [], &out)
    return option == OptionNumber.go ? .transmit(session) : .again
  }

  private func info(
    _ option: UInt32, _ wanted: Set<UInt16>, _ door: Directory.Door,
    _ session: Session<Directory.Door>, _ name: [UInt8], _ out: inout MessageWriter
  ) {
    func send(_ type: UInt16, _ build: (inout MessageWriter) -> Void) {
      var body = MessageWriter()
      body.append(type)
      build(&body)
      reply(option, OptionReply.info, body.bytes, &out)
    }
    send(InfoType.export) {
      $0.append(door.size)
      $0.append(session.flags)
    }
    if wanted.contains(InfoType.name) { send(InfoType.name) { $0.append(name) } }
    if wanted.contains(InfoType.description) {
      send(InfoType.description) { $0.append(Array(door.summary.utf8.prefix(limits.nameBytes))) }
    }
    if wanted.contains(InfoType.blockSize) {
      send(InfoType.blockSize) {
        $0.append(UInt32(1))
        $0.append(door.preferredBlockSize)
        $0.append(UInt32(clamping: limits.payloadBytes))
      }
    }
  }

  private mutating func metaContext(
    _ option: UInt32, _ data: [UInt8], _ out: inout MessageWriter
  ) {
    let isSet = option == OptionNumber.setMetaContext
    // A former selection is void even when this one fails.
    if isSet { context = nil }
    guard structured || !isSet else {
      return refuse(option, OptionReply.invalid, "structured replies come first", &out)
    }
    var reader = MessageReader(data)
    guard let length = reader.number(UInt32.self), let name = reader.bytes(Int(length)),
      let count = reader.number(UInt32.self)
    else { return refuse(option, OptionReply.invalid, "malformed context option", &out) }
    guard count <= UInt32(limits.contextQueries) else {
      return refuse(option, OptionReply.tooBig, "too many queries", &out)
    }
    var matches = !isSet && count == 0
    for _ in 0..<count {
      guard let size = reader.number(UInt32.self), let query = reader.bytes(Int(size)) else {
        return refuse(option, OptionReply.invalid, "a query overruns the option", &out)
      }
      if query == Allocation.context || !isSet && query == Allocation.namespace { matches = true }
    }
    guard reader.remaining == 0 else {
      return refuse(option, OptionReply.invalid, "bytes behind the last query", &out)
    }
    guard case .success(.some) = find(name) else {
      return refuse(option, OptionReply.unknown, "no export has this name", &out)
    }
    if matches {
      if isSet { context = name }
      var body = MessageWriter()
      body.append(isSet ? Session<Directory.Door>.allocationID : 0)
      body.append(Allocation.context)
      reply(option, OptionReply.metaContext, body.bytes, &out)
    }
    reply(option, OptionReply.ack, [], &out)
  }

  private func session(_ door: Directory.Door, name: [UInt8]) -> Session<Directory.Door> {
    Session(
      door: door, name: name, structured: structured,
      reportsAllocation: structured && context == name)
  }

  // MARK: Replies

  private func reply(
    _ option: UInt32, _ type: UInt32, _ data: [UInt8], _ out: inout MessageWriter
  ) {
    out.append(OptionReply.magic)
    out.append(option)
    out.append(type)
    out.append(UInt32(clamping: data.count))
    out.append(data)
  }

  private func refuse(
    _ option: UInt32, _ type: UInt32, _ words: String, _ out: inout MessageWriter
  ) {
    reply(option, type, Array(words.utf8), &out)
  }
}

/// What client and server have agreed on.
struct Session<Door: Export>: Sendable {
  static var allocationID: UInt32 { 1 }

  let door: Door
  let name: [UInt8]
  let structured: Bool
  let reportsAllocation: Bool

  var flags: UInt16 {
    var flags =
      TransmissionFlags.hasFlags | TransmissionFlags.sendFlush | TransmissionFlags.sendFUA
      | TransmissionFlags.canMultiConn | TransmissionFlags.sendCache
    if structured { flags |= TransmissionFlags.sendDF }
    if door.isReadOnly {
      flags |= TransmissionFlags.readOnly
    } else {
      flags |=
        TransmissionFlags.sendTrim | TransmissionFlags.sendWriteZeroes
        | TransmissionFlags.sendFastZero
    }
    return flags
  }
}
