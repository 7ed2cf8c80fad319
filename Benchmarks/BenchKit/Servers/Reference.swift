internal import TestSupport

/// Bare programs in C that show what a machine can do (Benchmarks/reference).
enum Reference {
  /// - Parameters:
  ///   - options: of the compiler, such as libraries.
  ///   - folder: where the program is made.
  /// - Returns: its path.
  static func compile(_ name: String, _ options: String, in folder: String) throws -> String {
    let source =
      "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
      + "/reference/\(name).c"
    let program = "\(folder)/\(name)"
    try Tool.shell("cc -O2 -o '\(program)' '\(source)' \(options)")
    return program
  }
}
