internal import PloopIO

/// A reply, laid out in memory, and the memory that its request was granted.
struct Reply: Sendable {
  let region: ByteRegion
  let charge: Int
}

/// Where slow work of one connection leaves its replies, and what bounds it.
///
/// The connection's thread takes requests in and sends replies out; engine threads only put replies
/// here and ring the bell, so a client that does not read never holds one of them.
final class Mailbox: Sendable {
  private struct State {
    var replies: [Reply] = []
    var requests = 0
  }

  let bell: Bell
  private let state = Monitor(State())

  init() throws(IOError) { bell = try Bell() }

  func begin() { state.withLock { $0.requests += 1 } }

  func end(_ reply: Reply) {
    state.update { state in
      state.replies.append(reply)
      state.requests -= 1
    }
    bell.ring()
  }

  func takeReplies() -> [Reply] {
    state.withLock { state in
      defer { state.replies.removeAll(keepingCapacity: true) }
      return state.replies
    }
  }

  var requestsInFlight: Int { state.withLock { $0.requests } }
  var isIdle: Bool { state.withLock { $0.requests == 0 && $0.replies.isEmpty } }

  /// Waits until no slow work of this connection is left.
  func drain() { _ = state.wait { $0.requests == 0 ? true : nil } }
}
