package import PloopIO
internal import Synchronization

/// What is known of a connected client.
package struct ClientStatus: Sendable {
  package let id: UInt64
  package let peer: String
  /// Seconds since 1970.
  package let since: Double
  package let agreement: Agreement
  /// Bytes of the export, as it was told; nil for one that is about to be.
  package let size: UInt64?
  package let receivedBytes: UInt64
  package let sentBytes: UInt64
  /// So far, refused ones too.
  package let requests: UInt64
  /// Those that wait for a disk, or are being carried out beside the connection's thread.
  package let requestsInFlight: Int
  /// For how long the oldest of them has been, in nanoseconds; nil when there are none.
  package let oldestNanoseconds: UInt64?
}

/// Told when a client has come to an export, and when it has left: on the client's thread, once
/// ``Server/clients(of:)`` says so.
package typealias ClientObserver = @Sendable (_ export: [UInt8], _ isConnected: Bool) -> Void

/// Listens on any number of sockets and serves what a directory holds, a thread for each client.
package final class Server<Directory: ExportDirectory>: Sendable {
  private struct State {
    var connections: [UInt64: Connection<Directory>] = [:]
    var listeners: [ListeningSocket] = []
    var acceptors = 0
    var isStopping = false
  }

  private let directory: Directory
  private let engine: IOEngine
  private let limits: Limits
  private let budget: MemoryBudget
  private let observer: ClientObserver?
  private let lastID = Atomic<UInt64>(0)
  private let state = Monitor(State())

  package init(
    directory: Directory, engine: IOEngine, limits: Limits = Limits(),
    observer: ClientObserver? = nil
  ) {
    self.directory = directory
    self.engine = engine
    self.limits = limits
    self.observer = observer
    budget = MemoryBudget(limit: limits.serverBytesInFlight)
  }

  package func listen(
    on socket: ListeningSocket, security: Security = .none
  ) throws(IOError) {
    state.update { state in
      state.listeners.append(socket)
      state.acceptors += 1
    }
    do {
      try Thread(name: "ploopd-accept") { [self] in
        while !state.withLock({ $0.isStopping }) {
          if let client = socket.accept() { serve(client, security) }
        }
        state.update { $0.acceptors -= 1 }
      }.detach()
    } catch {
      state.update { $0.acceptors -= 1 }
      throw error
    }
  }

  private func serve(_ socket: StreamSocket, _ security: Security) {
    let id = lastID.wrappingAdd(1, ordering: .relaxed).newValue
    guard
      let connection = try? Connection(
        id: id, socket: socket, security: security, directory: directory, engine: engine,
        budget: budget,
        limits: limits, since: wallClockSeconds(), observer: observer)
    else { return socket.shutDown() }
    // One step with the look at the limits: nobody gets in beside them, or while the server stops.
    let isTaken = state.update { state in
      guard !state.isStopping, state.connections.count < limits.connections else { return false }
      state.connections[id] = connection
      return true
    }
    guard isTaken else { return socket.shutDown() }
    do {
      try Thread(name: "ploopd-nbd") { [self] in
        connection.run()
        state.update { _ = $0.connections.removeValue(forKey: id) }
      }.detach()
    } catch {
      state.update { _ = $0.connections.removeValue(forKey: id) }
      socket.shutDown()
    }
  }

  // MARK: Clients

  package var connectionCount: Int { state.withLock { $0.connections.count } }

  /// Memory that requests and unread replies hold beyond what each connection has for itself.
  package var bytesInFlight: Int { budget.used }

  package func clients(of name: [UInt8]) -> [ClientStatus] {
    connections(of: name).map {
      ClientStatus(
        id: $0.id, peer: $0.socket.peer, since: $0.since, agreement: $0.agreement,
        size: $0.exportSize,
        receivedBytes: $0.traffic.received.load(ordering: .relaxed),
        sentBytes: $0.traffic.sent.load(ordering: .relaxed),
        requests: $0.requests.load(ordering: .relaxed),
        requestsInFlight: $0.mailbox.requestsInFlight,
        oldestNanoseconds: $0.mailbox.oldestNanoseconds)
    }
  }

  /// Of the clients that exports have now.
  package func traffic(of names: [[UInt8]]) -> [ClientTraffic] {
    state.withLock { state in
      state.connections.values.filter { $0.export.map(names.contains) ?? false }.map(\.traffic)
    }
  }

  private func connections(of name: [UInt8]) -> [Connection<Directory>] {
    state.withLock { $0.connections.values.filter { $0.export == name } }.sorted { $0.id < $1.id }
  }

  /// Waits for clients that are leaving by themselves.
  ///
  /// - Returns: whether none is left.
  package func waitForClientsLeaving(of name: [UInt8], until deadline: Deadline) -> Bool {
    state.wait(until: deadline) { state in
      state.connections.values.contains { $0.export == name } ? nil : true
    } ?? false
  }

  /// Has the clients of an export leave: requests in flight are answered, later ones get ESHUTDOWN. Nobody is waited for
  /// (``waitForClientsLeaving(of:until:)``).
  package func endClients(of name: [UInt8]) { connections(of: name).forEach { $0.end() } }

  /// Takes no more clients and has those that are there end: requests in flight are answered, and those that have not
  /// begun, or that a closed disk turns away, are not, for another process to answer. Nobody is waited for.
  package func beginStop() {
    let (listeners, connections) = state.update { state in
      state.isStopping = true
      return (state.listeners, Array(state.connections.values))
    }
    listeners.forEach { $0.shutDown() }
    connections.forEach { $0.end(isLeaving: true) }
  }

  /// The same, and waits for them.
  package func stop(until deadline: Deadline) {
    beginStop()
    let listeners = state.withLock { $0.listeners }
    _ = state.wait(until: deadline) { state in
      state.connections.isEmpty && state.acceptors == 0 ? true : nil
    }
    listeners.forEach { $0.removeFile() }
  }
}
