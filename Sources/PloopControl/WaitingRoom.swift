internal import PloopIO
internal import Synchronization

/// Something that callers wait to see changed.
package enum Topic: Sendable, Hashable {
  case service
  case device(String)
  case export(String)
  case job(String)
  case target(String)
  /// What the tracking of a device has to hand out.
  case tracking(String)
  /// What the push backup of a device has to be done.
  case pushBackup(String)
  /// Anything that makes an event.
  case events
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
    /// The waiting task was cancelled: nobody waits for its answer any more.
    case gone
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
    var isClosed = false

    var counted: Int { waiters.values.count { $0.topic != .events } }

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
  /// How often anything has changed; raised with the state locked, and asked for by every request.
  private let changeCount = Atomic<UInt64>(0)

  /// - Parameter limit: how many may wait at a time. Those who wait for events are counted where they
  ///   come in, and not here: whoever is let in to listen is never sent away from here.
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
  var changes: UInt64 { changeCount.load(ordering: .acquiring) }

  /// Waits for the topic's next change.
  ///
  /// - Parameters:
  ///   - changes: what ``changes`` was before the caller looked. If something has changed since, the
  ///     end is `changed` at once, whatever it was: look again.
  func wait(for topic: Topic, since changes: UInt64, milliseconds: Int) async -> End {
    let deadline = monotonicNanoseconds() + UInt64(clamping: milliseconds) * 1_000_000
    let number = state.withLock { state in
      state.nextNumber += 1
      return state.nextNumber
    }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let end = state.update { state -> End? in
          if state.isClosed { return .closed }
          if self.changes != changes { return .changed }
          if topic != .events, state.counted >= limit { return .full }
          state.waiters[number] = Waiter(
            topic: topic, deadline: deadline, continuation: continuation)
          return nil
        }
        if let end { continuation.resume(returning: end) }
        // Cancelled before it was in the room: the handler did not find it there.
        if Task.isCancelled { leave(number) }
      }
    } onCancel: {
      leave(number)
    }
  }

  private func leave(_ number: UInt64) {
    let waiter = state.update { $0.waiters.removeValue(forKey: number) }
    waiter?.continuation.resume(returning: .gone)
  }

  /// Wakes those who wait for one of the topics. Call it when the change can be seen.
  func changed(_ topics: Set<Topic>) {
    let waiting = state.update { state in
      changeCount.wrappingAdd(1, ordering: .releasing)
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
