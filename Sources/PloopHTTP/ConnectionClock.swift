internal import Glibc
internal import PloopIO

/// Ends connections whose client takes too long to send a request, however busily it drips, and sees
/// when a client hangs up that waits for its reply.
///
/// The library's own timeout begins anew with each byte, and it does not look at a connection while
/// that is suspended.
final class ConnectionClock: Sendable {
  private struct Connection {
    let descriptor: Int32
    let peer: SocketPeer
    let source: ConnectionCensus.Source
    let isSurplus: Bool
    var deadline: Deadline
    /// What to do when the client hangs up, while a reply is waited for.
    var hungUp: (@Sendable () -> Void)?

    mutating func ended(deadline: Deadline) {
      self.deadline = deadline
      hungUp = nil
    }
  }

  private struct State {
    var connections: [OpaquePointer: Connection] = [:]
    var census: ConnectionCensus
    var isStopped = false
  }

  /// POLLRDHUP, which the headers show to GNU programs only.
  private static let peerHasEnded: Int16 = 0x2000

  private let limits: HTTPLimits
  private let isStranger: @Sendable (SocketPeer) -> Bool
  private let state: Monitor<State>

  /// - Parameter isStranger: whether somebody at the Unix socket may do nothing here.
  init(
    _ limits: HTTPLimits, isStranger: @escaping @Sendable (SocketPeer) -> Bool
  ) throws(IOError) {
    self.limits = limits
    self.isStranger = isStranger
    let state = Monitor(State(census: ConnectionCensus(limits)))
    self.state = state
    try Thread(name: "http-clock", stackBytes: 128 << 10) { ConnectionClock.run(state) }.detach()
  }

  private static func run(_ state: Monitor<State>) {
    while state.wait({ $0.isStopped || !$0.connections.isEmpty ? !$0.isStopped : nil }) == true {
      let gone = state.withLock { state in
        // A descriptor in the table is open: it leaves before it is closed.
        for connection in state.connections.values where connection.deadline.hasPassed {
          shutdown(connection.descriptor, Int32(SHUT_RDWR))
        }
        return ConnectionClock.hungUp(state.connections.values.filter { $0.hungUp != nil })
      }
      gone.forEach { $0() }
      _ = state.wait(until: .after(seconds: 1)) { $0.isStopped ? true : nil }
    }
  }

  /// What to do about those that have hung up. Whoever ends only the sending half of a connection
  /// counts as gone too: over TCP it looks the same.
  private static func hungUp(_ connections: [Connection]) -> [@Sendable () -> Void] {
    var polled = connections.map {
      pollfd(fd: $0.descriptor, events: peerHasEnded, revents: 0)
    }
    guard poll(&polled, nfds_t(polled.count), 0) > 0 else { return [] }
    return zip(connections, polled).compactMap { $1.revents == 0 ? nil : $0.hungUp }
  }

  func opened(_ connection: OpaquePointer, descriptor: Int32) {
    guard descriptor >= 0 else { return }
    let peer = SocketPeer(of: descriptor)
    let source = source(of: peer)
    state.update { state in
      let isSurplus = state.census.enter(source)
      let seconds = isSurplus ? limits.surplusSeconds : limits.headerSeconds
      state.connections[connection] = Connection(
        descriptor: descriptor, peer: peer, source: source, isSurplus: isSurplus,
        deadline: .after(seconds: seconds))
    }
  }

  private func source(of peer: SocketPeer) -> ConnectionCensus.Source {
    switch peer {
    case .tcp(let host, _): return .address(Network.party(of: host))
    case .unix(_, let user, _): return isStranger(peer) ? .stranger(user) : .known
    case .vsock, .unknown: return .known
    }
  }

  /// Who is at the other end, as it was when the connection was made.
  func peer(of connection: OpaquePointer) -> SocketPeer {
    state.withLock { $0.connections[connection]?.peer ?? .unknown }
  }

  /// Whether there were as many connections as may be before this one.
  func isSurplus(_ connection: OpaquePointer) -> Bool {
    state.withLock { $0.connections[connection]?.isSurplus ?? false }
  }

  func headerEnded(_ connection: OpaquePointer) {
    set(.after(seconds: limits.bodySeconds), of: connection)
  }

  /// Now it is the service that takes its time.
  ///
  /// - Parameter hungUp: called each second once the client has hung up, until the reply has ended.
  func requestEnded(_ connection: OpaquePointer, hungUp: @escaping @Sendable () -> Void) {
    state.withLock {
      $0.connections[connection]?.deadline = .never
      $0.connections[connection]?.hungUp = hungUp
    }
  }

  func replyEnded(_ connection: OpaquePointer) {
    state.withLock {
      $0.connections[connection]?.ended(
        deadline: .after(seconds: limits.idleSeconds + limits.headerSeconds))
    }
  }

  func closed(_ connection: OpaquePointer) {
    state.withLock { state in
      guard let closed = state.connections.removeValue(forKey: connection) else { return }
      state.census.leave(closed.source)
    }
  }

  func stop() { state.update { $0.isStopped = true } }

  private func set(_ deadline: Deadline, of connection: OpaquePointer) {
    state.withLock { $0.connections[connection]?.deadline = deadline }
  }
}
