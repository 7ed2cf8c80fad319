internal import PloopControl
internal import PloopFormat
internal import PloopJSON

/// Takes a request's object apart by name; a member that nobody asked for is an error.
struct Fields {
  private var rest: [String: JSON] = [:]
  private let pointer: String

  init(_ value: JSON, at pointer: String = "") throws(Problem) {
    guard case .object(let members) = value else {
      throw Problem("invalid-value", "an object is expected", pointer: pointer)
    }
    self.pointer = pointer
    for member in members { rest[member.name] = member.value }
  }

  private func wrong(_ name: String, _ expected: String) -> Problem {
    Problem(
      "invalid-value", "\(name): \(expected)", pointer: pointer + ServiceError.pointer([name]))
  }

  mutating func json(_ name: String) -> JSON? { rest.removeValue(forKey: name) }

  mutating func text(_ name: String) throws(Problem) -> String? {
    switch json(name) {
    case nil: return nil
    case .string(let text)?: return text
    default: throw wrong(name, "a string is expected")
    }
  }

  /// A text, or null, which removes what was there.
  mutating func removableText(_ name: String) throws(Problem) -> String?? {
    switch json(name) {
    case nil: return nil
    case .null?: return .some(nil)
    case .string(let text)?: return .some(text)
    default: throw wrong(name, "a string or null is expected")
    }
  }

  mutating func requiredText(_ name: String) throws(Problem) -> String {
    guard let text = try text(name) else { throw wrong(name, "is missing") }
    return text
  }

  mutating func flag(_ name: String) throws(Problem) -> Bool? {
    switch json(name) {
    case nil: return nil
    case .bool(let flag)?: return flag
    default: throw wrong(name, "true or false is expected")
    }
  }

  mutating func number(_ name: String) throws(Problem) -> UInt64? {
    switch json(name) {
    case nil: return nil
    case .integer(let number)? where (0...JSON.largestNumber).contains(number):
      return UInt64(number)
    default: throw wrong(name, "a whole number from 0 to 2^53 - 1 is expected")
    }
  }

  mutating func number(
    _ name: String, in range: ClosedRange<UInt64>
  ) throws(Problem) -> UInt64? {
    guard let number = try number(name) else { return nil }
    guard range.contains(number) else {
      throw wrong(
        name, "a whole number from \(range.lowerBound) to \(range.upperBound) is expected")
    }
    return number
  }

  /// A number, or null, which removes what was there.
  mutating func removableNumber(
    _ name: String, in range: ClosedRange<UInt64> = 0...UInt64.max
  ) throws(Problem) -> UInt64?? {
    guard rest[name] != .null else {
      rest[name] = nil
      return .some(nil)
    }
    guard let number = try number(name, in: range) else { return nil }
    return .some(number)
  }

  mutating func numbers(_ name: String) throws(Problem) -> [UInt64]? {
    switch json(name) {
    case nil: return nil
    case .array(let items)?:
      var numbers: [UInt64] = []
      for (index, item) in items.enumerated() {
        guard case .integer(let number) = item, (0...JSON.largestNumber).contains(number) else {
          throw Problem(
            "invalid-value", "\(name): whole numbers from 0 to 2^53 - 1 are expected",
            pointer: pointer + ServiceError.pointer([name, String(index)]))
        }
        numbers.append(UInt64(number))
      }
      return numbers
    default: throw wrong(name, "a list is expected")
    }
  }

  /// A list of texts; nil where it is missing.
  ///
  /// - Parameter isNullable: whether null is as good as missing.
  mutating func texts(_ name: String, orNull isNullable: Bool = false) throws(Problem) -> [String]?
  {
    switch json(name) {
    case nil: return nil
    case .null? where isNullable: return nil
    case .array(let items)?:
      var texts: [String] = []
      for (index, item) in items.enumerated() {
        guard case .string(let text) = item else {
          throw Problem(
            "invalid-value", "\(name): texts are expected",
            pointer: pointer + ServiceError.pointer([name, String(index)]))
        }
        texts.append(text)
      }
      return texts
    default: throw wrong(name, "a list is expected")
    }
  }

  mutating func choice<Choice: RawRepresentable>(
    _ name: String, of type: Choice.Type
  ) throws(Problem) -> Choice? where Choice.RawValue == String {
    guard let text = try text(name) else { return nil }
    guard let choice = Choice(rawValue: text) else { throw wrong(name, "unknown value \(text)") }
    return choice
  }

  /// A GUID, with braces or without.
  mutating func guid(_ name: String) throws(Problem) -> GUID? {
    guard let text = try text(name) else { return nil }
    guard let guid = GUID(lenient: text) else { throw wrong(name, "a GUID is expected") }
    return guid
  }

  mutating func object(_ name: String) throws(Problem) -> Fields? {
    guard let value = json(name) else { return nil }
    return try Fields(value, at: pointer + ServiceError.pointer([name]))
  }

  mutating func objects(_ name: String) throws(Problem) -> [Fields]? {
    switch json(name) {
    case nil: return nil
    case .array(let items)?:
      var fields: [Fields] = []
      for (index, item) in items.enumerated() {
        fields.append(try Fields(item, at: pointer + ServiceError.pointer([name, String(index)])))
      }
      return fields
    default: throw wrong(name, "a list is expected")
    }
  }

  /// Labels: a value that is null removes one, where that is allowed.
  mutating func labels(_ name: String, removable: Bool) throws(Problem) -> [String: String?]? {
    guard let fields = try object(name) else { return nil }
    var labels: [String: String?] = [:]
    for (key, value) in fields.rest {
      switch value {
      case .string(let text): labels[key] = .some(text)
      case .null where removable: labels[key] = .some(nil)
      default: throw wrong(name, "the value of \(key) is no string")
      }
    }
    return labels
  }

  /// Whether everything has been taken.
  var isEmpty: Bool { rest.isEmpty }

  /// Call when everything known has been taken.
  func finish() throws(Problem) {
    guard let name = rest.keys.sorted().first else { return }
    throw Problem(
      "unknown-field", "unknown member \(name)", pointer: pointer + ServiceError.pointer([name]))
  }

  func wrongValue(_ name: String, _ expected: String) -> Problem { wrong(name, expected) }
}
