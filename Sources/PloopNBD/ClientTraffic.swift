internal import Synchronization

/// How many bytes a client has sent and has been sent; it stays when the client goes.
package final class ClientTraffic: Sendable {
  let received = Atomic<UInt64>(0)
  let sent = Atomic<UInt64>(0)
  /// Raised before replies are sent: bytes are counted behind that, when the client may have seen them already.
  let sends = Atomic<UInt64>(0)

  /// The same only for as long as nothing was received, nothing sent, and nothing is about to be: who has a reply finds
  /// another one than whoever looked while the request was carried out.
  package var activity: UInt64 {
    received.load(ordering: .relaxed) &+ sent.load(ordering: .relaxed)
      &+ sends.load(ordering: .relaxed)
  }
}
