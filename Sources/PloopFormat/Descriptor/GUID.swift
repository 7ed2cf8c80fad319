/// The name of a snapshot, as DiskDescriptor.xml has it: a UUID in braces.
///
/// Two are equal when their bytes are, however their letters were written.
package struct GUID: Hashable, Sendable, CustomStringConvertible {
  private let high: UInt64
  private let low: UInt64

  private init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// The state that is written, which is no snapshot: OpenVZ's tools always call it so.
  package static let top = GUID(high: 0x5FBA_ABE3_6958_40FF, low: 0x92A7_860E_329A_AB41)
  /// The parent of the oldest delta.
  package static let none = GUID(high: 0, low: 0)
  /// The state that Parallels' backups keep for themselves.
  package static let backup = GUID(high: 0x7047_18E1_2314_44C8, low: 0x9087_D78E_D36B_0F4E)

  /// Whether the format gives it a meaning of its own, so that no snapshot may be called so.
  package var isReserved: Bool { self == .top || self == .none || self == .backup }

  /// Reads `{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}`; the braces are part of it.
  package init?(_ text: some StringProtocol) {
    let bytes = Array(text.utf8)
    guard bytes.first == UInt8(ascii: "{"), bytes.last == UInt8(ascii: "}") else { return nil }
    self.init(digits: bytes.dropFirst().dropLast())
  }

  /// Reads what people write, with braces or without.
  package init?(lenient text: String) {
    if text.utf8.first == UInt8(ascii: "{") {
      self.init(text)
    } else {
      self.init(digits: Array(text.utf8)[...])
    }
  }

  private init?(digits bytes: ArraySlice<UInt8>) {
    guard bytes.count == 36 else { return nil }
    var words: (high: UInt64, low: UInt64) = (0, 0)
    for (index, byte) in bytes.enumerated() {
      if [8, 13, 18, 23].contains(index) {
        guard byte == UInt8(ascii: "-") else { return nil }
        continue
      }
      guard let digit = GUID.digit(byte) else { return nil }
      words.high = words.high << 4 | words.low >> 60
      words.low = words.low << 4 | digit
    }
    self.init(high: words.high, low: words.low)
  }

  private static func digit(_ byte: UInt8) -> UInt64? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(byte - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt64(byte - UInt8(ascii: "a")) + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt64(byte - UInt8(ascii: "A")) + 10
    default: nil
    }
  }

  /// A new one (RFC 9562, version 4).
  package static func random(using generator: inout some RandomNumberGenerator) -> GUID {
    let high: UInt64 = generator.next()
    let low: UInt64 = generator.next()
    return GUID(high: high & ~0xF000 | 0x4000, low: low & ~(3 << 62) | 2 << 62)
  }

  package static func random() -> GUID {
    var generator = SystemRandomNumberGenerator()
    return random(using: &generator)
  }

  /// That of a name: always the same one (RFC 9562, version 3, without a namespace).
  package init(named name: String) {
    let words = MD5.digest(Array(name.utf8)[...]).reduce((high: UInt64(0), low: UInt64(0))) {
      ($0.high << 8 | $0.low >> 56, $0.low << 8 | UInt64($1))
    }
    self.init(high: words.high & ~0xF000 | 0x3000, low: words.low & ~(3 << 62) | 2 << 62)
  }

  /// Without braces, for a path.
  package var path: String { String(description.dropFirst().dropLast()) }

  /// In braces and lower case.
  package var description: String {
    let digits = Array("0123456789abcdef")
    var text = "{"
    for index in 0..<32 {
      if [8, 12, 16, 20].contains(index) { text.append("-") }
      let word = index < 16 ? high : low
      text.append(digits[Int(word >> UInt64(60 - 4 * (index % 16)) & 15)])
    }
    return text + "}"
  }
}
