/// What things may be called: names that need no quoting in a path, a URI or a shell.
package enum Names {
  static let lengthLimit = 63
  static let labelLimit = 64
  static let labelLengthLimit = 255

  /// `^[a-z0-9][a-z0-9._-]{0,62}$`
  package static func isValid(_ name: String) -> Bool {
    let bytes = Array(name.utf8)
    guard let first = bytes.first, bytes.count <= lengthLimit, isAlphanumeric(first) else {
      return false
    }
    return bytes.allSatisfy { isAlphanumeric($0) || ".-_".utf8.contains($0) }
  }

  static func require(_ name: String, as what: String, pointer: String) throws(ServiceError) {
    guard !isValid(name) else { return }
    throw ServiceError(
      .invalidValue,
      "\(what) \"\(name.prefix(80))\" is no name: 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
      pointer: pointer)
  }

  static func require(labels: [String: String]) throws(ServiceError) {
    guard labels.count <= labelLimit else {
      throw ServiceError(
        .invalidValue, "\(labels.count) labels; \(labelLimit) are the most", pointer: "/labels")
    }
    for (name, value) in labels {
      guard !name.isEmpty, name.characterCount <= labelLengthLimit,
        value.characterCount <= labelLengthLimit
      else {
        throw ServiceError(
          .invalidValue, "a label's name and value have at most \(labelLengthLimit) characters",
          pointer: ServiceError.pointer(["labels", name]))
      }
    }
  }

  private static func isAlphanumeric(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
      || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }
}

extension String {
  /// Characters as the contract counts them (JSON Schema, `maxLength`): code points, however many bytes
  /// each has.
  package var characterCount: Int { unicodeScalars.count }
}
