internal import Glibc
internal import PloopTerminal

/// Asks before something is done that cannot be undone.
enum Question {
  /// - Parameter isAnswered: whether yes was said on the command line.
  /// - Throws: `declined` for anything but a yes.
  static func ask(_ text: String, isAnswered: Bool) throws(ClientFault) {
    guard !isAnswered else { return }
    guard Terminal.canAnswer else {
      throw ClientFault(
        .declined, "\(text) Nobody can be asked: --yes answers it, --dry-run only shows.")
    }
    writeToStandardError("\(text) [y/N] ")
    guard let answer = readLine(), ["y", "yes"].contains(answer.lowercased()) else {
      throw ClientFault(.declined, "nothing was done")
    }
  }
}
