internal import CGnuTLS
internal import Glibc
package import PloopIO

/// A server's end of TLS, in memory: whoever has the socket brings what comes, and sends what waits. Of one thread.
package final class TLSSession {
  /// What is written at once where there is more, in bytes: several records, so that a call to the kernel takes more
  /// than one.
  package static let usualBytes = 128 << 10
  /// What can be: the header of a reply has no record, and no call, of its own.
  package static let mostBytes = Int(CGNUTLS_WRITE_BYTES)

  package enum Outcome: Equatable {
    case done
    /// Bytes of plain text.
    case bytes(Int)
    /// More has to come first.
    case needsInput
    /// What waits has to be sent first.
    case needsSending
    /// The other end sends no more.
    case ended
    /// It is over, and that is why.
    case failed(String)
  }

  private let identity: TLSIdentity
  private let handle: OpaquePointer

  package init(_ identity: TLSIdentity) throws(TLSFault) {
    guard let handle = cgnutls_session_new(identity.handle, identity.clients) else {
      throw TLSFault("there is no memory for a session")
    }
    self.identity = identity
    self.handle = handle
  }

  deinit { cgnutls_session_free(handle) }

  /// Goes on with the handshake; what it wants to say waits afterwards, whatever the outcome.
  package func shakeHands() -> Outcome { outcome(Int(cgnutls_shake_hands(handle).rawValue)) }

  /// Takes plain text out of what has come, as much as there is and fits.
  package func read(into region: ByteRegion) -> Outcome {
    var done = 0
    while done < region.count {
      let more = cgnutls_read(handle, region.start + done, region.count - done)
      guard more > 0 else { return done > 0 ? .bytes(done) : outcome(more) }
      done += more
    }
    return .bytes(done)
  }

  /// Makes cipher text of at most ``mostBytes``; nothing may wait before.
  package func write(_ region: ByteRegion) -> Outcome {
    outcome(Int(cgnutls_write(handle, region.start, region.count).rawValue))
  }

  /// Says that nothing more is sent; nothing after a failure.
  package func sayGoodbye() { cgnutls_bye(handle) }

  private func outcome(_ code: Int) -> Outcome {
    switch code {
    case Int(CGNUTLS_DONE.rawValue): .done
    case Int(CGNUTLS_AGAIN.rawValue): .needsInput
    case Int(CGNUTLS_FULL.rawValue): .needsSending
    case Int(CGNUTLS_ENDED.rawValue): .ended
    default: .failed(String(cString: cgnutls_fault(handle)))
    }
  }

  // MARK: Cipher text

  /// Where it may be received; nil where all room is taken. Valid until the next call of a method.
  package var room: ByteRegion? {
    var count = 0
    guard let start = cgnutls_room(handle, &count) else { return nil }
    return ByteRegion(UnsafeMutableRawBufferPointer(start: start, count: count))
  }

  package func received(_ count: Int) { cgnutls_received(handle, count) }

  /// What waits to be sent; nil when nothing does. Valid until the next call of a method.
  package var waiting: ByteRegion? {
    var count = 0
    guard let start = cgnutls_waiting(handle, &count) else { return nil }
    return ByteRegion(
      UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(mutating: start), count: count))
  }

  package func sent(_ count: Int) { cgnutls_sent(handle, count) }

  // MARK: The other end, after the handshake

  package var certificate: ClientCertificate? { ClientCertificate(of: cgnutls_handle(handle)) }

  /// The names for which somebody vouches: those of a certificate, or that of a pre-shared key. Each with its kind, so
  /// that who may choose one of them cannot have it taken for another's: `dns:vm1.example`, `psk:vm1`.
  package var clientNames: [String] {
    if let user = cgnutls_psk_user(handle) { return ["psk:\(String(cString: user))"] }
    guard case .trusted(let names) = certificate else { return [] }
    return names.map(\.description)
  }

  /// Protocol, key exchange and cipher in GnuTLS's words.
  package var summary: String {
    guard let text = cgnutls_description(handle) else { return "TLS" }
    defer { free(text) }
    return String(cString: text)
  }
}
