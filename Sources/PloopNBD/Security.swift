package import PloopTLS
internal import Synchronization

/// Whether clients of a listener may, or have to, use TLS (proto.md, "TLS support": NOTLS, SELECTIVETLS, FORCEDTLS).
package enum TLSMode: String, Sendable, CaseIterable {
  case off, allow, require
}

/// How a listener keeps its clients' bytes from others, and how often that has come about.
package final class Security: Sendable {
  /// Told who could not be served by TLS, and why.
  package typealias FailureObserver = @Sendable (_ peer: String, _ reason: String) -> Void

  package let mode: TLSMode
  /// As what the server shows itself now; a new one is for those who come from then on.
  let identity: @Sendable () -> TLSIdentity?
  private let observer: FailureObserver?
  private let doneCount = Atomic<UInt64>(0)
  private let failedCount = Atomic<UInt64>(0)

  package init(
    mode: TLSMode, observer: FailureObserver? = nil,
    identity: @escaping @Sendable () -> TLSIdentity?
  ) {
    self.mode = mode
    self.observer = observer
    self.identity = identity
  }

  /// Of clients that keep nothing from anybody.
  package static var none: Security { Security(mode: .off) { nil } }

  /// Handshakes of TLS so far.
  package var handshakes: (done: UInt64, failed: UInt64) {
    (doneCount.load(ordering: .relaxed), failedCount.load(ordering: .relaxed))
  }

  func succeeded() { doneCount.wrappingAdd(1, ordering: .relaxed) }

  func failed(_ peer: String, _ reason: String) {
    failedCount.wrappingAdd(1, ordering: .relaxed)
    observer?(peer, reason)
  }
}

/// What a client has agreed on with the server, for those who look.
package struct Agreement: Sendable, Equatable {
  /// Protocol and cipher; nil without TLS.
  package internal(set) var tls: String?
  /// Those of the client's certificate for which an authority vouches, or that of its pre-shared key.
  package internal(set) var names: [String] = []
  /// `simple`, `structured` or `extended`; nil as long as it has not entered.
  package internal(set) var headers: String?
  /// The meta contexts that it has selected.
  package internal(set) var contexts: [String] = []
}
