internal import PloopDevice
internal import PloopIO
internal import PloopNBD

// Getting NBD clients out: what a detach and the end of an export have in common.

extension Service {
  /// Lets nobody in any more, once nobody is inside who may not be dropped.
  ///
  /// A safe way out first waits a moment for clients that have said goodbye and are not quite gone.
  ///
  /// - Parameters:
  ///   - code: what the refusal is called.
  ///   - what: what the clients are connected to, in words.
  /// - Throws: `code`, with the clients, and the doors are open as before.
  func closeDoors(
    _ names: [String], _ mode: DetachMode, refusal code: ServiceError.Code, of what: String
  ) throws(ServiceError) {
    if mode == .safe {
      let patience = Deadline.after(milliseconds: configuration.leavingMilliseconds)
      for name in names {
        _ = server.waitForClientsLeaving(of: Array(name.utf8), until: patience)
      }
    }
    table.set(names, open: false)
    // Looked at only now: nobody comes in behind this.
    let clients = mode == .safe ? names.flatMap { self.clients(of: $0) } : []
    guard clients.isEmpty else {
      table.set(names, open: true)
      let who = clients.count == 1 ? "a client is" : "\(clients.count) clients are"
      throw ServiceError(
        code, "\(who) connected to \(what)", errno: "EBUSY", facts: ["clients": .clients(clients)])
    }
  }

  /// Ends the clients of closed doors, with their requests in flight answered.
  func dropClients(of names: [String], until deadline: Deadline) throws(ServiceError) {
    // All are told before anybody is waited for.
    names.forEach { server.endClients(of: Array($0.utf8)) }
    for name in names
    where !server.waitForClientsLeaving(of: Array(name.utf8), until: deadline) {
      throw ServiceError(
        .drainTimeout, "requests in flight on the export \(name) did not end in time",
        errno: "EBUSY")
    }
  }

  func clients(of export: String) -> [ExportInfo.Client] {
    server.clients(of: Array(export.utf8)).map {
      ExportInfo.Client(
        id: $0.id, peer: $0.peer, since: $0.since, sizeBytes: $0.size,
        receivedBytes: $0.receivedBytes, sentBytes: $0.sentBytes, tls: $0.agreement.tls,
        names: $0.agreement.names, headers: $0.agreement.headers, contexts: $0.agreement.contexts,
        requests: $0.requests, requestsInFlight: $0.requestsInFlight,
        oldestMilliseconds: $0.oldestNanoseconds.map { $0 / 1_000_000 })
    }
  }

  package func activity(of device: String) -> DeviceActivity? {
    guard let facts = state.withLock({ $0.devices[device] })?.now else { return nil }
    let clients = server.traffic(of: (facts.record?.exports ?? []).map { Array($0.name.utf8) })
    return DeviceActivity { clients.reduce(0) { $0 &+ $1.activity } }
  }
}
