internal import PloopIO

/// Something that callers wait to see changed.
package enum Topic: Sendable, Hashable {
  case service
  case device(String)
  case export(String)
  case job(String)
}

/// Where callers wait for a change, each for its own topic. A waiter is a continuation and a
/// deadline; all of them share one thread.
package final class WaitingRoom: Sendable {
  package enum End: Sendable {
    case changed
    case timeout
    /// The service is shutting down.
    case closed
    /// As many wait already as may.
    case full
  }

  private struct Waiter {
    let topic: Topic
    /// Nanoseconds on the monotonic clock.
    let deadline: UInt64
    let continuation: CheckedContinuation<End, Never>
  }

  private struct State {
    var waiters: [UInt64: Waiter] = [:]
    var nextNumber: UInt64 = 0
    /// How often anything has changed.
    var changes: UInt64 = 0
    var isClosed = false

    var soonest: UInt64 { waiters.values.map(\.deadline).min() ?? .max }

    mutating func take(
      where isMeant: (Waiter) -> Bool
    ) -> [CheckedContinuation<End, Never>] {
      let numbers = waiters.filter { isMeant($0.value) }.map(\.key)
      return numbers.compactMap { waiters.removeValue(forKey: $0)?.continuation }
    }
  }

  private let limit: Int
  private let state: Monitor<State>

  /// - Parameter limit: how many may wait at a time.
  init(limit: Int) throws(IOError) {
    self.limit = limit
    let state = Monitor(State())
    self.state = state
    try Thread(name: "ploopd-waiting", stackBytes: 128 << 10) { WaitingRoom.run(state) }.detach()
  }

  deinit { close() }

  /// Wakes those whose time is up, until the room is closed.
  private static func run(_ state: Monitor<State>) {
    while true {
      let soonest = state.withLock { $0.soonest }
      let now = monotonicNanoseconds()
      let left = soonest > now ? (soonest - now) / 1_000_000 + 1 : 0
      let deadline = soonest == .max ? Deadline.never : .after(milliseconds: Int(clamping: left))
      // It ends before its time when the room is closed, or when somebody comes who waits less long.
      let isClosed = state.wait(until: deadline) { state -> Bool? in
        state.isClosed ? true : state.soonest != soonest ? false : nil
      }
      if isClosed == true { return }
      let late = state.withLock { $0.take { $0.deadline <= monotonicNanoseconds() } }
      late.forEach { $0.resume(returning: .timeout) }
    }
  }

  /// How often anything has changed. Ask for it before looking at what may have to be waited for.
  var changes: UInt64 { state.withLock { $0.changes } }

  /// Waits for the topic's next change.
  ///
  /// - Parameters:
  ///   - changes: what ``changes`` was before the caller looked. If something has changed since, the
  ///     end is `changed` at once, whatever it was: look again.
  func wait(for topic: Topic, since changes: UInt64, milliseconds: Int) async -> End {
    let deadline = monotonicNanoseconds() + UInt64(clamping: milliseconds) * 1_000_000
    return await withCheckedContinuation { continuation in
      let end = state.update { state -> End? in
        if state.isClosed { return .closed }
        if state.changes != changes { return .changed }
        if state.waiters.count >= limit { return .full }
        state.waiters[state.nextNumber] = Waiter(
          topic: topic, deadline: deadline, continuation: continuation)
        state.nextNumber += 1
        return nil
      }
      if let end { continuation.resume(returning: end) }
    }
  }

  /// Wakes those who wait for one of the topics. Call it when the change can be seen.
  func changed(_ topics: Set<Topic>) {
    let waiting = state.update { state in
      state.changes += 1
      return state.take { topics.contains($0.topic) }
    }
    waiting.forEach { $0.resume(returning: .changed) }
  }

  /// Sends everybody away, and lets nobody in any more.
  func close() {
    let waiting = state.update { state in
      state.isClosed = true
      return state.take { _ in true }
    }
    waiting.forEach { $0.resume(returning: .closed) }
  }

  /// How many wait now.
  var count: Int { state.withLock { $0.waiters.count } }
}

extension Service {
  package var changes: UInt64 { waiting.changes }

  package func change(
    of topic: Topic, since changes: UInt64, milliseconds: Int
  ) async -> WaitingRoom.End {
    await waiting.wait(for: topic, since: changes, milliseconds: milliseconds)
  }
}
