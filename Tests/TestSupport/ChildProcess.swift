package import Glibc
internal import PloopIO

/// A program that a test has started. Whatever the test does, it ends with this object, and so does
/// everything that it has started itself.
package final class ChildProcess: @unchecked Sendable {
  /// Its own process group's number too; 0 once it has ended.
  package private(set) var number: pid_t = 0

  /// - Parameters:
  ///   - output: files for standard output and standard error; they are appended to.
  package init(_ words: [String], output: String, errors: String) throws {
    guard let program = words.first else { throw Tool.Failure(description: "no program") }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    let flags = O_WRONLY | O_CREAT | O_APPEND
    posix_spawn_file_actions_addopen(&actions, 1, output, flags, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, errors, flags, 0o600)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK))
    // Threads of the test runner block SIGTERM; a program that inherited that could not be ended.
    var mask = sigset_t()
    sigemptyset(&mask)
    posix_spawnattr_setsigmask(&attributes, &mask)
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { arguments.forEach { free($0) } }
    let code = posix_spawn(&number, program, &actions, &attributes, &arguments, environ)
    guard code == 0 else {
      number = 0
      throw Tool.Failure(
        description:
          "cannot start (\(String(cString: strerror(code)))): \(words.joined(separator: " "))")
    }
  }

  deinit { end() }

  package var isRunning: Bool { number > 0 && status() == nil }

  package func signal(_ signal: Int32) { if number > 0 { kill(number, signal) } }

  /// - Returns: its exit status, or 128 and the number of the signal that ended it.
  /// - Throws: when it has not ended in time; then it is ended as ``end()`` does.
  package func wait(seconds: Int) throws -> Int32 {
    let deadline = Deadline.after(seconds: seconds)
    while true {
      if let status = status() { return status }
      guard !deadline.hasPassed else {
        end()
        throw Tool.Failure(description: "not done after \(seconds) s")
      }
      poll(nil, 0, 5)
    }
  }

  /// Ends it as a crash does, with everything that it has started.
  package func end() {
    guard number > 0 else { return }
    kill(-number, SIGKILL)
    waitpid(number, nil, 0)
    number = 0
  }

  private var ended: Int32?

  private func status() -> Int32? {
    if let ended { return ended }
    var status: Int32 = 0
    guard number > 0, waitpid(number, &status, WNOHANG) == number else { return nil }
    number = 0
    ended = status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + (status & 0x7F)
    return ended
  }
}
