internal import Glibc
internal import PloopIO
internal import PloopTerminal

/// Ctrl-C: the program ends, and says what goes on without it.
enum Interruption {
  private static let words = Locked<String?>(nil)

  /// What is said then; nil for nothing.
  static func say(_ text: String?) { words.withLock { $0 = text } }

  /// Has a thread wait for SIGINT, so that no handler runs in the middle of something. Call it before any other
  /// thread exists.
  static func begin() {
    var set = sigset_t()
    sigemptyset(&set)
    sigaddset(&set, SIGINT)
    pthread_sigmask(SIG_BLOCK, &set, nil)
    // Whoever starts it in the background may have it ignored, and what is ignored never comes.
    signal(SIGINT, SIG_DFL)
    // A service that goes away is an error of the send, not the end of the process.
    signal(SIGPIPE, SIG_IGN)
    _ = try? Thread(name: "interruption") {
      var set = sigset_t()
      sigemptyset(&set)
      sigaddset(&set, SIGINT)
      var number: Int32 = 0
      while sigwait(&set, &number) != 0 {}
      if let text = words.withLock({ $0 }) { writeToStandardError("\nploopctl: \(text)\n") }
      _exit(Outcome.interrupted.rawValue)
    }
  }
}
