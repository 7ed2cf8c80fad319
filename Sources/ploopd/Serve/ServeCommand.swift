internal import ArgumentParser
internal import Glibc

/// `ploopd serve`: the service, until a signal ends it.
struct ServeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve", abstract: "Serve disks over NBD and manage them over HTTP.",
    discussion: """
      Without options everything is under ./var: state in var/state, images in var/images (the root \
      main), the sockets var/api.sock and var/nbd.sock; HTTP listens on 127.0.0.1:7447 and NBD on \
      127.0.0.1:10809. Over TCP the API wants a token (ploopd token). A file of settings holds the same names; options win over it. A socket or \
      address of "none" is left out; what systemd listens on takes the place of both. SIGTERM and SIGINT end the service cleanly.
      """)

  @Option(help: ArgumentHelp("A YAML file of settings.", valueName: "file"))
  var config: String?
  @Option(help: ArgumentHelp("Where the service keeps what survives it.", valueName: "dir"))
  var stateDir: String?
  @Option(
    help: ArgumentHelp(
      "A folder that images may lie in, and its name in the API.", valueName: "name=dir"))
  var root: [String] = []
  @Option(help: ArgumentHelp("Unix socket of the API.", valueName: "path"))
  var httpSocket: String?
  @Option(
    help: ArgumentHelp(
      "Address of the API; beyond the loopback's TLS is compulsory.", valueName: "host:port"))
  var httpListen: String?
  @Option(
    help: ArgumentHelp(
      "Who is served over TCP: who shows a token, or (none) everybody on this host.",
      valueName: "token|none"))
  var httpAuth: String?
  @Option(
    help: ArgumentHelp(
      "Group whose members do everything by the Unix socket.", valueName: "name"))
  var httpAdminGroup: String?
  @Option(
    help: ArgumentHelp(
      "Group whose members see everything by the Unix socket.", valueName: "name"))
  var httpReadGroup: String?
  @Option(
    help: ArgumentHelp(
      "A folder with server-cert.pem and server-key.pem, and ca-cert.pem for clients' certificates: HTTP over TCP is HTTPS then.",
      valueName: "dir"))
  var httpTlsCertificates: String?
  @Option(
    help: ArgumentHelp(
      "What clients may do whose certificate is for a name, as ops.example.org=admin,data or a=read@vm-*.",
      valueName: "name=scopes"))
  var httpTlsClient: [String] = []
  @Option(
    help: ArgumentHelp("A name or address by which clients call the API.", valueName: "name"))
  var httpHost: [String] = []
  @Option(help: ArgumentHelp("Unix socket for NBD clients.", valueName: "path"))
  var nbdSocket: String?
  @Option(
    help: ArgumentHelp(
      "Address for NBD clients, or vsock:port for virtual machines; beyond the loopback's TLS is compulsory.",
      valueName: "host:port"))
  var nbdListen: String?
  @Option(
    help: ArgumentHelp(
      "Whether NBD over TCP uses TLS; require where there are certificates or keys.",
      valueName: "off|allow|require"))
  var nbdTls: String?
  @Option(
    help: ArgumentHelp(
      "The same of the Unix socket; allow where there are certificates or keys.",
      valueName: "off|allow|require"))
  var nbdSocketTls: String?
  @Option(
    help: ArgumentHelp(
      "A folder with server-cert.pem and server-key.pem, and ca-cert.pem and ca-crl.pem for clients' certificates.",
      valueName: "dir"))
  var nbdTlsCertificates: String?
  @Option(
    help: ArgumentHelp(
      "A file of pre-shared keys for NBD over TLS, as psktool makes it.", valueName: "file"))
  var nbdTlsPsk: String?
  @Flag(
    inversion: .prefixedNo,
    help:
      "Let in by TLS only who shows a certificate of ca-cert.pem, or has a pre-shared key; has to be said beyond the loopback."
  )
  var nbdTlsVerifyPeer: Bool?
  @Option(
    help: ArgumentHelp(
      "Where it is written down who has changed what; none for nowhere.", valueName: "path"))
  var auditLog: String?
  @Option(
    help: ArgumentHelp(
      "Memory for the indexes of all disks together, as 64MiB.", valueName: "bytes"))
  var indexCacheSize: String?
  @Option(
    help: ArgumentHelp(
      "Serve disks together with other hosts, which agree by this etcd on who has which.",
      valueName: "url,url"))
  var etcd: String?
  @Option(
    help: ArgumentHelp(
      "A folder with ca-cert.pem, client-cert.pem and client-key.pem, for an etcd of https://.",
      valueName: "dir"))
  var etcdCertificates: String?
  @Option(
    help: ArgumentHelp(
      "What this host is called in the fleet; otherwise the host's name.", valueName: "name"))
  var node: String?
  @Option(
    help: ArgumentHelp(
      "Where others find this host's API; otherwise where it listens.", valueName: "url"))
  var nodeEndpoint: String?
  @Option(
    help: ArgumentHelp(
      "A label of this host: devices with the label node.NAME go to hosts with the same value.",
      valueName: "name=value"))
  var nodeLabel: [String] = []
  @Option(
    help: ArgumentHelp("How many devices this host takes at most.", valueName: "count"))
  var nodeCapacity: String?
  @Option(
    help: ArgumentHelp(
      "How long this host may say nothing before others have its devices; 15 otherwise.",
      valueName: "seconds"))
  var leaseSeconds: String?
  @Flag(
    inversion: .prefixedNo,
    help:
      "Locks on files of the roots hold between hosts, as on NFSv4: whoever has lost his locks is gone."
  )
  var sharedLocks: Bool?
  @Option(
    help: ArgumentHelp(
      "trace, debug, info, notice, warning, error or critical.", valueName: "level"))
  var logLevel: String?
  @Option(
    help: ArgumentHelp(
      "From how many milliseconds on an operation of a disk is logged as slow; 0 for never.",
      valueName: "ms"))
  var slowOperationMs: String?
  @Flag(help: "Log one JSON object a line.") var logJson = false
  @Flag(
    help:
      "Say what of the settings would keep the service from starting, or that nothing would, and serve nothing; beside a running service too."
  )
  var checkConfig = false

  func run() throws {
    let settings: Settings
    do throws(Settings.Fault) { settings = try self.settings() } catch {
      throw ValidationError(error.description)
    }
    do {
      let process = try ServiceProcess(settings)
      if checkConfig { return try ServeCommand.tell(process.faults()) }
      guard try process.run() else { throw ExitCode(1) }
    } catch let fault as Settings.Fault {
      ServeCommand.complain(fault.description)
      throw ExitCode(1)
    }
  }

  /// - Throws: when there are any.
  private static func tell(_ faults: [Settings.Fault]) throws(ExitCode) {
    for fault in faults { complain(fault.description) }
    guard faults.isEmpty else { throw ExitCode(1) }
    print("the settings are in order")
  }

  private static func complain(_ text: String) {
    var line = "ploopd: \(text)\n"
    line.withUTF8 { bytes in _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
  }

  private func settings() throws(Settings.Fault) -> Settings {
    var settings = Settings()
    if let config { try settings.read(file: config) }
    if let stateDir { settings.stateFolder = stateDir }
    if !root.isEmpty {
      settings.roots = []
      for text in root { settings.roots.append(try Settings.root(text)) }
    }
    if let httpSocket { settings.httpSocket = Settings.socket(httpSocket) }
    if let httpListen {
      settings.httpListen = try Settings.address(httpListen, "--http-listen")
    }
    if let httpAuth { settings.httpAuth = try Settings.auth(httpAuth, "--http-auth") }
    if let httpAdminGroup { settings.httpAdminGroup = httpAdminGroup }
    if let httpReadGroup { settings.httpReadGroup = httpReadGroup }
    if let httpTlsCertificates { settings.httpCertificates = httpTlsCertificates }
    for text in httpTlsClient {
      let client = try Settings.client(text)
      settings.httpClients[client.name] = client.grant
    }
    if let auditLog { settings.auditLog = auditLog }
    if !httpHost.isEmpty { settings.httpHosts = httpHost }
    if let nbdSocket { settings.nbdSocket = Settings.socket(nbdSocket) }
    if let nbdListen { settings.nbdListen = try Settings.address(nbdListen, "--nbd-listen") }
    if let nbdTls { settings.nbdTLS = try Settings.tls(nbdTls, "--nbd-tls") }
    if let nbdSocketTls {
      settings.nbdSocketTLS = try Settings.tls(nbdSocketTls, "--nbd-socket-tls")
    }
    if let nbdTlsCertificates { settings.nbdCertificates = nbdTlsCertificates }
    if let nbdTlsPsk { settings.nbdKeys = nbdTlsPsk }
    if let nbdTlsVerifyPeer { settings.nbdVerifiesPeers = nbdTlsVerifyPeer }
    if let indexCacheSize {
      settings.indexCacheBytes = try Settings.bytes(indexCacheSize, "--index-cache-size")
    }
    if let etcd { settings.fleetPart.etcd = try Settings.urls(etcd, "--etcd") }
    if let etcdCertificates { settings.fleetPart.certificates = etcdCertificates }
    if let node { settings.fleetPart.node = node }
    if let nodeEndpoint { settings.fleetPart.endpoint = nodeEndpoint }
    for text in nodeLabel {
      let (name, value) = try Settings.label(text, "--node-label")
      settings.fleetPart.labels[name] = value
    }
    if let nodeCapacity {
      settings.fleetPart.capacity = try Settings.number(
        nodeCapacity, in: 0...1_000_000, "--node-capacity")
    }
    if let leaseSeconds {
      settings.fleetPart.leaseSeconds = try Settings.number(
        leaseSeconds, in: Settings.FleetPart.leaseRange, "--lease-seconds")
    }
    if let sharedLocks { settings.fleetPart.hasSharedLocks = sharedLocks }
    if let logLevel { settings.logLevel = try Settings.level(logLevel, "--log-level") }
    if let slowOperationMs {
      settings.slowOperationMilliseconds = try Settings.milliseconds(
        slowOperationMs, "--slow-operation-ms")
    }
    if logJson { settings.logJSON = true }
    let options = [
      config, stateDir, httpSocket, httpListen, httpAuth, httpAdminGroup, httpReadGroup, nbdSocket,
      nbdListen, httpTlsCertificates, auditLog, nbdTls, nbdSocketTls, nbdTlsCertificates, nbdTlsPsk,
      etcd,
    ]
    if options.contains(where: { $0 != nil }) || !root.isEmpty { settings.isEmbedded = false }
    try settings.check()
    return settings
  }
}
