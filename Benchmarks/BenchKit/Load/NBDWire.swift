internal import Glibc

/// The numbers of the NBD protocol that a load needs (proto.md of NetworkBlockDevice/nbd), apart
/// from the server's own, so that both cannot share a mistake.
enum NBDWire {
  static let greeting: UInt64 = 0x4E42_444D_4147_4943
  static let option: UInt64 = 0x4948_4156_454F_5054
  static let optionReply: UInt64 = 0x0003_E889_0455_65A9
  static let request: UInt32 = 0x2560_9513
  static let simpleReply: UInt32 = 0x6744_6698
  static let chunk: UInt32 = 0x668E_33EF
  static let requestBytes = 28

  enum Command {
    static let read: UInt16 = 0
    static let write: UInt16 = 1
    static let disconnect: UInt16 = 2
    static let trim: UInt16 = 4
    static let writeZeroes: UInt16 = 6
  }

  /// Writes the header of a request.
  static func put(
    _ target: UnsafeMutableRawPointer, command: UInt16, cookie: UInt64, offset: UInt64,
    length: UInt32
  ) {
    target.storeBytes(of: request.bigEndian, as: UInt32.self)
    target.storeBytes(of: 0, toByteOffset: 4, as: UInt16.self)
    target.storeBytes(of: command.bigEndian, toByteOffset: 6, as: UInt16.self)
    target.storeBytes(of: cookie, toByteOffset: 8, as: UInt64.self)
    target.storeBytes(of: offset.bigEndian, toByteOffset: 16, as: UInt64.self)
    target.storeBytes(of: length.bigEndian, toByteOffset: 24, as: UInt32.self)
  }
}

extension UnsafeRawPointer {
  func big16(_ offset: Int) -> UInt16 {
    UInt16(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }
  func big32(_ offset: Int) -> UInt32 {
    UInt32(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }
  func big64(_ offset: Int) -> UInt64 {
    UInt64(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
}

/// Big-endian numbers for the handshake, where nobody counts nanoseconds.
func bigEndianBytes<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
  withUnsafeBytes(of: number.bigEndian) { Array($0) }
}
