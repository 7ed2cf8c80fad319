import PloopIO
import PloopNBD
import TestSupport

/// A server over disks in memory, on a Unix socket in a folder of its own and on a free TCP port.
final class LiveServer {
  let folder: TemporaryFolder
  let path: String
  let port: UInt16
  let directory: MemoryDirectory
  let server: Server<MemoryDirectory>
  private let engine: IOEngine

  init(
    _ doors: [(String, MemoryExport)], limits: Limits = Limits(), security: Security = .none,
    observer: ClientObserver? = nil, threads: Int = IOEngine.defaultThreadLimit
  ) throws {
    engine = IOEngine(threadLimit: threads)
    folder = try TemporaryFolder()
    path = "\(folder.path)/nbd.sock"
    directory = MemoryDirectory(doors)
    server = Server(directory: directory, engine: engine, limits: limits, observer: observer)
    try server.listen(on: .unix(path: path), security: security)
    let tcp = try ListeningSocket.tcp(host: "127.0.0.1", port: 0)
    port = tcp.port
    try server.listen(on: tcp, security: security)
  }

  func uri(_ name: String) -> String { "nbd+unix:///\(name)?socket=\(path)" }

  func client() throws -> RawClient { try RawClient(path) }

  /// A client in transmission.
  func client(
    of name: String, style: RawClient.Style = .structured, status: Bool = false,
    contexts: [String] = []
  ) throws -> RawClient {
    let client = try RawClient(path)
    let contexts = status ? ["base:allocation"] : contexts
    guard client.enter(name, style: style, contexts: contexts) else {
      throw Tool.Failure(description: "cannot enter \(name)")
    }
    return client
  }

  /// Runs a Python script with `uri` set; `fails(call, errno)` asserts that the call does.
  func python(_ script: String, uri name: String, seconds: Int = 60) throws {
    try Tool.shell(
      """
      /usr/bin/python3 - <<'END'
      import errno, nbd
      uri = '\(uri(name))'
      def fails(call, number):
          try: call()
          except nbd.Error as e: assert e.errnum == number, (e, number)
          else: raise AssertionError('no error')
      \(script)
      END
      """, seconds: seconds)
  }

  deinit {
    server.stop(until: .after(seconds: 10))
    engine.stop(until: .after(seconds: 10))
  }
}

/// Waits until something is the case, at most two minutes.
func becomes(_ isSo: () throws -> Bool) rethrows -> Bool {
  let deadline = Deadline.after(seconds: 120)
  let never = Monitor(())
  while try !isSo() {
    if deadline.hasPassed { return false }
    _ = never.wait(until: .after(milliseconds: 2)) { _ -> Bool? in nil }
  }
  return true
}

extension Server {
  /// - Returns: whether no client of the export is left.
  func disconnectClients(of name: [UInt8], until deadline: Deadline) -> Bool {
    endClients(of: name)
    return waitForClientsLeaving(of: name, until: deadline)
  }
}
