internal import Glibc
internal import Logging
internal import PloopControl
internal import PloopHTTP
internal import PloopIO
internal import PloopNBD
internal import PloopTLS

/// A service from its start to its end: everything is wired here, and nothing else is.
struct ServiceProcess {
  /// Seconds that the whole way down may take.
  private static let stopSeconds = 30

  let settings: Settings
  private let handedOver: HandedOverSockets
  let log: Logger
  private let tail = LogTail()
  /// As what the service shows itself to NBD clients that come from now on.
  private let nbdIdentity = Locked<TLSIdentity?>(nil)

  /// - Throws: what was handed over and cannot be used.
  init(_ settings: Settings) throws(Settings.Fault) {
    handedOver = try HandedOverSockets()
    self.settings = try handedOver.replacing(settings)
    let level = settings.logLevel
    let asJSON = settings.logJSON
    let tail = tail
    log = Logger(label: "ploopd") { _ in LogOutput(level: level, asJSON: asJSON, tail: tail) }
  }

  /// - Returns: whether everything was closed cleanly at the end.
  /// - Throws: `Settings.Fault` with what kept it from starting.
  func run() throws -> Bool {
    let signals = Signals()
    ProcessLimits.raiseOpenFiles()
    try makeFolders()
    // Before anything is served: what cannot be begun later would leave it behind.
    let keeper = try MemoryKeeper()
    defer { keeper.stop() }
    let fleet = try settings.fleet(host: ServiceProcess.hostName(), log: log)
    let engine = IOEngine()
    let service: Service
    do {
      var configuration = Service.Configuration()
      configuration.node = ServiceProcess.hostName()
      configuration.slowOperationMilliseconds = settings.slowOperationMilliseconds
      if let bytes = settings.indexCacheBytes { configuration.indexCacheBytes = bytes }
      configuration.fleet = fleet
      service = try Service(
        roots: Roots(settings.roots), store: Store(path: settings.stateFolder), engine: engine,
        log: log, configuration: configuration)
    } catch {
      throw Settings.Fault(description: error.detail)
    }
    // Every address is taken before anything is served: a second service on the same host is told
    // so at once.
    // Anybody may connect to the API's socket: each request is judged by who is there.
    let httpSockets =
      try handedOver.http + listen(settings.httpSocket, settings.httpListen, mode: 0o666)
    let nbdSockets =
      try handedOver.nbd + listen(settings.nbdSocket, settings.nbdListen, mode: 0o660)
    let access = accessControl()
    let identity = try identity()
    try loadNBDIdentity()
    let audit = auditLog()
    let http = try startHTTP(service, access, audit, identity, on: httpSockets)
    do {
      try service.recover()
      for socket in nbdSockets { try service.serveNBD(on: socket, security: security(of: socket)) }
    } catch {
      http.stop(until: .after(seconds: 0))
      audit?.close()
      throw Settings.Fault(
        description: (error as? ServiceError)?.detail ?? "the service cannot begin: \(error)")
    }
    announce(httpSockets, nbdSockets)

    let signal = waitForTheEnd(signals, http, access)
    log.notice("stopping", metadata: ["signal": "\(Signals.name(signal))"])
    ServiceNotification.send("STOPPING=1")
    let deadline = Deadline.after(seconds: ServiceProcess.stopSeconds)
    service.refuseChanges()
    // A control operation that hangs must not take the time that closing disks needs.
    http.stop(until: .after(seconds: ServiceProcess.stopSeconds / 3))
    audit?.close()
    let isClean = service.stop(until: deadline)
    engine.stop(until: deadline)
    log.notice(isClean ? "stopped" : "stopped; some disks were not closed")
    return isClean
  }

  /// SIGHUP has the service look again at what it has looked at when it began.
  private func waitForTheEnd(
    _ signals: Signals, _ http: HTTPServer, _ access: AccessControl
  ) -> Int32 {
    while true {
      let signal = signals.wait()
      guard signal == SIGHUP else { return signal }
      access.replace(peerRules)
      reloadCertificates(http)
    }
  }

  /// What is wrong with some does not keep others from being renewed: a key that was revoked is out.
  private func reloadCertificates(_ http: HTTPServer) {
    func renew(_ whose: String, _ act: () throws -> Void) -> Bool {
      do {
        try act()
        return true
      } catch {
        log.error(
          "the certificates stay as they are",
          metadata: ["of": "\(whose)", "reason": "\(error)"])
        return false
      }
    }
    let isHTTPNew = renew("HTTP") {
      if let identity = try identity() { try http.replace(identity) }
    }
    let isNBDNew = renew("NBD") { try loadNBDIdentity() }
    if isHTTPNew, isNBDNew {
      log.notice("reloaded")
    } else if isHTTPNew || isNBDNew {
      log.notice("some certificates are new", metadata: ["of": "\(isNBDNew ? "NBD" : "HTTP")"])
    }
  }

  func identity() throws(Settings.Fault) -> ServerIdentity? {
    guard let folder = settings.httpCertificates else { return nil }
    do { return try ServerIdentity(folder: folder) } catch {
      throw Settings.Fault(description: error.description)
    }
  }

  func loadNBDIdentity() throws(Settings.Fault) {
    guard settings.nbdCertificates != nil || settings.nbdKeys != nil else { return }
    do throws(TLSFault) {
      let identity = try TLSIdentity(
        try settings.nbdCertificates.map { (folder) throws(TLSFault) in
          try CertificateFiles(folder: folder)
        }, keyPath: settings.nbdKeys, verifiesClients: settings.nbdVerifiesClients)
      nbdIdentity.withLock { $0 = identity }
    } catch { throw Settings.Fault(description: "NBD over TLS: \(error)") }
  }

  private func security(of socket: ListeningSocket) -> Security {
    let modes = settings.nbdSecurity
    return Security(
      mode: socket.isUnix ? modes.socket : modes.tcp,
      observer: { [log] failure, peer, reason in
        switch failure {
        case .handshake:
          log.info("no NBD over TLS", metadata: ["peer": "\(peer)", "reason": "\(reason)"])
        case .record:
          log.warning(
            "NBD over TLS has broken off", metadata: ["peer": "\(peer)", "reason": "\(reason)"])
        }
      }
    ) { [nbdIdentity] in nbdIdentity.withLock { $0 } }
  }

  private var peerRules: PeerRules {
    PeerRules(adminGroup: settings.httpAdminGroup, readGroup: settings.httpReadGroup)
  }

  private func accessControl() -> AccessControl {
    let book = TokenBook(TokenFile(in: settings.stateFolder)) { [log] reason in
      log.error("no token is accepted", metadata: ["reason": "\(reason)"])
    }
    return AccessControl(
      peerRules, tcp: settings.httpAuth, clients: settings.httpClients, book: book)
  }

  private func auditLog() -> AuditLog? {
    guard let path = settings.auditPath else { return nil }
    return AuditLog(path: path, headPath: "\(settings.stateFolder)/audit.head") { [log] words in
      log.error("audit", metadata: ["reason": "\(words)"])
    }
  }

  private func makeFolders() throws(Settings.Fault) {
    for path in settings.ownFolders {
      guard mkdir(path, 0o750) == 0 || errno == EEXIST else {
        throw Settings.Fault(description: "\(path) cannot be made: \(IOError.text(of: errno))")
      }
    }
  }

  private func listen(
    _ path: String?, _ address: Settings.HostPort?, mode: UInt32
  ) throws(Settings.Fault) -> [ListeningSocket] {
    do {
      var sockets: [ListeningSocket] = []
      if let path { sockets.append(try .unix(path: path, mode: mode)) }
      if let address {
        sockets.append(
          address.host == Settings.vsock
            ? try .vsock(port: UInt32(address.port))
            : try .tcp(host: address.host, port: address.port))
      }
      return sockets
    } catch {
      throw Settings.Fault(description: "cannot listen: \(error)")
    }
  }

  private func startHTTP(
    _ service: Service, _ access: AccessControl, _ audit: AuditLog?, _ identity: ServerIdentity?,
    on sockets: [ListeningSocket]
  ) throws(Settings.Fault) -> HTTPServer {
    do {
      let http = try HTTPServer(
        Router(
          service, access: access, audit: audit, hosts: settings.httpHosts,
          diagnostics: DiagnosticsSource(settings: settings.pairs) { [tail] in tail.lines }),
        logger: log)
      for socket in sockets {
        try http.listen(on: socket, as: socket.isUnix ? nil : identity)
      }
      return http
    } catch {
      throw Settings.Fault(description: "cannot serve HTTP: \(error)")
    }
  }

  private func announce(_ http: [ListeningSocket], _ nbd: [ListeningSocket]) {
    log.notice(
      "ready",
      metadata: [
        "version": "\(ProductVersion.current)",
        "http": "\(http.map(\.address).joined(separator: ","))",
        "nbd": "\(nbd.map(\.address).joined(separator: ","))",
      ])
    if settings.nbdLetsStrangersIn {
      log.warning(
        "whoever reaches the NBD address gets in by TLS, key or not; nbd-tls-verify-peer lets in those of ours only"
      )
    }
    if settings.isEmbedded { FirstSteps.show(settings, log) }
    ServiceNotification.send("READY=1\nSTATUS=serving")
  }

  static func hostName() -> String {
    var name = [CChar](repeating: 0, count: 256)
    guard gethostname(&name, name.count - 1) == 0 else { return "" }
    return String(
      decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
