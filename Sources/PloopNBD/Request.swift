internal import PloopIO

/// A request as it came over the wire, and whether it may be carried out.
struct Request: Sendable {
  let flags: UInt16
  let type: UInt16
  let cookie: UInt64
  let offset: UInt64
  /// Bytes of the disk that it is about; of a status with a payload, those of the payload.
  let length: UInt64
  /// Bytes that follow the header, whether or not the request is any good.
  let payloadBytes: Int

  /// Nil when the bytes are not the beginning of a request, or one that nobody sends: the stream is out of step.
  init?(_ header: ByteRegion, _ style: HeaderStyle) {
    guard header.bigEndian(at: 0, as: UInt32.self) == style.requestMagic else { return nil }
    flags = header.bigEndian(at: 4, as: UInt16.self)
    type = header.bigEndian(at: 6, as: UInt16.self)
    cookie = header.bigEndian(at: 8, as: UInt64.self)
    offset = header.bigEndian(at: 16, as: UInt64.self)
    length =
      style == .extended
      ? header.bigEndian(at: 24, as: UInt64.self)
      : UInt64(header.bigEndian(at: 24, as: UInt32.self))
    // A WRITE that does not say that it has a payload has one all the same, as QEMU takes it.
    let hasPayload =
      type == Command.write || style == .extended && flags & CommandFlags.payloadLength != 0
    guard !hasPayload || length <= UInt64(UInt32.max) else { return nil }
    payloadBytes = hasPayload ? Int(length) : 0
  }

  private init(_ other: Request, length: UInt64) {
    flags = other.flags & ~CommandFlags.payloadLength
    type = other.type
    cookie = other.cookie
    offset = other.offset
    self.length = length
    payloadBytes = 0
  }

  /// The same, without a payload that says how many bytes it is about.
  func asking(_ length: UInt64) -> Request { Request(self, length: length) }

  func contains(_ place: UInt64) -> Bool { place >= offset && place - offset < length }

  /// Whether its range and contexts are told by its payload.
  var isSelective: Bool { type == Command.blockStatus && payloadBytes > 0 }

  var isDurable: Bool { flags & CommandFlags.fua != 0 }

  /// Everything that can be wrong with a request, before anything of it is done.
  func fault<Door>(_ session: Session<Door>, _ limits: Limits) -> NBDError? {
    var known = CommandFlags.fua
    switch type {
    case Command.read: if session.style.isStructured { known |= CommandFlags.dontFragment }
    case Command.writeZeroes: known |= CommandFlags.noHole | CommandFlags.fastZero
    case Command.blockStatus:
      known |= CommandFlags.requireOne
      if session.flags & TransmissionFlags.statusPayload != 0 {
        known |= CommandFlags.payloadLength
      }
    case Command.write: if session.style == .extended { known |= CommandFlags.payloadLength }
    case Command.flush, Command.trim, Command.cache: break
    default: return NBDError(.invalid, "unknown command \(type)")
    }
    guard flags & ~known == 0 else {
      return NBDError(.invalid, "unknown flags for command \(type)")
    }
    if type == Command.flush { return nil }
    let changes =
      type == Command.write || type == Command.trim || type == Command.writeZeroes
    if changes, session.door.isReadOnly {
      return NBDError(.notPermitted, "the export is read-only")
    }
    if type == Command.blockStatus, session.contexts.isEmpty {
      return NBDError(.invalid, "no context was selected")
    }
    if isSelective {
      // A length, and a number for each context.
      guard payloadBytes <= 8 + 4 * session.contexts.count else {
        return NBDError(.invalid, "a status payload of \(payloadBytes) bytes")
      }
      return nil
    }
    if type == Command.read || type == Command.write, length > UInt64(limits.payloadBytes) {
      return NBDError(
        type == Command.read && session.style.isStructured ? .overflow : .invalid,
        "at most \(limits.payloadBytes) bytes in one request")
    }
    let size = session.door.size
    guard length <= size, offset <= size - length else {
      return NBDError(
        type == Command.write || type == Command.writeZeroes ? .noSpace : .invalid,
        "the range ends behind the export's \(size) bytes", at: size)
    }
    if length == 0, type == Command.blockStatus {
      return NBDError(.invalid, "a status of no bytes")
    }
    return nil
  }
}

/// What a BLOCK_STATUS with a payload asks for: a range, and some of the contexts that were selected.
struct StatusSelection {
  private let length: UInt64
  private let ids: [UInt32]

  init(_ payload: ByteRegion) throws(NBDError) {
    var reader = MessageReader(payload.bytes)
    guard let length = reader.number(UInt64.self), reader.remaining > 0, reader.remaining % 4 == 0
    else { throw NBDError(.invalid, "a status payload is a length and the numbers of contexts") }
    self.length = length
    var ids: [UInt32] = []
    while let id = reader.number(UInt32.self) { ids.append(id) }
    self.ids = ids
  }

  /// The length, and the contexts in the order in which they were selected.
  func resolved(
    _ selected: [SelectedContext]
  ) throws(NBDError) -> (length: UInt64, contexts: [SelectedContext]) {
    let wanted = Set(ids)
    let contexts = selected.filter { wanted.contains($0.id) }
    guard wanted.count == ids.count, contexts.count == ids.count else {
      throw NBDError(
        .invalid, "a status payload names a context twice, or one that was not selected")
    }
    return (length, contexts)
  }
}
