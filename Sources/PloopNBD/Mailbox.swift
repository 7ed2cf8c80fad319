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
    var running = 0
    /// Whether the owner is about to take what is here.
    var isCollecting = false
  }

  let bell: Bell
  private let state = Monitor(State())
  /// Begun and not taken yet; the connection's thread alone changes it, and asks it all the time.
  private let outstanding = Atomic<Int>(0)

  init() throws(IOError) { bell = try Bell() }

  func begin() {
    outstanding.wrappingAdd(1, ordering: .relaxed)
    state.withLock { $0.running += 1 }
  }

  func end(_ reply: Reply) {
    let isNews = state.update { state in
      state.replies.append(reply)
      state.running -= 1
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

  /// Waits until no slow work of this connection is left.
  func drain() { _ = state.wait { $0.running == 0 ? true : nil } }
}
