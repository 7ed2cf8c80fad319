internal import Glibc
internal import PloopIO

/// A connection of a client, and until when its next step has to be taken.
final class TimedConnection: Sendable {
  private struct State {
    /// Nanoseconds of the monotonic clock; ``never`` while it is not the client who is waited for.
    var deadline: UInt64
    /// What to do when the client hangs up, while a reply is waited for.
    var hungUp: (@Sendable () -> Void)?
  }

  private static let never = UInt64.max

  /// Who is at the other end, as it was when the connection was made.
  let peer: SocketPeer
  /// Whether there were as many connections as may be before this one.
  let isSurplus: Bool
  fileprivate let descriptor: Int32
  fileprivate let source: ConnectionCensus.Source
  /// Its own: nobody waits here for other connections.
  private let state: Locked<State>

  fileprivate init(
    _ descriptor: Int32, _ peer: SocketPeer, _ source: ConnectionCensus.Source, isSurplus: Bool,
    seconds: Int
  ) {
    self.descriptor = descriptor
    self.peer = peer
    self.source = source
    self.isSurplus = isSurplus
    state = Locked(State(deadline: TimedConnection.time(after: seconds)))
  }

  private static func time(after seconds: Int) -> UInt64 {
    monotonicNanoseconds() + UInt64(clamping: seconds) * 1_000_000_000
  }

  /// The client is waited for.
  fileprivate func expect(within seconds: Int) {
    let deadline = TimedConnection.time(after: seconds)
    state.withLock {
      $0.deadline = deadline
      $0.hungUp = nil
    }
  }

  /// Now it is the service that takes its time.
  ///
  /// - Parameter hungUp: called each second once the client has hung up, until it is waited for again.
  func isAnswered(orElse hungUp: @escaping @Sendable () -> Void) {
    state.withLock {
      $0.deadline = TimedConnection.never
      $0.hungUp = hungUp
    }
  }

  fileprivate func isLate(at now: UInt64) -> Bool { state.withLock { $0.deadline <= now } }

  fileprivate var hungUp: (@Sendable () -> Void)? { state.withLock { $0.hungUp } }
}

/// Ends connections whose client takes too long to send a request, however busily it drips, and sees
/// when a client hangs up that waits for its reply.
///
/// The library's own timeout begins anew with each byte, and it does not look at a connection while
/// that is suspended.
final class ConnectionClock: Sendable {
  private struct State {
    var connections: [ObjectIdentifier: TimedConnection] = [:]
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
        let now = monotonicNanoseconds()
        // A descriptor in the table is open: it leaves before it is closed.
        for connection in state.connections.values where connection.isLate(at: now) {
          shutdown(connection.descriptor, Int32(SHUT_RDWR))
        }
        return ConnectionClock.hungUp(Array(state.connections.values))
      }
      gone.forEach { $0() }
      _ = state.wait(until: .after(seconds: 1)) { $0.isStopped ? true : nil }
    }
  }

  /// What to do about those that have hung up. Whoever ends only the sending half of a connection
  /// counts as gone too: over TCP it looks the same.
  private static func hungUp(_ connections: [TimedConnection]) -> [@Sendable () -> Void] {
    let waiting = connections.compactMap { connection in
      connection.hungUp.map { (connection.descriptor, $0) }
    }
    var polled = waiting.map { pollfd(fd: $0.0, events: peerHasEnded, revents: 0) }
    guard poll(&polled, nfds_t(polled.count), 0) > 0 else { return [] }
    return zip(waiting, polled).compactMap { $1.revents == 0 ? nil : $0.1 }
  }

  /// - Returns: nil of one that has no socket.
  func opened(_ descriptor: Int32) -> TimedConnection? {
    guard descriptor >= 0 else { return nil }
    let peer = SocketPeer(of: descriptor)
    let source = source(of: peer)
    return state.update { state in
      let isSurplus = state.census.enter(source)
      let connection = TimedConnection(
        descriptor, peer, source, isSurplus: isSurplus,
        seconds: isSurplus ? limits.surplusSeconds : limits.headerSeconds)
      state.connections[ObjectIdentifier(connection)] = connection
      return connection
    }
  }

  private func source(of peer: SocketPeer) -> ConnectionCensus.Source {
    switch peer {
    case .tcp(let host, _): return .address(Network.party(of: host))
    case .unix(_, let user, _): return isStranger(peer) ? .stranger(user) : .known
    case .vsock, .unknown: return .known
    }
  }

  func headerEnded(_ connection: TimedConnection) { connection.expect(within: limits.bodySeconds) }

  func replyEnded(_ connection: TimedConnection) {
    connection.expect(within: limits.idleSeconds + limits.headerSeconds)
  }

  func closed(_ connection: TimedConnection) {
    state.withLock { state in
      guard state.connections.removeValue(forKey: ObjectIdentifier(connection)) != nil else {
        return
      }
      state.census.leave(connection.source)
    }
  }

  func stop() { state.update { $0.isStopped = true } }
}
