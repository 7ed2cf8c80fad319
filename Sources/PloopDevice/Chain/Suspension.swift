internal import PloopIO
internal import Synchronization

/// Whether a disk is suspended. It is changed under a lock that is held while requests drain, which may
/// take long, and looked at without it: who only wants to know never waits.
final class Suspension: Sendable {
  private let lock = Locked(false)
  private let seen = Atomic<Bool>(false)
  private let closing = Atomic<Bool>(false)

  /// Whether it is suspended, or about to be: requests that come now wait.
  var isSuspended: Bool { seen.load(ordering: .acquiring) }

  /// From now on it is about to be; the end of ``withLock(_:)`` tells whether it has become so.
  func foretell() { seen.store(true, ordering: .releasing) }

  /// Whether the disk is being closed, or has been: what is changed behind that would be in files of somebody else's.
  var isClosing: Bool { closing.load(ordering: .acquiring) }

  /// From now on it is. Called with the lock held: nobody who has not seen ``isClosing`` changes anything under it.
  func close() { closing.store(true, ordering: .releasing) }

  func withLock<Result, Failure: Error>(
    _ body: (inout Bool) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try lock.withLock { isSuspended throws(Failure) in
      defer { seen.store(isSuspended, ordering: .releasing) }
      return try body(&isSuspended)
    }
  }
}
