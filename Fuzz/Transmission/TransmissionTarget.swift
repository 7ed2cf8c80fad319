internal import PloopNBD

/// The requests of an NBD client that has entered. Input: which disk, and how headers are laid out; then what it says.
struct TransmissionTarget {
  private let server: FuzzServer

  init() throws { server = try FuzzServer(.off) }

  func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let choice = head.byte()
    let entry = Self.entry(
      Array("fsr".utf8)[Int(choice) % 3], isStructured: choice & 16 != 0,
      isExtended: choice & 32 != 0, hasContexts: choice & 64 != 0)
    let heard = try server.converse(entry + head.body)
    try promise(heard.count > 18, "nobody got in")
    try server.check()
  }

  private static func entry(
    _ name: UInt8, isStructured: Bool, isExtended: Bool, hasContexts: Bool
  ) -> [UInt8] {
    var bytes = bigEndian(UInt32(3))
    if isExtended {
      bytes += option(11, [])
    } else if isStructured {
      bytes += option(8, [])
    }
    if hasContexts {
      let query = Array("base:allocation".utf8)
      let query2 = Array("qemu:allocation-depth".utf8)
      bytes += option(
        10,
        bigEndian(UInt32(1)) + [name] + bigEndian(UInt32(2)) + bigEndian(UInt32(query.count))
          + query
          + bigEndian(UInt32(query2.count)) + query2)
    }
    return bytes + option(7, bigEndian(UInt32(1)) + [name] + bigEndian(UInt16(0)))
  }

  private static func option(_ number: UInt32, _ data: [UInt8]) -> [UInt8] {
    Array("IHAVEOPT".utf8) + bigEndian(number) + bigEndian(UInt32(data.count)) + data
  }

  private static func bigEndian(_ number: some FixedWidthInteger) -> [UInt8] {
    littleEndian(number).reversed()
  }
}
