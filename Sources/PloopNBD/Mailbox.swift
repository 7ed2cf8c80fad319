internal import PloopIO
internal import Synchronization

/// A reply, laid out in memory, and the memory that its request was granted.
struct Reply: Sendable {
  let region: ByteRegion
  let charge: Int
}

/// Where slow work of one connection leaves its replies, and what bounds it.
///
/// The connection's thread begins slow work, takes its replies and sends them; whoever carries it out
/// only puts the reply here and rings the bell, so a client that does not read never holds a thread.
final class Mailbox: Sendable {
  private struct State {
    var replies: [Reply] = []
    /// When each that runs was begun, oldest first, in nanoseconds of the monotonic clock.
    var begun: [UInt64] = []
    /// Whether the owner is about to take what is here.
    var isCollecting = false
  }

  let bell: Bell
  private let state = Monitor(State())
  /// Begun and not taken yet; the connection's thread alone changes it, and asks it all the time.
  private let outstanding = Atomic<Int>(0)

  init() throws(IOError) { bell = try Bell() }

  /// - Returns: what ``end(_:begunAt:)`` has to be told.
  func begin() -> UInt64 {
    outstanding.wrappingAdd(1, ordering: .relaxed)
    let now = monotonicNanoseconds()
    state.withLock { $0.begun.append(now) }
    return now
  }

  func end(_ reply: Reply, begunAt start: UInt64) {
    let isNews = state.update { state in
      state.replies.append(reply)
      if let index = state.begun.firstIndex(of: start) { state.begun.remove(at: index) }
      // Whoever takes one reply takes all: the bell has been rung for those that wait already.
      return state.replies.count == 1 && !state.isCollecting
    }
    if isNews { bell.ring() }
  }

  /// - Parameter complete: ends what the owner itself can end.
  func takeReplies(after complete: () -> Void) -> [Reply] {
    state.withLock { $0.isCollecting = true }
    complete()
    let replies = state.withLock { state in
      defer {
        state.replies = []
        state.isCollecting = false
      }
      return state.replies
    }
    outstanding.wrappingSubtract(replies.count, ordering: .relaxed)
    return replies
  }

  /// Requests that were begun and whose replies have not been taken.
  var requestsInFlight: Int { outstanding.load(ordering: .relaxed) }
  var isIdle: Bool { requestsInFlight == 0 }

  /// For how long the oldest of them has been under way, in nanoseconds; nil when none is.
  var oldestNanoseconds: UInt64? {
    let oldest = state.withLock { $0.begun.first }
    // Begun before now, whatever this clock says.
    return oldest.map { start in
      let now = monotonicNanoseconds()
      return now > start ? now - start : 0
    }
  }

  /// Waits until no slow work of this connection is left.
  func drain() { _ = state.wait { $0.begun.isEmpty ? true : nil } }
}
