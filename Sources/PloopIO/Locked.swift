internal import Glibc

/// The mutex of a ``Locked`` or a ``Monitor``; in debug builds it sees to the order of locks (``LockOrder``).
private struct OrderedMutex {
  let mutex: UnsafeMutablePointer<pthread_mutex_t>
  #if DEBUG
    let lockClass: LockClass

    init(_ lockClass: LockClass) {
      self.lockClass = lockClass
      mutex = OrderedMutex.make()
    }
  #else
    init() { mutex = OrderedMutex.make() }
  #endif

  private static func make() -> UnsafeMutablePointer<pthread_mutex_t> {
    let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    mutex.initialize(to: pthread_mutex_t())
    pthread_mutex_init(mutex, nil)
    return mutex
  }

  func destroy() {
    pthread_mutex_destroy(mutex)
    mutex.deallocate()
  }

  @inline(__always)
  func lock() {
    #if DEBUG
      LockOrder.take(lockClass)
    #endif
    pthread_mutex_lock(mutex)
  }

  @inline(__always)
  func unlock() {
    pthread_mutex_unlock(mutex)
    #if DEBUG
      LockOrder.giveBack(lockClass)
    #endif
  }
}

/// A value behind a mutex, both in one allocation.
///
/// Why not `Synchronization.Mutex`: on this toolchain it collapses to tens of microseconds per lock
/// as soon as threads outnumber cores (docs/decisions/0002-own-locks.md). The value lives behind a
/// pointer, so that no access pays for dynamic exclusivity checking.
package final class Locked<Value>: @unchecked Sendable {
  private let mutex: OrderedMutex
  private let value: UnsafeMutablePointer<Value>

  #if DEBUG
    /// Where it is made is its class in the order of locks.
    package init(
      _ initial: sending Value, fileID: StaticString = #fileID, line: UInt = #line
    ) {
      mutex = OrderedMutex(LockClass(fileID: fileID, line: line))
      value = .allocate(capacity: 1)
      value.initialize(to: initial)
    }
  #else
    package init(_ initial: sending Value) {
      mutex = OrderedMutex()
      value = .allocate(capacity: 1)
      value.initialize(to: initial)
    }
  #endif

  deinit {
    mutex.destroy()
    value.deinitialize(count: 1)
    value.deallocate()
  }

  /// Runs `body` with the mutex held. Never call into another lock's owner from it.
  package func withLock<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    mutex.lock()
    defer { mutex.unlock() }
    return try body(&value.pointee)
  }
}

/// A value behind a mutex with a condition: threads can wait until it has some shape.
package final class Monitor<Value>: @unchecked Sendable {
  private let mutex: OrderedMutex
  private let condition: UnsafeMutablePointer<pthread_cond_t>
  private let value: UnsafeMutablePointer<Value>

  #if DEBUG
    /// Where it is made is its class in the order of locks.
    package init(
      _ initial: sending Value, fileID: StaticString = #fileID, line: UInt = #line
    ) {
      mutex = OrderedMutex(LockClass(fileID: fileID, line: line))
      condition = makeCondition()
      value = .allocate(capacity: 1)
      value.initialize(to: initial)
    }
  #else
    package init(_ initial: sending Value) {
      mutex = OrderedMutex()
      condition = makeCondition()
      value = .allocate(capacity: 1)
      value.initialize(to: initial)
    }
  #endif

  deinit {
    pthread_cond_destroy(condition)
    condition.deallocate()
    mutex.destroy()
    value.deinitialize(count: 1)
    value.deallocate()
  }

  /// Looks at or changes the value without waking anybody.
  package func withLock<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    mutex.lock()
    defer { mutex.unlock() }
    return try body(&value.pointee)
  }

  /// Changes the value and wakes every waiter to look again.
  package func update<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    mutex.lock()
    defer {
      pthread_cond_broadcast(condition)
      mutex.unlock()
    }
    return try body(&value.pointee)
  }

  /// Changes the value and wakes one waiter, for changes that any one of them can take up.
  package func hand<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    mutex.lock()
    defer {
      pthread_cond_signal(condition)
      mutex.unlock()
    }
    return try body(&value.pointee)
  }

  /// Asks `body` again after each change until it answers, or until the deadline has passed.
  ///
  /// - Returns: what `body` answered, or nil when the deadline came first.
  package func wait<Result>(
    until deadline: Deadline = .never, _ body: (inout Value) -> Result?
  ) -> Result? {
    mutex.lock()
    defer { mutex.unlock() }
    while true {
      if let result = body(&value.pointee) { return result }
      guard let time = deadline.monotonic else {
        pthread_cond_wait(condition, mutex.mutex)
        continue
      }
      var until = time
      if pthread_cond_timedwait(condition, mutex.mutex, &until) == ETIMEDOUT {
        return body(&value.pointee)
      }
    }
  }
}

private func makeCondition() -> UnsafeMutablePointer<pthread_cond_t> {
  let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  condition.initialize(to: pthread_cond_t())
  var attributes = pthread_condattr_t()
  pthread_condattr_init(&attributes)
  // Deadlines must not move when somebody sets the clock.
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
  pthread_cond_init(condition, &attributes)
  pthread_condattr_destroy(&attributes)
  return condition
}
