internal import Glibc
internal import Logging
internal import PloopControl
internal import PloopHTTP
internal import PloopNBD

/// How the service is to run: embedded defaults, what a file says over them, and what the command
/// line says over that.
struct Settings {
  /// Where the service listens; nil is nowhere.
  struct HostPort: Equatable {
    var host: String
    var port: UInt16
  }

  /// Something in the configuration that cannot be.
  struct Fault: Error, CustomStringConvertible {
    let description: String
  }

  static let ownFolder = "var"
  private static let ownRoot = "\(ownFolder)/images"

  var stateFolder = "\(ownFolder)/state"
  var roots: [(name: String, path: String)] = [("main", ownRoot)]
  var httpSocket: String? = "\(ownFolder)/api.sock"
  var httpAuth = AccessControl.TCP.token
  /// Whose members do everything, and whose see everything, by the Unix socket.
  var httpAdminGroup = PeerRules.adminGroup
  var httpReadGroup = PeerRules.readGroup
  /// Where it is written down who has changed what: nil for a file in the state folder, and `none` for
  /// nowhere.
  var auditLog: String?
  /// A folder with certificates; nil for no TLS.
  var httpCertificates: String?
  /// What those may do whose certificate is for a name.
  var httpClients: [String: Grant] = [:]
  /// Names by which clients call the API, besides this machine's own.
  var httpHosts: [String] = []
  var httpListen: HostPort? = HostPort(host: "127.0.0.1", port: 7447)
  var nbdSocket: String? = "\(ownFolder)/nbd.sock"
  var nbdListen: HostPort? = HostPort(host: "127.0.0.1", port: 10809)
  /// Whether NBD clients over TCP, and those of the Unix socket, use TLS; nil where nobody has said so.
  var nbdTLS: TLSMode?
  var nbdSocketTLS: TLSMode?
  /// A folder with certificates, and a file with pre-shared keys; nil for none.
  var nbdCertificates: String?
  var nbdKeys: String?
  /// Whether only clients of NBD over TLS get in for whom an authority vouches, or who have a key; nil where nobody has
  /// said so.
  var nbdVerifiesPeers: Bool?
  /// Memory for the indexes of all disks together; nil for the default.
  var indexCacheBytes: Int?
  var fleetPart = FleetPart()
  var logLevel = Logger.Level.info
  var logJSON = false
  /// From how long on an operation of a disk is logged as slow; 0 for never.
  var slowOperationMilliseconds = 1_000
  /// Whether nothing was said at all: somebody is trying it out.
  var isEmbedded = true

  /// What is written for a listener that is not wanted.
  static let none = "none"
  /// What is written as the host of a listener that virtual machines reach.
  static let vsock = "vsock"

  /// Folders to be made where they are missing: the state's, and all that was not chosen by anybody.
  /// A chosen root has to be there: made by a slip of the pen it would hide the images.
  var ownFolders: [String] {
    let chosen = [stateFolder] + roots.map(\.path).filter { $0 == Settings.ownRoot }
    let sockets = [httpSocket, nbdSocket].compactMap { $0 }
    let usesOwn = (chosen + sockets).contains { $0.hasPrefix("\(Settings.ownFolder)/") }
    return (usesOwn ? [Settings.ownFolder] : []) + chosen
  }

  /// Nil for nowhere.
  var auditPath: String? {
    let path = auditLog ?? "\(stateFolder)/audit.jsonl"
    return path == Settings.none ? nil : path
  }

  // MARK: Values as they are written

  static func socket(_ text: String) -> String? { text == none ? nil : text }

  /// `host:port`, `[v6]:port`, `vsock:port`.
  static func address(_ text: String, _ option: String) throws(Fault) -> HostPort? {
    guard text != none else { return nil }
    guard let colon = text.lastIndex(of: ":"),
      let port = UInt16(text[text.index(after: colon)...])
    else {
      throw Fault(description: "\(option): \(text) is no HOST:PORT")
    }
    var host = String(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    return HostPort(host: host, port: port)
  }

  var nbdVerifiesClients: Bool { nbdVerifiesPeers ?? false }

  /// Whether there are keys for some, and others get in all the same.
  var nbdLetsStrangersIn: Bool {
    nbdKeys != nil && nbdCertificates != nil && !nbdVerifiesClients
  }

  /// Whoever has certificates or keys for NBD means them to be used.
  var nbdSecurity: (tcp: TLSMode, socket: TLSMode) {
    let isThere = nbdCertificates != nil || nbdKeys != nil
    return (nbdTLS ?? (isThere ? .require : .off), nbdSocketTLS ?? (isThere ? .allow : .off))
  }

  /// What can be told only of all settings together.
  func check() throws(Fault) {
    try checkHTTP()
    try checkNBD()
  }

  private func checkNBD() throws(Fault) {
    for (mode, name) in [(nbdTLS, "nbd-tls"), (nbdSocketTLS, "nbd-socket-tls")] {
      guard let mode, mode != .off, nbdCertificates == nil, nbdKeys == nil else { continue }
      throw Fault(
        description: "\(name): \(mode) needs nbd-tls-certificates or nbd-tls-psk")
    }
    if nbdVerifiesClients, nbdCertificates == nil, nbdKeys == nil {
      throw Fault(description: "nbd-tls-verify-peer: there is no nbd-tls-certificates")
    }
    if nbdVerifiesClients, nbdListen != nil, nbdSecurity.tcp != .require {
      throw Fault(
        description:
          "nbd-tls-verify-peer: with nbd-tls \(nbdSecurity.tcp) who is not verified comes in without TLS; leave nbd-tls at require"
      )
    }
    if let host = nbdListen?.host { try checkNBD(listeningAt: host) }
  }

  /// - Parameter host: an address, or ``vsock``.
  func checkNBD(listeningAt host: String) throws(Fault) {
    guard !Settings.isLoopback(host) else { return }
    guard nbdSecurity.tcp == .require else {
      throw Fault(
        description:
          "nbd-listen: \(host) is not this host's loopback, and beyond that TLS is compulsory: set nbd-tls-certificates and leave nbd-tls at require, or use 127.0.0.1, [::1] or localhost"
      )
    }
    guard nbdCertificates == nil || nbdVerifiesPeers != nil else {
      throw Fault(
        description:
          "nbd-listen: \(host) is not this host's loopback, and whoever reaches it could use the disks: set nbd-tls-verify-peer, or say false to mean that"
      )
    }
  }

  private func checkHTTP() throws(Fault) {
    if httpCertificates == nil, !httpClients.isEmpty {
      throw Fault(description: "http-tls-client: there is no http-tls-certificates")
    }
    if let host = httpListen?.host { try checkHTTP(listeningAt: host) }
  }

  /// - Parameter host: an address, or ``vsock``.
  func checkHTTP(listeningAt host: String) throws(Fault) {
    guard host != Settings.vsock else {
      throw Fault(description: "http-listen: a vsock is for NBD")
    }
    guard !Settings.isLoopback(host) else { return }
    guard httpCertificates != nil else {
      throw Fault(
        description:
          "http-listen: \(host) is not this host's loopback, and beyond that TLS is compulsory: set http-tls-certificates, or use 127.0.0.1, [::1] or localhost"
      )
    }
    guard httpAuth == .token else {
      throw Fault(
        description:
          "http-auth: none is for loopback addresses, and http-listen has \(host)")
    }
  }

  private static func isLoopback(_ host: String) -> Bool {
    if host == "localhost" || host == "::1" { return true }
    var address = in_addr()
    return inet_pton(AF_INET, host, &address) == 1
      && UInt32(bigEndian: address.s_addr) >> 24 == 127
  }

  static func tls(_ text: String, _ option: String) throws(Fault) -> TLSMode {
    guard let mode = TLSMode(rawValue: text) else {
      throw Fault(description: "\(option): \(text) is none of off, allow and require")
    }
    return mode
  }

  static func auth(_ text: String, _ option: String) throws(Fault) -> AccessControl.TCP {
    guard let auth = AccessControl.TCP(rawValue: text) else {
      throw Fault(description: "\(option): \(text) is neither token nor none")
    }
    return auth
  }

  /// `SCOPE,SCOPE`, or `SCOPE,SCOPE@GLOB,GLOB` for some devices.
  static func grant(_ text: String, _ option: String) throws(Fault) -> Grant {
    let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
    var scopes: Set<Scope> = []
    for word in parts[0].split(separator: ",", omittingEmptySubsequences: false) {
      guard let scope = Scope(rawValue: String(word)) else {
        let known = Scope.allCases.map(\.rawValue).joined(separator: ", ")
        throw Fault(description: "\(option): \(word) is none of \(known)")
      }
      scopes.insert(scope)
    }
    guard parts.count == 2 else { return Grant(scopes) }
    guard let devices = DeviceGlobs(parts[1].split(separator: ",").map(String.init)) else {
      throw Fault(description: "\(option): \(parts[1]) is no list of patterns of devices")
    }
    return Grant(scopes, devices: devices)
  }

  static func client(_ text: String) throws(Fault) -> (name: String, grant: Grant) {
    guard let equals = text.lastIndex(of: "="), equals != text.startIndex else {
      throw Fault(description: "--http-tls-client: \(text) is no NAME=SCOPES")
    }
    return (
      String(text[..<equals]),
      try grant(String(text[text.index(after: equals)...]), "--http-tls-client")
    )
  }

  static func root(_ text: String) throws(Fault) -> (name: String, path: String) {
    guard let equals = text.firstIndex(of: "="), equals != text.startIndex,
      text.index(after: equals) != text.endIndex
    else { throw Fault(description: "--root: \(text) is no NAME=DIR") }
    return (String(text[..<equals]), String(text[text.index(after: equals)...]))
  }

  static func milliseconds(_ text: String, _ option: String) throws(Fault) -> Int {
    guard let number = Int(text), (0...3_600_000).contains(number) else {
      throw Fault(description: "\(option): \(text) is no number of milliseconds up to an hour")
    }
    return number
  }

  /// Bytes, or with a unit: `64MiB`.
  static func bytes(_ text: String, _ option: String) throws(Fault) -> Int {
    let units: [(suffix: String, shift: Int)] = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
    let unit = units.first { text.hasSuffix($0.suffix) }
    let digits = unit.map { String(text.dropLast($0.suffix.count)) } ?? text
    guard let number = Int(digits), number >= 0, number <= Int.max >> (unit?.shift ?? 0) else {
      throw Fault(description: "\(option): \(text) is no number of bytes, as 64MiB")
    }
    return number << (unit?.shift ?? 0)
  }

  static func level(_ text: String, _ option: String) throws(Fault) -> Logger.Level {
    guard let level = Logger.Level(rawValue: text) else {
      let known = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
      throw Fault(description: "\(option): \(text) is none of \(known)")
    }
    return level
  }
}
