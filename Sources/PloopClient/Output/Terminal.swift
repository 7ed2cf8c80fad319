internal import CLinux
internal import Glibc

/// Who reads what is printed, and how much room there is.
enum Terminal {
  static var showsOutput: Bool { isatty(STDOUT_FILENO) == 1 }
  static var showsErrors: Bool { isatty(STDERR_FILENO) == 1 }
  static var canAnswer: Bool { isatty(STDIN_FILENO) == 1 }

  /// Columns of the terminal that standard output is; nil for none, or one that does not say.
  static var columns: Int? { showsOutput ? columns(of: STDOUT_FILENO) : nil }
  static var errorColumns: Int? { showsErrors ? columns(of: STDERR_FILENO) : nil }

  private static func columns(of number: Int32) -> Int? {
    if let text = environment("COLUMNS"), let count = Int(text), count > 0 { return count }
    let count = Int(clinux_terminal_columns(number))
    return count > 0 ? count : nil
  }

  /// A text without what would be a command to a terminal: names come from files and from other people.
  static func safe(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isControl) else { return text }
    return text.unicodeScalars.reduce(into: "") { out, scalar in
      if isControl(scalar) {
        out += "\\u{\(String(scalar.value, radix: 16))}"
      } else {
        out.unicodeScalars.append(scalar)
      }
    }
  }

  private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
    scalar.value < 0x20 || (0x7F..<0xA0).contains(scalar.value)
      || scalar.properties.generalCategory == .format
  }
}
