internal import Glibc
internal import PloopIO

/// Ends connections whose client takes too long to send a request, however busily it drips.
///
/// The library's own timeout begins anew with each byte.
final class ConnectionClock: Sendable {
  private struct Connection {
    let descriptor: Int32
    var deadline: Deadline
  }

  private struct State {
    var connections: [OpaquePointer: Connection] = [:]
    var isStopped = false
  }

  private let limits: HTTPLimits
  private let state: Monitor<State>

  init(_ limits: HTTPLimits) throws(IOError) {
    self.limits = limits
    let state = Monitor(State())
    self.state = state
    try Thread(name: "http-clock", stackBytes: 128 << 10) { ConnectionClock.run(state) }.detach()
  }

  private static func run(_ state: Monitor<State>) {
    while state.wait({ $0.isStopped || !$0.connections.isEmpty ? !$0.isStopped : nil }) == true {
      state.withLock { state in
        // A descriptor in the table is open: it leaves before it is closed.
        for connection in state.connections.values where connection.deadline.hasPassed {
          shutdown(connection.descriptor, Int32(SHUT_RDWR))
        }
      }
      _ = state.wait(until: .after(seconds: 1)) { $0.isStopped ? true : nil }
    }
  }

  func opened(_ connection: OpaquePointer, descriptor: Int32) {
    guard descriptor >= 0 else { return }
    let deadline = Deadline.after(seconds: limits.headerSeconds)
    state.update {
      $0.connections[connection] = Connection(descriptor: descriptor, deadline: deadline)
    }
  }

  func headerEnded(_ connection: OpaquePointer) {
    set(.after(seconds: limits.bodySeconds), of: connection)
  }

  /// Now it is the service that takes its time.
  func requestEnded(_ connection: OpaquePointer) { set(.never, of: connection) }

  func replyEnded(_ connection: OpaquePointer) {
    set(.after(seconds: limits.idleSeconds + limits.headerSeconds), of: connection)
  }

  func closed(_ connection: OpaquePointer) {
    state.withLock { $0.connections[connection] = nil }
  }

  func stop() { state.update { $0.isStopped = true } }

  private func set(_ deadline: Deadline, of connection: OpaquePointer) {
    state.withLock { $0.connections[connection]?.deadline = deadline }
  }
}
