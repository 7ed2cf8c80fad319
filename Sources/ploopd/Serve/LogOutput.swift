internal import FoundationEssentials
internal import Glibc
internal import Logging

/// Log lines on standard error: for people, or one JSON object a line for machines.
struct LogOutput: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel: Logger.Level
  private let asJSON: Bool
  private let tail: LogTail

  /// - Parameter tail: keeps the last lines.
  init(level: Logger.Level, asJSON: Bool, tail: LogTail) {
    logLevel = level
    self.asJSON = asJSON
    self.tail = tail
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let all = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
      .map { ($0.key, "\($0.value)") }
    let time = Date().formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    var line =
      asJSON
      ? LogOutput.json(
        [("time", time), ("level", event.level.rawValue), ("message", "\(event.message)")] + all)
      : ([time, event.level.rawValue, "\(event.message)"]
        + all.map { "\($0.0)=\(LogOutput.quoted($0.1))" }).joined(separator: " ")
    tail.append(line)
    line += "\n"
    // One call a line, so that lines of different threads never mix.
    line.withUTF8 { bytes in _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
  }

  /// As it is where that is one word, else in quotes: nothing that a client sends can forge a line.
  private static func quoted(_ text: String) -> String {
    let isWord = !text.isEmpty && text.utf8.allSatisfy { $0 > 0x20 && $0 != 0x22 && $0 != 0x7F }
    return isWord ? text : string(text)
  }

  private static func json(_ members: [(String, String)]) -> String {
    "{\(members.map { "\(string($0.0)):\(string($0.1))" }.joined(separator: ","))}"
  }

  private static func string(_ text: String) -> String {
    guard let bytes = try? JSONEncoder().encode(text) else { return "\"\"" }
    return String(decoding: bytes, as: UTF8.self)
  }
}
