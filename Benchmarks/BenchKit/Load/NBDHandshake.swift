internal import Glibc
internal import PloopIO

/// A client that has entered an export: a socket, and what the server said about the disk.
final class NBDClient: Sendable {
  let socket: OwnedDescriptor
  let sizeBytes: UInt64
  let structuredReplies: Bool

  /// Fixed newstyle, GO; block sizes are not asked for, so no server demands any.
  init(_ address: NBDAddress, structuredReplies: Bool) throws(BenchFailure) {
    let socket = try address.connect()
    // A server that hangs is an error, not a benchmark that never ends.
    var patience = timeval(tv_sec: 60, tv_usec: 0)
    setsockopt(
      socket.number, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    var room: Int32 = 1 << 20
    for option in [SO_SNDBUF, SO_RCVBUF] {
      setsockopt(socket.number, SOL_SOCKET, option, &room, socklen_t(MemoryLayout<Int32>.size))
    }
    let stream = HandshakeStream(number: socket.number)
    guard try stream.number(UInt64.self) == NBDWire.greeting,
      try stream.number(UInt64.self) == NBDWire.option,
      try stream.number(UInt16.self) & 1 != 0
    else { throw BenchFailure("not a fixed newstyle server: \(address.uri)") }
    // Fixed newstyle, no zeroes.
    try stream.send(bigEndianBytes(UInt32(3)))
    var structured = false
    if structuredReplies {
      try stream.option(8, [])
      structured = try stream.reply().kind == 1
    }
    let name = Array(address.export.utf8)
    try stream.option(7, bigEndianBytes(UInt32(name.count)) + name + bigEndianBytes(UInt16(0)))
    var size: UInt64?
    while true {
      let (kind, data) = try stream.reply()
      if kind == 1 { break }
      guard kind == 3 else {
        throw BenchFailure(
          "\(address.uri) refused: \(String(kind, radix: 16)) \(String(decoding: data, as: UTF8.self))"
        )
      }
      if data.count >= 10, data[0] == 0, data[1] == 0 {
        size = data[2..<10].reduce(0) { $0 << 8 | UInt64($1) }
      }
    }
    guard let size else { throw BenchFailure("\(address.uri) told no size") }
    self.socket = socket
    sizeBytes = size
    self.structuredReplies = structured
  }
}

/// Whole messages over a blocking socket, both for clients and for the null server.
struct HandshakeStream {
  let number: Int32

  func send(_ bytes: [UInt8]) throws(BenchFailure) {
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.send(number, $0.baseAddress.map { $0 + done }, $0.count - done, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { throw BenchFailure(IOError.last("send", "socket").description) }
      done += count
    }
  }

  func bytes(_ count: Int) throws(BenchFailure) -> [UInt8] {
    guard count <= 1 << 20 else { throw BenchFailure("the peer announces \(count) bytes") }
    var result = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let got = result.withUnsafeMutableBytes {
        recv(number, $0.baseAddress.map { $0 + done }, count - done, 0)
      }
      guard got > 0 else {
        throw BenchFailure(
          got == 0 ? "the peer hung up" : IOError.last("recv", "socket").description)
      }
      done += got
    }
    return result
  }

  func number<Number: FixedWidthInteger>(_: Number.Type) throws(BenchFailure) -> Number {
    try bytes(MemoryLayout<Number>.size).reduce(0) { $0 << 8 | Number(truncatingIfNeeded: $1) }
  }

  func option(_ kind: UInt32, _ data: [UInt8]) throws(BenchFailure) {
    try send(
      bigEndianBytes(NBDWire.option) + bigEndianBytes(kind) + bigEndianBytes(UInt32(data.count))
        + data)
  }

  func reply() throws(BenchFailure) -> (kind: UInt32, data: [UInt8]) {
    guard try number(UInt64.self) == NBDWire.optionReply else {
      throw BenchFailure("the server's reply to an option has another magic")
    }
    _ = try number(UInt32.self)
    let kind = try number(UInt32.self)
    return (kind, try bytes(Int(try number(UInt32.self))))
  }
}
