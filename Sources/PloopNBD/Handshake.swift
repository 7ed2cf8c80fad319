/// The haggling phase as a value: an option goes in, messages and a decision come out. No I/O.
struct Handshake<Directory: ExportDirectory> {
  enum Outcome {
    /// Haggling goes on.
    case again
    case transmit(Session<Directory.Door>)
    /// TLS begins behind the answer, and haggling anew within it.
    case secure
    case close
  }

  private let directory: Directory
  private let limits: Limits
  private let claim: (_ name: [UInt8]?) -> Void
  private let security: TLSMode
  private let visitor: Visitor
  private let skipsZeroes: Bool
  private let isFixed: Bool
  private var style = HeaderStyle.simple
  /// For which export contexts were selected, and which.
  private var selection: (name: [UInt8], contexts: [SelectedContext])?
  private var optionCount = 0
  private var bytes = 0

  /// - Parameter claim: told the export that transmission is about to begin with, before it is looked
  ///   up, and nil when it does not begin. Whoever takes an export away lets nobody find it and then
  ///   ends those who have claimed it, so nobody slips through.
  /// - Parameter visitor: who asks; within TLS already, or not yet.
  init(
    directory: Directory, limits: Limits, clientFlags: UInt32, security: TLSMode, visitor: Visitor,
    claim: @escaping (_ name: [UInt8]?) -> Void
  ) {
    self.directory = directory
    self.limits = limits
    self.claim = claim
    self.security = security
    self.visitor = visitor
    isFixed = clientFlags & ClientFlags.fixedNewstyle != 0
    skipsZeroes = clientFlags & ClientFlags.noZeroes != 0
  }

  static func accepts(clientFlags: UInt32) -> Bool {
    clientFlags & ~(ClientFlags.fixedNewstyle | ClientFlags.noZeroes) == 0
  }

  /// - Parameters:
  ///   - length: of the option's data on the wire.
  ///   - data: nil when it was longer than is looked at.
  ///   - isEnding: whether the server shuts down.
  mutating func receive(
    option: UInt32, length: Int, data: [UInt8]?, isEnding: Bool, into out: inout MessageWriter
  ) -> Outcome {
    let outcome = answer(option, data, isEnding, &out)
    optionCount += 1
    bytes += length + out.bytes.count
    guard optionCount <= limits.options, bytes <= limits.handshakeBytes else { return .close }
    return outcome
  }

  private mutating func answer(
    _ option: UInt32, _ data: [UInt8]?, _ isEnding: Bool, _ out: inout MessageWriter
  ) -> Outcome {
    guard isFixed || option == OptionNumber.exportName else { return .close }
    if security == .require, !visitor.isSecure, option != OptionNumber.abort,
      option != OptionNumber.startTLS
    {
      guard option != OptionNumber.exportName else { return .close }
      refuse(option, OptionReply.tlsRequired, "this server wants TLS first", &out)
      return .again
    }
    switch option {
    case OptionNumber.abort:
      reply(option, OptionReply.ack, [], &out)
      return .close
    case OptionNumber.exportName:
      // There is no way to say no but to hang up.
      guard let data, !isEnding, style != .extended else { return .close }
      return exportName(data, &out)
    case _ where isEnding:
      refuse(option, OptionReply.shutdown, "the server shuts down", &out)
    case OptionNumber.startTLS: return startTLS(data, &out)
    case OptionNumber.list, OptionNumber.structuredReply, OptionNumber.extendedHeaders:
      guard data?.isEmpty == true else {
        refuse(option, OptionReply.invalid, "this option has no data", &out)
        break
      }
      plain(option, &out)
    case OptionNumber.info, OptionNumber.go, OptionNumber.listMetaContext,
      OptionNumber.setMetaContext:
      guard let data else {
        refuse(option, OptionReply.tooBig, "the option's data is too long", &out)
        break
      }
      if option == OptionNumber.info || option == OptionNumber.go { return go(option, data, &out) }
      metaContext(option, data, &out)
    default: refuse(option, OptionReply.unsupported, "unknown option \(option)", &out)
    }
    return .again
  }

  // MARK: Options

  private func startTLS(_ data: [UInt8]?, _ out: inout MessageWriter) -> Outcome {
    let option = OptionNumber.startTLS
    if data?.isEmpty != true {
      refuse(option, OptionReply.invalid, "this option has no data", &out)
    } else if visitor.isSecure {
      refuse(option, OptionReply.invalid, "TLS is already on", &out)
    } else if security == .off {
      refuse(option, OptionReply.policy, "this server has no TLS", &out)
    } else {
      reply(option, OptionReply.ack, [], &out)
      return .secure
    }
    return .again
  }

  /// An option without data.
  private mutating func plain(_ option: UInt32, _ out: inout MessageWriter) {
    switch option {
    case OptionNumber.list: list(&out)
    case OptionNumber.structuredReply:
      switch style {
      case .simple: turnOn(.structured, option, &out)
      case .structured:
        refuse(option, OptionReply.invalid, "structured replies are already on", &out)
      case .extended:
        refuse(
          option, OptionReply.extendedHeadersRequired, "extended headers are already on", &out)
      }
    default:
      guard style != .extended else {
        return refuse(option, OptionReply.invalid, "extended headers are already on", &out)
      }
      turnOn(.extended, option, &out)
    }
  }

  private mutating func turnOn(
    _ style: HeaderStyle, _ option: UInt32, _ out: inout MessageWriter
  ) {
    self.style = style
    reply(option, OptionReply.ack, [], &out)
  }

  private enum Finding {
    case door(Directory.Door)
    case refused(type: UInt32, words: String)
  }

  private func find(_ name: [UInt8]) -> Finding {
    guard name.count <= limits.nameBytes, !name.contains(0),
      String(validating: name, as: UTF8.self) != nil
    else {
      return .refused(
        type: OptionReply.invalid,
        words: "a name is UTF-8 without NUL, at most \(limits.nameBytes) bytes")
    }
    do throws(DoorRefusal) {
      guard let door = try directory.export(named: name, for: visitor) else {
        return .refused(type: OptionReply.unknown, words: "no export has this name")
      }
      return .door(door)
    } catch {
      let type =
        switch error.kind {
        case .leaving: OptionReply.shutdown
        case .policy: OptionReply.policy
        case .needsTLS: OptionReply.tlsRequired
        }
      return .refused(type: type, words: error.message)
    }
  }

  private func exportName(_ name: [UInt8], _ out: inout MessageWriter) -> Outcome {
    claim(name)
    guard case .door(let door) = find(name) else {
      claim(nil)
      return .close
    }
    let session = session(door, name: name)
    out.append(door.size)
    out.append(session.flags)
    if !skipsZeroes { out.append([UInt8](repeating: 0, count: 124)) }
    return .transmit(session)
  }

  private func list(_ out: inout MessageWriter) {
    for (name, summary) in directory.list(for: visitor) {
      var body = MessageWriter()
      body.append(UInt32(clamping: name.count))
      body.append(name)
      body.append(summary.wireBytes(limit: limits.nameBytes))
      reply(OptionNumber.list, OptionReply.server, body.bytes, &out)
    }
    reply(OptionNumber.list, OptionReply.ack, [], &out)
  }

  private func go(_ option: UInt32, _ data: [UInt8], _ out: inout MessageWriter) -> Outcome {
    var reader = MessageReader(data)
    guard let length = reader.number(UInt32.self), let name = reader.bytes(Int(length)),
      let count = reader.number(UInt16.self), reader.remaining == Int(count) * 2
    else {
      refuse(option, OptionReply.invalid, "malformed INFO or GO", &out)
      return .again
    }
    var wanted: Set<UInt16> = []
    while let type = reader.number(UInt16.self) { wanted.insert(type) }
    let begins = option == OptionNumber.go
    if begins { claim(name) }
    switch find(name) {
    case .refused(let type, let words):
      if begins { claim(nil) }
      refuse(option, type, words, &out)
      return .again
    case .door(let door):
      let session = session(door, name: name)
      info(option, wanted, door, session, name, &out)
      reply(option, OptionReply.ack, [], &out)
      return begins ? .transmit(session) : .again
    }
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
      send(InfoType.description) { $0.append(door.summary.wireBytes(limit: limits.nameBytes)) }
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
    if isSet { selection = nil }
    guard style.isStructured || !isSet else {
      return refuse(option, OptionReply.invalid, "structured replies come first", &out)
    }
    var reader = MessageReader(data)
    guard let length = reader.number(UInt32.self), let name = reader.bytes(Int(length)),
      let count = reader.number(UInt32.self)
    else { return refuse(option, OptionReply.invalid, "malformed context option", &out) }
    guard count <= UInt32(limits.contextQueries) else {
      return refuse(option, OptionReply.tooBig, "too many queries", &out)
    }
    var queries: [[UInt8]] = []
    for _ in 0..<count {
      guard let size = reader.number(UInt32.self), let query = reader.bytes(Int(size)) else {
        return refuse(option, OptionReply.invalid, "a query overruns the option", &out)
      }
      queries.append(query)
    }
    guard reader.remaining == 0 else {
      return refuse(option, OptionReply.invalid, "bytes behind the last query", &out)
    }
    let door: Directory.Door
    switch find(name) {
    case .refused(let type, let words): return refuse(option, type, words, &out)
    case .door(let found): door = found
    }
    let matching = door.contexts.filter { context in
      !isSet && queries.isEmpty || queries.contains { context.matches($0, isSet: isSet) }
    }
    let contexts = matching.prefix(limits.contexts).enumerated().map { index, context in
      SelectedContext(id: UInt32(clamping: index + 1), context: context)
    }
    for context in contexts {
      var body = MessageWriter()
      body.append(isSet ? context.id : 0)
      body.append(context.context.name)
      reply(option, OptionReply.metaContext, body.bytes, &out)
    }
    if isSet, !contexts.isEmpty { selection = (name, contexts) }
    reply(option, OptionReply.ack, [], &out)
  }

  private func session(_ door: Directory.Door, name: [UInt8]) -> Session<Directory.Door> {
    let selected = selection?.name == name ? selection?.contexts : nil
    return Session(door: door, name: name, style: style, contexts: selected ?? [])
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
    reply(option, type, words.wireBytes(limit: limits.nameBytes), &out)
  }
}

/// What client and server have agreed on.
struct Session<Door: Export>: Sendable {
  let door: Door
  let name: [UInt8]
  let style: HeaderStyle
  let contexts: [SelectedContext]

  var flags: UInt16 {
    var flags =
      TransmissionFlags.hasFlags | TransmissionFlags.sendFlush | TransmissionFlags.sendFUA
      | TransmissionFlags.canMultiConn | TransmissionFlags.sendCache
    if style.isStructured { flags |= TransmissionFlags.sendDF }
    if style == .extended, !contexts.isEmpty { flags |= TransmissionFlags.statusPayload }
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

extension Session {
  /// What of it people may want to know.
  func describe(in agreement: inout Agreement) {
    agreement.headers =
      switch style {
      case .simple: "simple"
      case .structured: "structured"
      case .extended: "extended"
      }
    agreement.contexts = contexts.map { String(decoding: $0.context.name, as: UTF8.self) }
  }
}
