internal import CMicrohttpd
internal import PloopIO

/// The body of a reply that is made while it is being sent: a task sends, the daemon's
/// thread takes. It holds one piece; while there is none the connection is suspended, and while the
/// client does not read the task waits.
///
/// Unchecked: a connection may be resumed by any thread, under the lock.
final class StreamBody: @unchecked Sendable {
  enum Part {
    case bytes(ArraySlice<UInt8>)
    /// The connection is suspended until there are any.
    case later
    case end
    /// The rest cannot be had: the connection ends, so that nobody takes what came for all of it.
    case broken
  }

  private struct State {
    var bytes: ArraySlice<UInt8> = []
    var isEnded = false
    var isBroken = false
    /// The reply is over, however it ended.
    var isGone = false
    /// What the library calls the connection that waits; it is handed back to it, and never looked into.
    var suspended: OpaquePointer?
    var sender: CheckedContinuation<Bool, Never>?

    mutating func resume() {
      guard let connection = suspended else { return }
      suspended = nil
      MHD_resume_connection(connection)
    }
  }

  private let state = Locked(State())

  /// Sends the bytes, which are not none, and returns when they have been taken.
  ///
  /// - Returns: false when nobody takes any more.
  func send(_ bytes: [UInt8]) async -> Bool {
    await withCheckedContinuation { sender in
      let isOver = state.withLock { state in
        if state.isEnded || state.isGone { return true }
        state.bytes = bytes[...]
        state.sender = sender
        state.resume()
        return false
      }
      if isOver { sender.resume(returning: false) }
    }
  }

  /// There is no more than what has been sent.
  func end() {
    state.withLock { state in
      state.isEnded = true
      state.resume()
    }
  }

  /// There should be more than what has been sent, and there is not.
  func fail() {
    state.withLock { state in
      state.isBroken = true
      state.isEnded = true
      state.resume()
    }
  }

  /// Takes what there is, for a connection that can be suspended.
  func take(atMost count: Int, for connection: OpaquePointer) -> Part {
    let (part, sender): (Part, CheckedContinuation<Bool, Never>?) = state.withLock { state in
      guard state.bytes.isEmpty else {
        let bytes = state.bytes.prefix(count)
        state.bytes = state.bytes.dropFirst(count)
        guard state.bytes.isEmpty else { return (.bytes(bytes), nil) }
        defer { state.sender = nil }
        return (.bytes(bytes), state.sender)
      }
      if state.isEnded { return (state.isBroken ? .broken : .end, nil) }
      state.suspended = connection
      MHD_suspend_connection(connection)
      return (.later, nil)
    }
    sender?.resume(returning: true)
    return part
  }

  /// Call when the connection has ended the reply: nothing of it is touched from here on.
  func gone() {
    let sender = state.withLock { state in
      state.isGone = true
      state.suspended = nil
      state.bytes = []
      defer { state.sender = nil }
      return state.sender
    }
    sender?.resume(returning: false)
  }
}

/// A body that is sent as it is made: of events, for as long as somebody listens, or of so many bytes.
struct ReplyStream: Sendable {
  enum Kind: Equatable { case events, bytes(UInt64) }

  let kind: Kind
  let body = StreamBody()
  /// The answer to HEAD: nothing is ever sent.
  let isHeadOnly: Bool
  /// Sends into the body until that takes no more or there is no more to send; the body is ended then.
  private let send: @Sendable (StreamBody) async -> Void

  init(_ kind: Kind, _ send: @escaping @Sendable (StreamBody) async -> Void) {
    self.kind = kind
    isHeadOnly = false
    self.send = send
  }

  init(headOf kind: Kind) {
    self.kind = kind
    isHeadOnly = true
    send = { _ in }
  }

  var contentType: String {
    kind == .events ? "text/event-stream" : "application/octet-stream"
  }

  func run() async {
    await send(body)
    body.end()
  }
}
