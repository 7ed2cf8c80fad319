/// Builds messages: big-endian numbers and bytes, one behind the other.
struct MessageWriter {
  private(set) var bytes: [UInt8] = []

  mutating func append<Number: FixedWidthInteger>(_ number: Number) {
    for shift in stride(from: Number.bitWidth - 8, through: 0, by: -8) {
      bytes.append(UInt8(truncatingIfNeeded: number >> Number(shift)))
    }
  }

  mutating func append(_ more: [UInt8]) { bytes += more }
}

/// Takes messages apart; nothing is read beyond the end.
struct MessageReader {
  private let bytes: [UInt8]
  private var position = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var remaining: Int { bytes.count - position }

  mutating func number<Number: FixedWidthInteger>(_: Number.Type) -> Number? {
    let size = Number.bitWidth / 8
    guard remaining >= size else { return nil }
    defer { position += size }
    return bytes[position..<position + size].reduce(0) { $0 << 8 | Number($1) }
  }

  mutating func bytes(_ count: Int) -> [UInt8]? {
    guard count >= 0, remaining >= count else { return nil }
    defer { position += count }
    return Array(bytes[position..<position + count])
  }
}

extension String {
  /// UTF-8 as the wire has it: no NUL, at most `limit` bytes, no character cut in two.
  func wireBytes(limit: Int) -> [UInt8] {
    let all = utf8.filter { $0 != 0 }
    guard all.count > limit else { return all }
    var end = limit
    while end > 0, all[end] & 0xC0 == 0x80 { end -= 1 }
    return Array(all[..<end])
  }
}
