internal import Glibc
internal import PloopHTTP
internal import PloopIO
internal import PloopJSON
internal import PloopTerminal

/// Shows on stderr how far something has come, some times a second.
struct ProgressBar {
  enum Style {
    /// One line for people that is written over.
    case bar
    /// A JSON object a line, for programs.
    case lines
  }

  private static let pauseNanoseconds: UInt64 = 100_000_000
  private static let width: UInt64 = 40

  private let style: Style
  private let title: String
  private let isShown: Bool
  private var shownAt: UInt64 = 0
  private var isLineOpen = false

  /// - Parameter isForced: whether to show it where nobody may be looking, too.
  init(isForced: Bool, style: Style, title: String) {
    self.style = style
    self.title = title
    isShown = isForced || (style == .bar && isatty(STDERR_FILENO) == 1)
  }

  mutating func show(_ done: UInt64, of total: UInt64) {
    let now = monotonicNanoseconds()
    guard isShown, done == total || now - shownAt >= ProgressBar.pauseNanoseconds else { return }
    shownAt = now
    switch style {
    case .bar:
      isLineOpen = true
      let share = total == 0 ? 1 : Double(done) / Double(total)
      let filled = Int(share * Double(ProgressBar.width))
      let bar =
        String(repeating: "#", count: filled)
        + String(repeating: ".", count: Int(ProgressBar.width) - filled)
      writeToStandardError("\r\(title) [\(bar)] \(Int(share * 100)) %")
    case .lines:
      let line = JSON.members(["done_bytes": .count(done), "total_bytes": .count(total)])
      writeToStandardError(String(decoding: line.encoded, as: UTF8.self) + "\n")
    }
  }

  /// Leaves the last bar standing on a line of its own.
  mutating func end() {
    guard isLineOpen else { return }
    isLineOpen = false
    writeToStandardError("\n")
  }
}
