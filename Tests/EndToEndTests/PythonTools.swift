import TestSupport

/// The Python programs that scripts/install-python has installed.
enum PythonTools {
  static let root = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
  static func path(_ name: String) -> String { "\(root)/.venv/bin/\(name)" }
}
