package import PloopTLS
internal import Synchronization

/// Whether clients of a listener may, or have to, use TLS (proto.md, "TLS support": NOTLS, SELECTIVETLS, FORCEDTLS).
package enum TLSMode: String, Sendable, CaseIterable {
  case off, allow, require
}

/// How a listener keeps its clients' bytes from others, and how often that has come about.
package final class Security: Sendable {
  /// What somebody could not be served by.
  package enum Failure: Sendable {
    case handshake
    /// A record that was changed on its way, or is nonsense.
    case record
  }

  /// Told who could not be served by TLS, or not any more, and why.
  package typealias FailureObserver =
    @Sendable (_ failure: Failure, _ peer: String, _ reason: String) -> Void

  package let mode: TLSMode
  /// As what the server shows itself now; a new one is for those who come from then on.
  let identity: @Sendable () -> TLSIdentity?
  private let observer: FailureObserver?
  private let doneCount = Atomic<UInt64>(0)
  private let failedCount = Atomic<UInt64>(0)
  private let brokenCount = Atomic<UInt64>(0)

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

  /// Clients whose TLS has broken off after the handshake.
  package var broken: UInt64 { brokenCount.load(ordering: .relaxed) }

  /// Whether a client can have a name for which somebody vouches.
  package var vouchesForNames: Bool { mode != .off && identity()?.vouchesForNames == true }

  func succeeded() { doneCount.wrappingAdd(1, ordering: .relaxed) }

  func failed(_ peer: String, _ reason: String) {
    failedCount.wrappingAdd(1, ordering: .relaxed)
    observer?(.handshake, peer, reason)
  }

  func broke(_ peer: String, _ reason: String) {
    brokenCount.wrappingAdd(1, ordering: .relaxed)
    observer?(.record, peer, reason)
  }
}

/// What a client has agreed on with the server, for those who look.
package struct Agreement: Sendable, Equatable {
  /// Protocol and cipher; nil without TLS.
  package internal(set) var tls: String?
  /// Those of the client's certificate for which an authority vouches, or that of its pre-shared key, with their kinds
  /// (`dns:vm1.example`, `psk:vm1`).
  package internal(set) var names: [String] = []
  /// `simple`, `structured` or `extended`; nil as long as it has not entered.
  package internal(set) var headers: String?
  /// The meta contexts that it has selected.
  package internal(set) var contexts: [String] = []
}
