internal import PloopIO

/// A request as it came over the wire, and whether it may be carried out.
struct Request: Sendable {
  let flags: UInt16
  let type: UInt16
  let cookie: UInt64
  let offset: UInt64
  let length: UInt32

  /// Nil when the bytes are not the beginning of a request: the stream is out of step.
  init?(_ header: ByteRegion) {
    guard header.bigEndian(at: 0, as: UInt32.self) == RequestHeader.magic else { return nil }
    flags = header.bigEndian(at: 4, as: UInt16.self)
    type = header.bigEndian(at: 6, as: UInt16.self)
    cookie = header.bigEndian(at: 8, as: UInt64.self)
    offset = header.bigEndian(at: 16, as: UInt64.self)
    length = header.bigEndian(at: 24, as: UInt32.self)
  }

  /// Bytes that follow the header, whether or not the request is any good.
  var payloadBytes: Int { type == Command.write ? Int(length) : 0 }

  func contains(_ place: UInt64) -> Bool { place >= offset && place - offset < UInt64(length) }

  var isDurable: Bool { flags & CommandFlags.fua != 0 }

  /// Everything that can be wrong with a request, before anything of it is done.
  func fault<Door>(_ session: Session<Door>, _ limits: Limits) -> NBDError? {
    var known = CommandFlags.fua
    switch type {
    case Command.read: if session.structured { known |= CommandFlags.dontFragment }
    case Command.writeZeroes: known |= CommandFlags.noHole | CommandFlags.fastZero
    case Command.blockStatus: known |= CommandFlags.requireOne
    case Command.write, Command.flush, Command.trim, Command.cache: break
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
    if type == Command.read || type == Command.write, Int(length) > limits.payloadBytes {
      return NBDError(
        type == Command.read && session.structured ? .overflow : .invalid,
        "at most \(limits.payloadBytes) bytes in one request")
    }
    let size = session.door.size
    guard UInt64(length) <= size, offset <= size - UInt64(length) else {
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
