internal import PloopIO

/// The last lines of the log, for who looks at the service from outside.
final class LogTail: Sendable {
  private static let mostLines = 500
  private static let mostCharacters = 2_000

  private let kept = Locked<[String]>([])

  /// Oldest first.
  var lines: [String] { kept.withLock { $0 } }

  func append(_ line: String) {
    let line = String(line.prefix(LogTail.mostCharacters))
    kept.withLock { lines in
      if lines.count == LogTail.mostLines { lines.removeFirst() }
      lines.append(line)
    }
  }
}
