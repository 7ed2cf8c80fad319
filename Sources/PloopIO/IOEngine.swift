internal import Synchronization

/// Where slow work goes: cold reads, copy-on-write, flushes, waits. One engine serves all disks.
///
/// Reads that only wait for a disk go through a ``ReadLane``, to a ring of the kernel's where there
/// are rings; everything else runs on threads.
///
/// Threads start when work waits and nobody is idle, up to a limit, and end after a while without
/// work, so an idle service owns none.
package final class IOEngine: Sendable {
  package static let defaultThreadLimit = 64
  private static let idleMilliseconds = 10_000

  private struct State {
    var work = TurnQueue<@Sendable () -> Void>()
    var threads = 0
    var idle = 0
    /// Threads that wait for somebody outside of this service.
    var aside = 0
    var stopping = false
  }

  private let threadLimit: Int
  private let lastParty = Atomic<UInt64>(1 << 63)
  private let state = Monitor(State())
  /// Whether reads may use rings.
  package let hasRings: Bool

  /// - Parameter rings: whether to use rings; found out when nil.
  package init(threadLimit: Int = IOEngine.defaultThreadLimit, rings: Bool? = nil) {
    precondition(threadLimit > 0)
    self.threadLimit = threadLimit
    hasRings = rings ?? IOEngine.ringsExist
  }

  /// Runs `work` on one of the engine's threads. Those for whom it does so take turns, so that who submits much
  /// has the others wait for a piece of it, not for all; what one submits earlier starts earlier.
  ///
  /// - Parameter party: for whom: the number of a connection, or one of its own (``newParty()``); 0 is the service itself.
  package func submit(for party: UInt64 = 0, _ work: @escaping @Sendable () -> Void) {
    let start = state.hand { state -> Bool in
      state.work.append(work, of: party)
      return needsThread(&state)
    }
    if start { startThread() }
  }

  /// The number of a party that is no connection: nobody else has it.
  package func newParty() -> UInt64 { lastParty.wrappingAdd(1, ordering: .relaxed).newValue }

  /// Runs `body`, which waits for somebody outside of this service, on one of the engine's threads:
  /// another one may be started in its place, so that however many wait, the work goes on.
  package func aside<Result>(_ body: () -> Result) -> Result {
    let start = state.withLock { state -> Bool in
      state.aside += 1
      return needsThread(&state)
    }
    if start { startThread() }
    defer { state.withLock { $0.aside -= 1 } }
    return body()
  }

  /// Whether work waits that nobody will take; counts the thread that is to be started then.
  private func needsThread(_ state: inout State) -> Bool {
    guard state.work.count > state.idle, state.threads - state.aside < threadLimit
    else { return false }
    state.threads += 1
    return true
  }

  private func startThread() {
    do {
      try Thread(name: "ploopd-io") { [self] in run() }.detach()
    } catch {
      // No room for another thread: the ones that run will take the work. With none at all, this
      // caller does it, which delays one connection and loses nothing.
      let alone = state.withLock { state -> Bool in
        state.threads -= 1
        return state.threads == 0
      }
      while alone, let next = state.withLock({ $0.work.popFirst() }) { next() }
    }
  }

  private func run() {
    while true {
      state.withLock { $0.idle += 1 }
      // Taking work and no longer being idle are one step, or a submitter would count on a thread
      // that has just become busy.
      let next: (@Sendable () -> Void)?? = state.wait(
        until: .after(milliseconds: IOEngine.idleMilliseconds)
      ) { state -> (@Sendable () -> Void)?? in
        guard let next = state.work.popFirst() else {
          return state.stopping ? .some(nil) : nil
        }
        state.idle -= 1
        return .some(next)
      }
      if let work = next ?? nil {
        work()
        continue
      }
      // Nothing came in time, or the engine stops; look once more before leaving.
      let last = state.update { state -> (@Sendable () -> Void)? in
        state.idle -= 1
        if let next = state.work.popFirst() { return next }
        state.threads -= 1
        return nil
      }
      guard let last else { return }
      last()
    }
  }

  /// Lets the work that was submitted end, then every thread, and waits for them.
  package func stop(until deadline: Deadline) {
    state.update { $0.stopping = true }
    _ = state.wait(until: deadline) { $0.threads == 0 ? true : nil }
  }
}
