import Logging
import PloopIO
import TestSupport

@testable import PloopHTTP

/// A server before a service without disks, on a Unix socket and on TCP.
final class LiveServer: Sendable {
  enum Door: CaseIterable { case unix, tcp }

  let service: FakeService
  let server: HTTPServer
  let watchers: EventWatchers
  let log = LogLines()
  let folder: TemporaryFolder
  private let unix: ListeningSocket
  private let tcp: ListeningSocket

  init(
    _ made: FakeService? = nil, limits: HTTPLimits = HTTPLimits(),
    watchers: EventWatchers = EventWatchers(), access: AccessControl = .local()
  ) throws {
    service = try made ?? FakeService()
    folder = try TemporaryFolder()
    self.watchers = watchers
    let log = log
    server = try HTTPServer(
      Router(service, access: access, watchers: watchers),
      logger: Logger(label: "http") { _ in log },
      limits: limits)
    unix = try ListeningSocket.unix(path: "\(folder.path)/http.sock")
    tcp = try ListeningSocket.tcp(host: "127.0.0.1", port: 0)
    try server.listen(on: unix)
    try server.listen(on: tcp)
  }

  deinit {
    service.gate.open()
    server.stop(until: .after(seconds: 600))
  }

  func socket(_ door: Door) -> ListeningSocket { door == .unix ? unix : tcp }

  func client(_ door: Door = .unix, seconds: Int = 20) throws -> RawClient {
    try RawClient(socket(door), seconds: seconds)
  }

  /// Sends one request on a connection of its own.
  func ask(_ request: String, _ door: Door = .unix) throws -> RawClient.Reply? {
    let client = try client(door)
    client.send(request)
    return client.reply()
  }

  /// curl's output for a path, behind its options.
  func curl(_ options: String, _ path: String, _ door: Door = .unix) throws -> String {
    let place =
      door == .unix
      ? "--unix-socket '\(unix.address)' 'http://localhost\(path)'"
      : "'http://\(tcp.address)\(path)'"
    return try Tool.shell("curl -sS --max-time 30 \(options) \(place)").output
  }
}

/// Keeps what is logged.
struct LogLines: LogHandler {
  struct Line: Sendable {
    let level: Logger.Level
    let metadata: Logger.Metadata
  }

  let lines = Monitor<[Line]>([])
  var metadata: Logger.Metadata = [:]
  var logLevel = Logger.Level.trace

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let line = Line(level: event.level, metadata: event.metadata ?? [:])
    lines.update { $0.append(line) }
  }

  /// The first line about a request with this id, as soon as there is one.
  func line(of requestID: String) -> Line? {
    lines.wait(until: .after(seconds: 600)) { lines in
      lines.first { $0.metadata["request_id"] == .string(requestID) }
    }
  }
}
