/// Reads JSON strictly: valid UTF-8, no key twice, bounded depth and lists, nothing behind the value.
package struct JSONParser {
  /// How much of a value is read before it is called too much.
  package struct Limits: Sendable {
    package let depth: Int
    package let items: Int

    package init(depth: Int, items: Int) {
      self.depth = depth
      self.items = items
    }

    /// Those of the contract, for what a client sends.
    package static let request = Limits(depth: 32, items: 65_536)
  }

  private let bytes: [UInt8]
  private let limits: Limits
  private var position = 0
  /// Member names and indices on the way to where the parser is.
  private var path: [String] = []

  package static func parse(
    _ bytes: [UInt8], _ limits: Limits = .request
  ) throws(JSONFault) -> JSON {
    guard String(validating: bytes, as: UTF8.self) != nil else {
      throw JSONFault(.malformed, "the body is not UTF-8")
    }
    var parser = JSONParser(bytes: bytes, limits: limits)
    let value = try parser.value()
    parser.skipSpace()
    guard parser.position == bytes.count else { throw parser.malformed("text behind the value") }
    return value
  }

  private init(bytes: [UInt8], limits: Limits) {
    self.bytes = bytes
    self.limits = limits
  }

  private func malformed(_ what: String) -> JSONFault {
    JSONFault(.malformed, "\(what) at byte \(position)")
  }

  private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D {
      position += 1
    }
  }

  private mutating func take(_ character: Character) -> Bool {
    guard let ascii = character.asciiValue, next == ascii else { return false }
    position += 1
    return true
  }

  private mutating func value() throws(JSONFault) -> JSON {
    skipSpace()
    switch next {
    case UInt8(ascii: "{"): return try object()
    case UInt8(ascii: "["): return try array()
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    default: return try number()
    }
  }

  private mutating func word(_ text: String, _ value: JSON) throws(JSONFault) -> JSON {
    guard bytes[position...].starts(with: text.utf8) else { throw malformed("no JSON value") }
    position += text.utf8.count
    return value
  }

  private func checkDepth() throws(JSONFault) {
    guard path.count < limits.depth else {
      throw JSONFault(
        .nestedTooDeeply, "nested too deeply at byte \(position): \(limits.depth) levels")
    }
  }

  private mutating func object() throws(JSONFault) -> JSON {
    try checkDepth()
    position += 1
    var members: [JSON.Member] = []
    var names: Set<String> = []
    skipSpace()
    if take("}") { return .object([]) }
    while true {
      skipSpace()
      guard next == UInt8(ascii: "\"") else { throw malformed("no member name") }
      let name = try string()
      path.append(name)
      guard names.insert(name).inserted else {
        throw JSONFault(.duplicateKey, "the member \(name) is there twice", path: path)
      }
      skipSpace()
      guard take(":") else { throw malformed("no colon") }
      members.append(JSON.Member(name: name, value: try value()))
      path.removeLast()
      skipSpace()
      if take("}") { return .object(members) }
      guard take(",") else { throw malformed("no comma") }
    }
  }

  private mutating func array() throws(JSONFault) -> JSON {
    try checkDepth()
    position += 1
    var values: [JSON] = []
    skipSpace()
    if take("]") { return .array([]) }
    while true {
      guard values.count < limits.items else {
        throw JSONFault(.tooManyItems, "too many items at byte \(position): \(limits.items)")
      }
      path.append(String(values.count))
      values.append(try value())
      path.removeLast()
      skipSpace()
      if take("]") { return .array(values) }
      guard take(",") else { throw malformed("no comma") }
    }
  }

  private mutating func number() throws(JSONFault) -> JSON {
    let start = position
    func isDigit(_ byte: UInt8?) -> Bool { byte.map { (0x30...0x39).contains($0) } ?? false }
    _ = take("-")
    guard isDigit(next) else { throw malformed("no JSON value") }
    if !take("0") { while isDigit(next) { position += 1 } }
    guard !isDigit(next) else { throw malformed("a number with a leading zero") }
    if take(".") {
      guard isDigit(next) else { throw malformed("no digit behind the point") }
      while isDigit(next) { position += 1 }
    }
    if take("e") || take("E") {
      if !take("+") { _ = take("-") }
      guard isDigit(next) else { throw malformed("no digit in the exponent") }
      while isDigit(next) { position += 1 }
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    if let integer = Int64(text) { return .integer(integer) }
    guard let number = Double(text), number.isFinite else { throw malformed("a number too large") }
    // JSON Schema: 66.0 is an integer.
    if let integer = Int64(exactly: number), integer.magnitude <= JSON.largestNumber.magnitude {
      return .integer(integer)
    }
    return .number(number)
  }

  private mutating func string() throws(JSONFault) -> String {
    position += 1
    var text: [UInt8] = []
    while let byte = next {
      position += 1
      switch byte {
      case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
      case UInt8(ascii: "\\"): try escape(into: &text)
      case 0..<0x20: throw malformed("a control character in a string")
      default: text.append(byte)
      }
    }
    throw malformed("a string without end")
  }

  private mutating func escape(into text: inout [UInt8]) throws(JSONFault) {
    guard let byte = next else { throw malformed("a string without end") }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
    case UInt8(ascii: "b"): text.append(8)
    case UInt8(ascii: "f"): text.append(12)
    case UInt8(ascii: "n"): text.append(10)
    case UInt8(ascii: "r"): text.append(13)
    case UInt8(ascii: "t"): text.append(9)
    case UInt8(ascii: "u"):
      var code = try hex()
      if (0xD800..<0xDC00).contains(code) {
        guard take("\\"), take("u") else { throw malformed("half a surrogate pair") }
        let low = try hex()
        guard (0xDC00..<0xE000).contains(low) else { throw malformed("half a surrogate pair") }
        code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
      }
      guard let scalar = Unicode.Scalar(code) else { throw malformed("half a surrogate pair") }
      text += String(Character(scalar)).utf8
    default: throw malformed("an unknown escape")
    }
  }

  private mutating func hex() throws(JSONFault) -> UInt32 {
    guard bytes.count - position >= 4,
      let code = UInt32(
        String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16),
      next != UInt8(ascii: "+"), next != UInt8(ascii: "-")
    else { throw malformed("no four hexadecimal digits") }
    position += 4
    return code
  }
}
