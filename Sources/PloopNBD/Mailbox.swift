internal import PloopIO

/// Where slow work of one connection leaves its replies, and what bounds it.
///
/// The connection's thread takes requests in and sends replies out; engine threads only put replies
/// here and ring the bell, so a client that does not read never holds one of them.
final class Mailbox: Sendable {
  private struct State {
    var replies: [[UInt8]] = []
    var requests = 0
    var bytes = 0
  }

  let bell: Bell
  private let state = Monitor(State())

  init() throws(IOError) { bell = try Bell() }

  func begin(bytes: Int) {
    state.withLock { state in
      state.requests += 1
      state.bytes += bytes
    }
  }

  func end(_ reply: [UInt8], bytes: Int) {
    state.update { state in
      state.replies.append(reply)
      state.requests -= 1
      state.bytes -= bytes
    }
    bell.ring()
  }

  func takeReplies() -> [[UInt8]] {
    state.withLock { state in
      defer { state.replies.removeAll(keepingCapacity: true) }
      return state.replies
    }
  }

  var inFlight: (requests: Int, bytes: Int) { state.withLock { ($0.requests, $0.bytes) } }
  var isIdle: Bool { state.withLock { $0.requests == 0 && $0.replies.isEmpty } }

  /// Waits until no slow work of this connection is left.
  func drain() { _ = state.wait { $0.requests == 0 ? true : nil } }
}
