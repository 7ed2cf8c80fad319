internal import Foundation
internal import Glibc
internal import PloopIO

/// The service as its users have it: the built program, in a folder of the test's own.
///
/// It listens on Unix sockets only, unless a test asks for more. Whatever a test does, the process
/// is gone when this object is.
package final class RunningService: @unchecked Sendable {
  package struct Reply: Sendable {
    package let status: Int
    package let text: String

    /// Of a reply that is a JSON object.
    package var json: [String: Any] {
      (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any] ?? [:]
    }
    package var code: String? { json["code"] as? String }
  }

  package static let program = builtProgram("ploopd")

  /// A program next to the one that runs: built by the same build.
  package static func builtProgram(_ name: String) -> String {
    var path = [CChar](repeating: 0, count: 4096)
    let count = readlink("/proc/self/exe", &path, path.count - 1)
    let own = String(
      decoding: path.prefix(max(0, count)).map(UInt8.init(bitPattern:)), as: UTF8.self)
    return (own.lastIndex(of: "/").map { String(own[..<$0]) } ?? ".") + "/\(name)"
  }

  package let folder: String
  package var images: String { "\(folder)/images" }
  package var httpSocket: String { "\(folder)/api.sock" }
  package var nbdSocket: String { "\(folder)/nbd.sock" }
  package var logFile: String { "\(folder)/log" }
  private let program: String
  private let arguments: [String]
  private var child: ChildProcess?

  /// Where it listens for HTTP over TCP, as it says in its log; for a service that was given port 0.
  package func httpAddress() throws -> String { try address("http") }

  /// The same for NBD.
  package func nbdAddress() throws -> String { try address("nbd") }

  private func address(_ what: String) throws -> String {
    let line = try Tool.shell("grep -o '\(what)=[^ ]*' '\(logFile)' | tail -n 1").output
    guard let address = line.split(separator: ",").last?.split(separator: "\n").first else {
      throw Tool.Failure(description: "no address in: \(line)")
    }
    return String(address)
  }

  package var process: Int32 { child?.number ?? 0 }

  /// Starts the service and waits until it is ready.
  ///
  /// - Parameters:
  ///   - folder: a folder whose `images` is the root `main`; it may hold what an earlier service left.
  ///   - program: another build than the one that belongs to this program.
  package init(
    in folder: String, _ extra: [String] = [], httpListen: String = "none",
    nbdListen: String = "none", awaitReady: Bool = true,
    program: String = RunningService.program, logLevel: String = "debug"
  ) throws {
    self.folder = folder
    self.program = program
    arguments =
      [
        "serve", "--state-dir", "\(folder)/state", "--root", "main=\(folder)/images",
        "--http-socket", "\(folder)/api.sock", "--nbd-socket", "\(folder)/nbd.sock",
        "--http-listen", httpListen, "--nbd-listen", nbdListen, "--log-level", logLevel,
      ] + (IndexBudget.bytes.map { ["--index-cache-size", "\($0)"] } ?? []) + extra
    try Tool.shell("mkdir -p '\(folder)/images' '\(folder)/state'")
    try start(awaitReady: awaitReady)
  }

  /// Starts it again, after it has ended.
  package func start(awaitReady: Bool = true) throws {
    let process = try ChildProcess(
      [program] + arguments, output: "/dev/null", errors: logFile)
    child = process
    guard awaitReady else { return }
    let deadline = Deadline.after(seconds: 60)
    while (try? get("/readyz"))?.status != 200 {
      guard !deadline.hasPassed, process.isRunning else {
        throw Tool.Failure(
          description:
            "the service did not become ready:\n\(try Tool.shell("cat '\(logFile)'").output)")
      }
      poll(nil, 0, 10)
    }
  }

  // MARK: HTTP, by curl

  package func get(_ path: String) throws -> Reply { try call("GET", path) }
  package func delete(_ path: String) throws -> Reply { try call("DELETE", path) }
  package func post(_ path: String, _ body: String, _ headers: [String] = []) throws -> Reply {
    try call("POST", path, body, headers)
  }
  package func patch(_ path: String, _ body: String) throws -> Reply {
    try call("PATCH", path, body)
  }

  /// - Parameter headers: further ones, each as it stands in the request.
  package func call(
    _ method: String, _ path: String, _ body: String? = nil, _ headers: [String] = []
  ) throws -> Reply {
    var command =
      "curl -sS --max-time 90 --unix-socket '\(httpSocket)' -X \(method) -w '\\n%{http_code}' 'http://localhost\(path)'"
    if let body {
      command += " -H 'Content-Type: application/json' --data-binary '\(body)'"
    }
    for header in headers { command += " -H '\(header)'" }
    let output: String
    do { output = try Tool.shell(command, seconds: 100).output } catch {
      throw Tool.Failure(description: "\(error); \(condition)")
    }
    guard let newline = output.lastIndex(of: "\n"),
      let status = Int(output[output.index(after: newline)...])
    else { throw Tool.Failure(description: "no answer to \(method) \(path): \(output)") }
    return Reply(status: status, text: String(output[..<newline]))
  }

  /// Attaches images, oldest first, with an export of the device's name.
  @discardableResult
  package func attach(_ id: String, _ paths: [String], _ more: String = "") throws -> Reply {
    let deltas = paths.map { "{\"path\":\"\($0)\"}" }.joined(separator: ",")
    return try post(
      "/v1/devices",
      "{\"id\":\"\(id)\",\"deltas\":[\(deltas)],\"export\":{\"name\":\"\(id)\"}\(more)}")
  }

  /// Makes a disk in a folder of its id, with an export of the same name.
  ///
  /// - Parameter more: further members of the request.
  @discardableResult
  package func create(
    _ id: String, sizeBytes: Int, clusterBytes: Int = 1 << 20, _ more: String = ""
  ) throws -> Reply {
    try post(
      "/v1/devices",
      "{\"id\":\"\(id)\",\"create\":{\"directory\":\"\(id)\",\"size\":\(sizeBytes),\"cluster_size\":\(clusterBytes)},\"export\":{\"name\":\"\(id)\"}\(more)}"
    )
  }

  package func uri(_ export: String) -> String { "nbd+unix:///\(export)?socket=\(nbdSocket)" }

  // MARK: The end

  /// Ends it by a signal and waits.
  ///
  /// - Returns: its exit status; 128 and the signal's number where a signal ended it.
  package func end(by signal: Int32 = SIGTERM, seconds: Int = 60) throws -> Int32 {
    child?.signal(signal)
    return try waitForExit(seconds: seconds)
  }

  package func waitForExit(seconds: Int = 60) throws -> Int32 {
    guard let child else { throw Tool.Failure(description: "the service was never started") }
    return try child.wait(seconds: seconds)
  }

  package func signal(_ number: Int32) { child?.signal(number) }

  /// Whether it runs, or with what it has ended, and what it said last: for whoever gets no answer.
  package var condition: String {
    let state =
      child.map { $0.isRunning ? "runs" : "has ended with \((try? $0.wait(seconds: 1)) ?? -1)" }
      ?? "was never started"
    let said = (try? Tool.shell("tail -n 12 '\(logFile)'", check: false).output) ?? ""
    return "the service \(state), and said:\n\(said)"
  }

  /// Ends it as a crash of the process does.
  package func kill() { child?.end() }
}
