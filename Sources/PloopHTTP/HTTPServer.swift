internal import CMicrohttpd
internal import Glibc
package import Logging
package import PloopIO
internal import PloopTLS
internal import Synchronization

/// How many clients are served, and how long they may take.
package struct HTTPLimits: Sendable {
  package var connections: UInt32 = 512
  /// For one address of TCP; clients of a Unix socket have none.
  package var connectionsPerAddress: UInt32 = 64
  /// For one user of a Unix socket who may do nothing here.
  package var connectionsOfStranger: UInt32 = 16
  /// Beyond these limits, to be told so; what is beyond this too is not answered.
  package var spareConnections: UInt32 = 32
  /// From the connection, or from the end of `idleSeconds`, to the end of the header.
  package var headerSeconds = 10
  package var bodySeconds = 60
  /// For a request of a connection that is one too many.
  package var surplusSeconds = 2
  /// Between two requests, or without any progress in one.
  package var idleSeconds = 65
  /// Of a listening socket: its clients are shared out among them, so that one long reply of many is being sent while
  /// others are answered. More than a few would take from those who serve disks.
  package var threads = UInt32(clamping: min(4, max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))))

  package init() {}
}

/// Serves the router's replies over libmicrohttpd: a daemon for each listening socket collects a
/// request, suspends its connection, and is resumed with the reply. Each connection belongs to one of the daemon's
/// threads.
package final class HTTPServer: Sendable {
  /// Unchecked: the library allows its daemon to be quiesced and stopped by any thread, and only the
  /// one that takes it out of ``daemons`` does so.
  private struct Daemon: @unchecked Sendable {
    /// What the library calls its daemon; never looked into.
    let handle: OpaquePointer
    let socket: ListeningSocket
    /// Nil without TLS.
    let identity: ServerIdentity?
    /// Its connections go on, and no new ones come.
    var isRetired = false
  }

  private static let readMethods: Set = ["GET", "HEAD", "OPTIONS"]

  let router: Router
  let logger: Logger
  let clock: ConnectionClock
  /// Whole requests whose reply has not been sent yet.
  let inFlight = Monitor<[UInt64: Exchange]>([:])
  /// Whether no request is let in any more; changed and looked at with ``inFlight`` locked.
  private let isClosed = Atomic<Bool>(false)
  /// Requests are answered on a thread of their own: what blocks elsewhere does not silence them.
  private let executor: ThreadExecutor
  private let isStopping = Atomic<Bool>(false)
  private let limits: HTTPLimits
  private let daemons = Locked<[Daemon]>([])
  private let requests = Atomic<UInt64>(0)
  private let newestIdentity = Locked<ServerIdentity?>(nil)

  package init(
    _ router: Router, logger: Logger, limits: HTTPLimits = HTTPLimits()
  ) throws(IOError) {
    self.router = router
    self.logger = logger
    self.limits = limits
    executor = try ThreadExecutor(name: "http-answers")
    clock = try ConnectionClock(limits) { router.isStranger($0) }
  }

  deinit { stop(until: .after(seconds: 0)) }

  /// - Parameter identity: for TLS; nil for none.
  package func listen(
    on socket: ListeningSocket, as identity: ServerIdentity? = nil
  ) throws(IOError) {
    // The daemon closes what it is given; the socket keeps its own descriptor.
    let copy = dup(socket.descriptorNumber)
    guard copy >= 0 else { throw .last("dup", socket.address) }
    var callbacks = requestCallbacks(of: self)
    var limits = cmicrohttpd_limits(
      connections: limits.connections &+ limits.spareConnections,
      connections_per_address: socket.isUnix
        ? 0 : limits.connectionsPerAddress &+ limits.spareConnections,
      idle_seconds: UInt32(clamping: limits.idleSeconds), threads: limits.threads,
      head_bytes: 48 << 10)
    // Before the first client.
    let before = newestIdentity.withLock { newest in
      defer { newest = identity ?? newest }
      return newest
    }
    let made = withExtendedLifetime(identity) {
      var tls = identity?.parts ?? cmicrohttpd_tls()
      return cmicrohttpd_start(copy, &callbacks, &limits, &tls)
    }
    guard let handle = made else {
      newestIdentity.withLock { $0 = before }
      close(copy)
      throw IOError("MHD_start_daemon", path: socket.address, code: EIO)
    }
    daemons.withLock {
      $0.append(Daemon(handle: handle, socket: socket, identity: identity))
    }
  }

  /// Whose authorities and revocations count: the newest, for connections of before too.
  var trust: TLSIdentity? { newestIdentity.withLock { $0?.trust } }

  /// Has new connections of TLS see another identity; those that are there go on with theirs.
  package func replace(_ identity: ServerIdentity) throws(IOError) {
    let sockets = daemons.withLock { daemons in
      daemons.filter { $0.identity != nil && !$0.isRetired }.map(\.socket)
    }
    for socket in sockets {
      // The new one takes clients before the old one stops taking them: none is turned away.
      try listen(on: socket, as: identity)
      let idle = daemons.withLock { daemons in
        retire(&daemons, of: socket, but: identity)
        let split = daemons.partition {
          $0.isRetired && cmicrohttpd_connections($0.handle) == 0
        }
        defer { daemons.removeSubrange(split...) }
        return Array(daemons[split...])
      }
      for daemon in idle { MHD_stop_daemon(daemon.handle) }
    }
  }

  private func retire(
    _ daemons: inout [Daemon], of socket: ListeningSocket, but identity: ServerIdentity
  ) {
    for index in daemons.indices
    where daemons[index].socket === socket && daemons[index].identity !== identity
      && !daemons[index].isRetired
    {
      daemons[index].isRetired = true
      let copy = MHD_quiesce_daemon(daemons[index].handle)
      if copy >= 0 { close(copy) }
    }
  }

  /// Takes no more clients, ends streams, lets requests in flight be answered, and ends every
  /// connection.
  ///
  /// - Parameter deadline: what is in flight then is told that the service is shutting down.
  package func stop(until deadline: Deadline) {
    isStopping.store(true, ordering: .sequentiallyConsistent)
    let daemons = daemons.withLock { daemons in
      defer { daemons = [] }
      return daemons
    }
    for daemon in daemons {
      daemon.socket.removeFile()
      let copy = daemon.isRetired ? -1 : MHD_quiesce_daemon(daemon.handle)
      daemon.socket.shutDown()
      if copy >= 0 { close(copy) }
    }
    for exchange in inFlight.withLock({ Array($0.values) }) { exchange.reply?.stream?.body.end() }
    let allAnswered: Void? = inFlight.wait(until: deadline) { exchanges in
      exchanges.values.allSatisfy { $0.reply?.stream != nil } ? () : nil
    }
    if allAnswered == nil { resumeAll() }
    // A stream whose client does not read is not waited for longer.
    let _: Void? = inFlight.wait(until: .after(milliseconds: 500)) { $0.isEmpty ? () : nil }
    // The daemon must not be stopped with suspended connections, and one that was kept open may send
    // another request at any time: from here on none is suspended any more.
    inFlight.withLock { _ in isClosed.store(true, ordering: .relaxed) }
    resumeAll()
    for daemon in daemons { MHD_stop_daemon(daemon.handle) }
    clock.stop()
  }

  /// Has every connection go on: with a refusal if there is no reply yet, with the end of its stream if it
  /// has one.
  private func resumeAll() {
    for exchange in inFlight.withLock({ Array($0.values) }) where !refuse(exchange) {
      exchange.reply?.stream?.body.end()
    }
  }

  private func refuse(_ exchange: Exchange) -> Bool {
    let problem = Problem("shutting-down", "the request was not done in time")
    return exchange.finish(
      with: router.refuse(exchange.request, problem, requestID: exchange.requestID))
  }

  /// Whether connections end with the reply that they get.
  var isClosing: Bool { isStopping.load(ordering: .sequentiallyConsistent) }

  func nextNumber() -> UInt64 { requests.wrappingAdd(1, ordering: .relaxed).newValue }

  /// - Returns: whether there is a reply: one that was made a moment ago.
  func answerAtOnce(_ exchange: Exchange) -> Bool {
    guard let reply = router.kept(for: exchange.request, requestID: exchange.requestID) else {
      return false
    }
    return exchange.finish(with: reply)
  }

  /// Lets the router answer while the connection is suspended.
  ///
  /// - Returns: false when there is a reply already.
  func answer(_ exchange: Exchange) -> Bool {
    exchange.isInFlight = true
    let isAdmitted = inFlight.withLock { exchanges in
      exchanges[exchange.number] = exchange
      return !isClosed.load(ordering: .relaxed)
    }
    if !isAdmitted { _ = refuse(exchange) }
    guard exchange.suspend() else { return false }
    let request = exchange.request
    exchange.isMade(
      by: Task(executorPreference: executor) { [router] in
        // Its text is made here, and not by the daemon's thread, which all others need.
        let reply = await router.answer(request, requestID: exchange.requestID).encoded
        if exchange.finish(with: reply), let stream = reply.stream { await stream.run() }
      })
    return true
  }

  func completed(_ exchange: Exchange) {
    let status = exchange.reply?.status
    let isRead = HTTPServer.readMethods.contains(exchange.request.method)
    logger.log(
      level: isRead && status.map { $0 < 400 } ?? false ? .debug : .info, "request",
      metadata: [
        "method": "\(exchange.request.method)", "path": "\(exchange.request.path)",
        "status": "\(status.map(String.init) ?? "none")",
        "ms": "\((monotonicNanoseconds() - exchange.began) / 1_000_000)",
        "peer": "\(exchange.request.peer)", "actor": "\(exchange.request.actor)",
        "request_id": "\(exchange.requestID)",
      ])
    if exchange.isInFlight { inFlight.update { $0[exchange.number] = nil } }
  }
}
