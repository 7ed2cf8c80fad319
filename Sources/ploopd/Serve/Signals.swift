internal import Glibc

/// The signals that the service knows. They are blocked in every thread and waited for in one, so no
/// handler ever runs in the middle of something.
struct Signals {
  private var set = sigset_t()

  /// Blocks them for this thread and all that it starts: call it before any other thread exists.
  init() {
    sigemptyset(&set)
    sigaddset(&set, SIGTERM)
    sigaddset(&set, SIGINT)
    sigaddset(&set, SIGHUP)
    pthread_sigmask(SIG_BLOCK, &set, nil)
    // Whoever starts it in the background may have them ignored, and ignored ones never come.
    signal(SIGTERM, SIG_DFL)
    signal(SIGINT, SIG_DFL)
    signal(SIGHUP, SIG_DFL)
    // A client that goes away is an error of the send, not the end of the process.
    signal(SIGPIPE, SIG_IGN)
  }

  /// - Returns: the number of the signal that came: one that ends the service, or SIGHUP.
  func wait() -> Int32 {
    var set = set
    var number: Int32 = 0
    while sigwait(&set, &number) != 0 {}
    return number
  }

  static func name(_ number: Int32) -> String { number == SIGINT ? "SIGINT" : "SIGTERM" }
}
