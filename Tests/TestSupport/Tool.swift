internal import Glibc
internal import PloopIO

/// Runs programs that judge our files and our protocol. A missing one is an error, never a skip.
package enum Tool {
  package struct Result: Sendable {
    package let status: Int32
    package let output: String
  }

  package struct Failure: Error, CustomStringConvertible {
    package let description: String
    package init(description: String) { self.description = description }
  }

  /// Runs a command line by the shell and waits for it; output and errors come together.
  ///
  /// - Throws: when it does not end in time (its whole process group is killed then), or, with
  ///   `check`, when it fails.
  @discardableResult
  package static func shell(
    _ command: String, check: Bool = true, seconds: Int = 60
  ) throws -> Result {
    var template = Array("/tmp/ploopd-tool-XXXXXX".utf8CString)
    let output = mkstemp(&template)
    guard output >= 0 else { throw Failure(description: "mkstemp failed") }
    let path = String(
      decoding: template.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    defer {
      close(output)
      unlink(path)
    }
    let process = try ChildProcess(["/bin/bash", "-c", command], output: path, errors: path)
    let exit: Int32
    do { exit = try process.wait(seconds: seconds) } catch {
      throw Failure(description: "\(error): \(command)")
    }
    let text = try read(path)
    guard !check || exit == 0 else {
      throw Failure(description: "exit \(exit) of: \(command)\n\(text)")
    }
    return Result(status: exit, output: text)
  }

  /// Runs a Python program, with libnbd's module at hand, and waits for it.
  @discardableResult
  package static func python(
    _ program: String, _ arguments: [String] = [], seconds: Int = 120
  ) throws -> Result {
    let quoted = arguments.map { "'\($0)'" }.joined(separator: " ")
    return try shell(
      "/usr/bin/python3 - \(quoted) <<'END-OF-PROGRAM'\n\(program)\nEND-OF-PROGRAM\n",
      seconds: seconds)
  }

  /// Waits until a text stands as often as is wanted in a file that another process writes.
  package static func awaitText(_ text: String, in file: String, times count: Int = 1) throws {
    let deadline = Deadline.after(seconds: 120)
    while try read(file).ranges(of: text).count < count {
      guard !deadline.hasPassed else {
        throw Failure(description: "\(file) does not say \(text):\n\(try read(file))")
      }
      // Between two looks, not instead of one.
      poll(nil, 0, 10)
    }
  }

  private static func read(_ path: String) throws -> String {
    let number = open(path, O_RDONLY)
    guard number >= 0 else { throw Failure(description: "cannot read \(path)") }
    defer { close(number) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = Glibc.read(number, &chunk, chunk.count)
      guard count > 0 else { break }
      bytes += chunk[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// A folder of a test's own, removed with everything in it.
package final class TemporaryFolder: Sendable {
  package let path: String

  package init(beneath parent: String = "/tmp") throws {
    var template = Array("\(parent)/ploopd-test-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Tool.Failure(description: "mkdtemp failed") }
    path = String(
      decoding: template.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }

  deinit { _ = try? Tool.shell("rm -rf '\(path)'") }
}
