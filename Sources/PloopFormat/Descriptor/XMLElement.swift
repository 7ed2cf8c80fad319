/// An element of an XML file: either a text or other elements are in it.
package struct XMLElement: Equatable, Sendable {
  package struct Attribute: Equatable, Sendable {
    package var name: String
    package var value: String
  }

  package var name: String
  package var attributes: [Attribute] = []
  /// What stands in an element without children, as it is.
  package var text = ""
  package var children: [XMLElement] = []
  /// Where it begins in the file that it was read from, counted from 1; 0 for a new one.
  package var line = 0

  package init(_ name: String, _ text: String = "") {
    self.name = name
    self.text = text
  }

  package init(_ name: String, children: [XMLElement]) {
    self.name = name
    self.children = children
  }

  /// Two elements are equal wherever they stand.
  package static func == (left: XMLElement, right: XMLElement) -> Bool {
    left.name == right.name && left.attributes == right.attributes && left.text == right.text
      && left.children == right.children
  }

  /// The whole file, in the form of OpenVZ's tools: two spaces for each level, `<a/>` for nothing.
  package var file: [UInt8] {
    var text = "<?xml version=\"1.0\"?>\n"
    write(to: &text, depth: 0)
    return Array(text.utf8)
  }

  private func write(to output: inout String, depth: Int) {
    let indent = String(repeating: "  ", count: depth)
    output += "\(indent)<\(name)"
    for attribute in attributes {
      output += " \(attribute.name)=\"\(XMLElement.escaped(attribute.value, inAttribute: true))\""
    }
    if !children.isEmpty {
      output += ">\n"
      for child in children { child.write(to: &output, depth: depth + 1) }
      output += "\(indent)</\(name)>\n"
    } else if text.isEmpty {
      output += "/>\n"
    } else {
      output += ">\(XMLElement.escaped(text, inAttribute: false))</\(name)>\n"
    }
  }

  /// White space is escaped too where a reader would change it.
  private static func escaped(_ text: String, inAttribute: Bool) -> String {
    var output = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "&": output += "&amp;"
      case "<": output += "&lt;"
      case ">": output += "&gt;"
      case "\"": output += "&quot;"
      case "\r": output += "&#13;"
      case "\t" where inAttribute, "\n" where inAttribute: output += "&#\(scalar.value);"
      default: output.unicodeScalars.append(scalar)
      }
    }
    return output
  }
}
