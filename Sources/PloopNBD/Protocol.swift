// Every number of the NBD protocol that this server knows, once, in the order of the conversation
// (proto.md of NetworkBlockDevice/nbd). All integers on the wire are big-endian.

enum Greeting {
  static let magic: UInt64 = 0x4e42_444d_4147_4943
  static let optionMagic: UInt64 = 0x4948_4156_454F_5054
  static let fixedNewstyle: UInt16 = 1
  static let noZeroes: UInt16 = 2
}

enum ClientFlags {
  static let fixedNewstyle: UInt32 = 1
  static let noZeroes: UInt32 = 2
}

enum OptionNumber {
  static let exportName: UInt32 = 1
  static let abort: UInt32 = 2
  static let list: UInt32 = 3
  static let startTLS: UInt32 = 5
  static let info: UInt32 = 6
  static let go: UInt32 = 7
  static let structuredReply: UInt32 = 8
  static let listMetaContext: UInt32 = 9
  static let setMetaContext: UInt32 = 10
  static let extendedHeaders: UInt32 = 11
}

enum OptionReply {
  static let magic: UInt64 = 0x0003_e889_0455_65a9
  static let ack: UInt32 = 1
  static let server: UInt32 = 2
  static let info: UInt32 = 3
  static let metaContext: UInt32 = 4

  private static let error: UInt32 = 1 << 31
  static let unsupported = error + 1
  static let policy = error + 2
  static let invalid = error + 3
  static let tlsRequired = error + 5
  static let unknown = error + 6
  static let shutdown = error + 7
  static let tooBig = error + 9
  static let extendedHeadersRequired = error + 10
}

enum InfoType {
  static let export: UInt16 = 0
  static let name: UInt16 = 1
  static let description: UInt16 = 2
  static let blockSize: UInt16 = 3
}

enum TransmissionFlags {
  static let hasFlags: UInt16 = 1 << 0
  static let readOnly: UInt16 = 1 << 1
  static let sendFlush: UInt16 = 1 << 2
  static let sendFUA: UInt16 = 1 << 3
  static let sendTrim: UInt16 = 1 << 5
  static let sendWriteZeroes: UInt16 = 1 << 6
  static let sendDF: UInt16 = 1 << 7
  static let canMultiConn: UInt16 = 1 << 8
  static let sendCache: UInt16 = 1 << 10
  static let sendFastZero: UInt16 = 1 << 11
  static let statusPayload: UInt16 = 1 << 12
}

/// How requests and replies are laid out, as the handshake has agreed on.
enum HeaderStyle: Sendable {
  case simple, structured, extended

  /// Whether replies are chunks.
  var isStructured: Bool { self != .simple }
  var requestBytes: Int { self == .extended ? 32 : 28 }
  var requestMagic: UInt32 { self == .extended ? 0x21e4_1c71 : 0x2560_9513 }
  /// Bytes before a chunk's payload.
  var chunkBytes: Int { self == .extended ? 32 : 20 }
}

enum Command {
  static let read: UInt16 = 0
  static let write: UInt16 = 1
  static let disconnect: UInt16 = 2
  static let flush: UInt16 = 3
  static let trim: UInt16 = 4
  static let cache: UInt16 = 5
  static let writeZeroes: UInt16 = 6
  static let blockStatus: UInt16 = 7
}

enum CommandFlags {
  static let fua: UInt16 = 1
  static let noHole: UInt16 = 2
  static let dontFragment: UInt16 = 4
  static let requireOne: UInt16 = 8
  static let fastZero: UInt16 = 16
  static let payloadLength: UInt16 = 32
}

enum SimpleReply {
  static let magic: UInt32 = 0x6744_6698
  static let byteCount = 16
}

enum Chunk {
  static let magic: UInt32 = 0x668e_33ef
  static let extendedMagic: UInt32 = 0x6e8a_278c
  static let done: UInt16 = 1

  static let none: UInt16 = 0
  static let offsetData: UInt16 = 1
  static let offsetHole: UInt16 = 2
  static let blockStatus: UInt16 = 5
  static let extendedBlockStatus: UInt16 = 6
  static let error: UInt16 = 0x8001
  static let errorOffset: UInt16 = 0x8002
}

enum Allocation {
  static let hole: UInt32 = 1
  static let zero: UInt32 = 2
}

enum ErrorNumber {
  static let notPermitted: UInt32 = 1
  static let io: UInt32 = 5
  static let invalid: UInt32 = 22
  static let noSpace: UInt32 = 28
  static let overflow: UInt32 = 75
  static let notSupported: UInt32 = 95
  static let shutdown: UInt32 = 108
}

extension NBDError {
  /// The error number on the wire. Two of them mean something for certain requests only, and stay
  /// EINVAL for all others.
  func number(for request: Request) -> UInt32 {
    switch kind {
    case .notPermitted: ErrorNumber.notPermitted
    case .io: ErrorNumber.io
    case .invalid: ErrorNumber.invalid
    case .noSpace: ErrorNumber.noSpace
    case .overflow: request.type == Command.read ? ErrorNumber.overflow : ErrorNumber.invalid
    case .notSupported:
      request.flags & CommandFlags.fastZero != 0 ? ErrorNumber.notSupported : ErrorNumber.invalid
    case .shuttingDown: ErrorNumber.shutdown
    }
  }
}
