internal import CLinux
internal import Glibc

/// A POSIX thread with a name and a bounded stack. A peer that has gone is an error of what it sends, as of sendfile,
/// which cannot be told so: SIGPIPE is blocked here, whatever the process does with it.
package struct Thread: @unchecked Sendable {
  /// Short turns: whoever has a lot to do here does not hold up whoever has a little, at the price of
  /// more changes between them when processors are short (docs/performance.md, "Neighbours").
  private static let turnNanoseconds: UInt64 = 200_000

  private let handle: pthread_t

  private final class Start {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }

  /// - Parameters:
  ///   - name: at most 15 bytes are shown by the system.
  ///   - stackBytes: address space kept for the stack; only what is touched costs memory.
  /// - Throws: `IOError` when the system has no room for another thread.
  package init(
    name: String, stackBytes: Int = 512 << 10, _ body: @escaping @Sendable () -> Void
  ) throws(IOError) {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setstacksize(&attributes, stackBytes)
    defer { pthread_attr_destroy(&attributes) }
    let start = Unmanaged.passRetained(Start(name: name, body: body))
    var handle = pthread_t()
    let code = pthread_create(
      &handle, &attributes,
      { argument in
        guard let argument else { return nil }
        let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
        clinux_name_thread(start.name)
        clinux_shorten_turns(Thread.turnNanoseconds)
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGPIPE)
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        start.body()
        return nil
      }, start.toOpaque())
    guard code == 0 else {
      start.release()
      throw IOError("pthread_create", path: name, code: code)
    }
    self.handle = handle
  }

  package func join() { pthread_join(handle, nil) }

  package func detach() { pthread_detach(handle) }
}
