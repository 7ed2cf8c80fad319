internal import CNBD
internal import Glibc
internal import PloopIO

/// Somebody else's NBD server on a Unix socket. It ends with this object.
package final class ForeignServer {
  private static let patienceSeconds = 120

  package let uri: String
  private let words: [String]
  private var process: ChildProcess
  private let folder: TemporaryFolder
  private let socket: String

  /// - Parameters:
  ///   - place: the path of the socket, which ends with its test's folder; nil for one of its own.
  ///   - words: gets the path of the socket.
  private init(at place: String? = nil, _ words: (_ socket: String) -> [String]) throws {
    folder = try TemporaryFolder()
    socket = place ?? "\(folder.path)/socket"
    uri = "nbd+unix:///?socket=\(socket)"
    self.words = words(socket)
    process = try ChildProcess(
      self.words, output: "\(folder.path)/log", errors: "\(folder.path)/log")
    try awaitGreeting()
  }

  /// Starts it again, after it has been killed, at the same address.
  package func restart() throws {
    try Tool.shell("rm -f '\(socket)'")
    process = try ChildProcess(
      words, output: "\(folder.path)/log", errors: "\(folder.path)/log")
    try awaitGreeting()
  }

  private func awaitGreeting() throws {
    let deadline = Deadline.after(seconds: Self.patienceSeconds)
    while access(socket, F_OK) != 0 || !Self.greets(uri) {
      guard process.isRunning, !deadline.hasPassed else {
        throw Tool.Failure(description: "the server does not start: \(try log())")
      }
      poll(nil, 0, 5)
    }
  }

  private static func greets(_ uri: String) -> Bool {
    guard let handle = nbd_create() else { return false }
    defer { nbd_close(handle) }
    // That it has no export of this name is an answer, too.
    return nbd_connect_uri(handle, uri) == 0 || nbd_get_errno() == ENOENT
  }

  /// `qemu-nbd` with a file, or whatever the options say.
  package static func qemu(
    _ path: String, _ options: [String] = ["-f", "raw"], at place: String? = nil
  ) throws -> ForeignServer {
    try ForeignServer(at: place) { socket in
      ["/usr/bin/qemu-nbd", "-t", "-e", "8", "--discard=unmap", "-k", socket] + options + [path]
    }
  }

  /// `nbdkit` with a plugin and its parameters, options and filters before it.
  package static func nbdkit(_ words: [String], at place: String? = nil) throws -> ForeignServer {
    try ForeignServer(at: place) { socket in ["/usr/bin/nbdkit", "-f", "-U", socket] + words }
  }

  /// What it has said so far.
  package func log() throws -> String { try Tool.shell("cat '\(folder.path)/log'").output }

  /// Ends it as a crash does.
  package func kill() { process.end() }

  package func halt() { process.signal(SIGSTOP) }
}
