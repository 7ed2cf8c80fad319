/// Reads the little of XML that descriptors have, and refuses the rest: somebody else's descriptor
/// must cost no more than its own size, and reach nothing outside of itself.
///
/// There are elements, attributes, texts, comments, the five predefined entities and numeric ones.
/// There are no document types, so no entity can be defined; no processing instructions but the
/// declaration, no CDATA sections, no encoding but UTF-8, no text between elements.
package struct XMLReader {
  package enum Limits {
    package static let bytes = 1 << 20
    package static let depth = 16
    package static let elements = 16_384
    package static let attributes = 16
  }

  private let bytes: [UInt8]
  private var position = 0
  private var elements = 0
  /// Lines are counted as far as this position.
  private var counted = 0
  private var line = 1

  private init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// The root element of a file.
  ///
  /// - Throws: `descriptor-invalid`, with the line.
  package static func read(_ file: [UInt8]) throws(DescriptorError) -> XMLElement {
    guard file.count <= Limits.bytes else {
      throw DescriptorError(
        .invalid, "it has \(file.count) bytes; \(Limits.bytes) are the most")
    }
    guard String(validating: file, as: UTF8.self) != nil else {
      throw DescriptorError(.invalid, "it is not in UTF-8")
    }
    var reader = XMLReader(file)
    reader.skip("\u{FEFF}")
    try reader.readDeclaration()
    try reader.skipBetweenElements()
    guard reader.next == UInt8(ascii: "<") else { throw reader.fault("no element begins here") }
    let root = try reader.readElement(depth: 1)
    try reader.skipBetweenElements()
    guard reader.next == nil else { throw reader.fault("something follows the root element") }
    return root
  }

  // MARK: Structure

  private mutating func readDeclaration() throws(DescriptorError) {
    guard skip("<?xml") else { return }
    var declaration = XMLElement("xml")
    try readAttributes(of: &declaration)
    guard skip("?>") else { throw fault("the declaration does not end") }
    for attribute in declaration.attributes where attribute.name == "encoding" {
      guard ["utf-8", "us-ascii"].contains(attribute.value.lowercased()) else {
        throw fault("the encoding is \(attribute.value.prefix(40)); only UTF-8 is read")
      }
    }
  }

  private mutating func readElement(depth: Int) throws(DescriptorError) -> XMLElement {
    elements += 1
    guard depth <= Limits.depth else {
      throw fault("elements are nested more than \(Limits.depth) deep")
    }
    guard elements <= Limits.elements else {
      throw fault("there are more than \(Limits.elements) elements")
    }
    let start = currentLine()
    guard !looksAt("<!") else {
      throw fault("document types and CDATA sections have no place in a descriptor")
    }
    guard !looksAt("<?") else {
      throw fault("processing instructions have no place in a descriptor")
    }
    guard skip("<") else { throw fault("no element begins here") }
    var element = XMLElement(try readName())
    element.line = start
    try readAttributes(of: &element)
    if skip("/>") { return element }
    guard skip(">") else { throw fault("the tag <\(element.name)> does not end") }
    try readContent(of: &element, depth: depth)
    guard skip("</"), try readName() == element.name else {
      throw fault("<\(element.name)> of line \(start) is not closed here")
    }
    skipSpace()
    guard skip(">") else { throw fault("the tag </\(element.name)> does not end") }
    return element
  }

  private mutating func readContent(
    of element: inout XMLElement, depth: Int
  ) throws(DescriptorError) {
    var text = ""
    while true {
      text += try readText(until: UInt8(ascii: "<"))
      guard next != nil else {
        throw fault("the file ends inside <\(element.name)> of line \(element.line)")
      }
      if try skipComment() { continue }
      if looksAt("</") { break }
      element.children.append(try readElement(depth: depth + 1))
    }
    guard !element.children.isEmpty else {
      element.text = text
      return
    }
    guard text.utf8.allSatisfy(XMLReader.isSpace) else {
      throw fault("<\(element.name)> has text between its elements")
    }
  }

  private mutating func readAttributes(of element: inout XMLElement) throws(DescriptorError) {
    while true {
      let hadSpace = skipSpace()
      guard let byte = next, XMLReader.beginsName(byte) else { return }
      guard hadSpace else { throw fault("white space is missing before an attribute") }
      let name = try readName()
      skipSpace()
      guard skip("=") else { throw fault("the attribute \(name) has no value") }
      skipSpace()
      guard let quote = next, quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'") else {
        throw fault("the value of the attribute \(name) is not in quotes")
      }
      position += 1
      let value = try readText(until: quote)
      guard next == quote else { throw fault("the value of the attribute \(name) does not end") }
      position += 1
      guard !element.attributes.contains(where: { $0.name == name }) else {
        throw fault("the attribute \(name) is there twice")
      }
      guard element.attributes.count < Limits.attributes else {
        throw fault("an element has more than \(Limits.attributes) attributes")
      }
      element.attributes.append(XMLElement.Attribute(name: name, value: value))
    }
  }

  // MARK: Characters

  /// Text up to a character that ends it, or to the end of the file; a `<` ends every text.
  private mutating func readText(until end: UInt8) throws(DescriptorError) -> String {
    var text: [UInt8] = []
    while let byte = next, byte != end, byte != UInt8(ascii: "<") {
      if byte == UInt8(ascii: "&") {
        text += Array(String(try readReference()).utf8)
        continue
      }
      guard byte >= 0x20 || XMLReader.isSpace(byte) else {
        throw fault("the character \(byte) is allowed in no XML")
      }
      position += 1
      // Ends of lines are one character, however they were written (XML 1.0, 2.11).
      guard byte == UInt8(ascii: "\r") else {
        text.append(byte)
        continue
      }
      if next != UInt8(ascii: "\n") { text.append(UInt8(ascii: "\n")) }
    }
    return String(decoding: text, as: UTF8.self)
  }

  private static let entities: [String: Unicode.Scalar] = [
    "amp": "&", "lt": "<", "gt": ">", "quot": "\"", "apos": "'",
  ]

  private mutating func readReference() throws(DescriptorError) -> Unicode.Scalar {
    let rest = bytes[(position + 1)...].prefix(12)
    guard let end = rest.firstIndex(of: UInt8(ascii: ";")) else {
      throw fault("an & begins no entity")
    }
    let name = String(decoding: rest[..<end], as: UTF8.self)
    if let scalar = XMLReader.entities[name] {
      position = end + 1
      return scalar
    }
    guard name.hasPrefix("#") else {
      throw fault("the entity &\(name); is not defined, and none can be")
    }
    let isHexadecimal = name.hasPrefix("#x")
    let digits = name.dropFirst(isHexadecimal ? 2 : 1)
    guard digits.utf8.first != UInt8(ascii: "+"), digits.utf8.first != UInt8(ascii: "-"),
      let value = UInt32(digits, radix: isHexadecimal ? 16 : 10),
      let scalar = Unicode.Scalar(value), value >= 0x20 || [9, 10, 13].contains(value),
      value != 0xFFFE, value != 0xFFFF
    else { throw fault("&\(name); is no character") }
    position = end + 1
    return scalar
  }

  private mutating func readName() throws(DescriptorError) -> String {
    let start = position
    while let byte = next, XMLReader.beginsName(byte) || (position > start && byte.isNameDigit) {
      position += 1
    }
    guard position > start else { throw fault("a name is expected here") }
    guard position - start <= 255 else { throw fault("a name has more than 255 characters") }
    return String(decoding: bytes[start..<position], as: UTF8.self)
  }

  private static func beginsName(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
      || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ":")
  }

  private static func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0A, 0x0D].contains(byte) }

  private mutating func skipBetweenElements() throws(DescriptorError) {
    repeat { skipSpace() } while try skipComment()
  }

  private mutating func skipComment() throws(DescriptorError) -> Bool {
    guard skip("<!--") else { return false }
    while next != nil {
      if skip("-->") { return true }
      guard let byte = next, byte >= 0x20 || XMLReader.isSpace(byte) else {
        throw fault("a comment has a character that is allowed in no XML")
      }
      position += 1
    }
    throw fault("a comment does not end")
  }

  @discardableResult
  private mutating func skipSpace() -> Bool {
    let start = position
    while let byte = next, XMLReader.isSpace(byte) { position += 1 }
    return position > start
  }

  private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

  private func looksAt(_ text: String) -> Bool {
    bytes[position...].starts(with: text.utf8)
  }

  @discardableResult
  private mutating func skip(_ text: String) -> Bool {
    guard looksAt(text) else { return false }
    position += text.utf8.count
    return true
  }

  // MARK: Places

  private mutating func currentLine() -> Int {
    line += bytes[counted..<position].count { $0 == UInt8(ascii: "\n") }
    counted = position
    return line
  }

  private mutating func fault(_ detail: String) -> DescriptorError {
    DescriptorError(.invalid, "line \(currentLine()): \(detail)")
  }
}

extension UInt8 {
  /// What a name may go on with, but not begin with.
  fileprivate var isNameDigit: Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self)
      || self == UInt8(ascii: "-") || self == UInt8(ascii: ".")
  }
}
