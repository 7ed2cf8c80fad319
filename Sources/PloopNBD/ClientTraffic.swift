internal import Synchronization

/// How many bytes a client has sent and has been sent; it stays when the client goes.
package final class ClientTraffic: Sendable {
  let received = Atomic<UInt64>(0)
  let sent = Atomic<UInt64>(0)

  /// Both together: the same only for as long as nothing was received or sent.
  package var bytes: UInt64 {
    received.load(ordering: .relaxed) &+ sent.load(ordering: .relaxed)
  }
}
