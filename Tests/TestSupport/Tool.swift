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
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, output, 1)
    posix_spawn_file_actions_adddup2(&actions, output, 2)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // The threads that tests run on block signals; a program that inherits this cannot be ended.
    var noSignals = sigset_t()
    sigemptyset(&noSignals)
    posix_spawnattr_setsigmask(&attributes, &noSignals)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK))
    var arguments: [UnsafeMutablePointer<CChar>?] = [
      strdup("/bin/bash"), strdup("-c"), strdup(command), nil,
    ]
    defer { arguments.forEach { free($0) } }
    var process: pid_t = 0
    let code = posix_spawn(&process, "/bin/bash", &actions, &attributes, &arguments, environ)
    guard code == 0 else { throw Failure(description: "cannot start: \(command)") }
    var status: Int32 = 0
    let deadline = Deadline.after(seconds: seconds)
    while waitpid(process, &status, WNOHANG) == 0 {
      guard !deadline.hasPassed else {
        kill(-process, SIGKILL)
        waitpid(process, &status, 0)
        throw Failure(description: "not done after \(seconds) s: \(command)")
      }
      poll(nil, 0, 5)
    }
    let text = try read(path)
    let exit = status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + (status & 0x7F)
    guard !check || exit == 0 else {
      throw Failure(description: "exit \(exit) of: \(command)\n\(text)")
    }
    return Result(status: exit, output: text)
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

  package init() throws {
    var template = Array("/tmp/ploopd-test-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Tool.Failure(description: "mkdtemp failed") }
    path = String(
      decoding: template.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }

  deinit { _ = try? Tool.shell("rm -rf '\(path)'") }
}
