internal import FoundationEssentials
internal import Yams

/// The configuration file: the names of the command line, in YAML.
///
///     state-dir: /var/lib/ploopd
///     root: {main: /srv/ploop}
///     http-socket: /run/ploopd/api.sock
///     http-listen: none
extension Settings {
  private static let fileBytesLimit = 1 << 20

  mutating func read(file path: String) throws(Fault) {
    isEmbedded = false
    let node: Node?
    do {
      let data = try Data(contentsOf: URL(filePath: path))
      guard data.count <= Settings.fileBytesLimit else {
        throw Fault(description: "it has more than \(Settings.fileBytesLimit) bytes")
      }
      node = try compose(yaml: String(decoding: data, as: UTF8.self))
    } catch {
      throw Fault(description: "\(path) cannot be read: \(error)")
    }
    guard let node else { return }
    guard case .mapping(let mapping) = node else {
      throw Fault(description: "\(path): names and values are expected, as in `http-listen: none`")
    }
    // A name that is there twice is refused by the library.
    for (key, value) in mapping {
      let name = key.string ?? ""
      let place = key.mark.map { "\(path):\($0.line)" } ?? path
      do throws(Fault) { try set(name, value) } catch {
        throw Fault(description: "\(place): \(error.description)")
      }
    }
  }

  private mutating func set(_ name: String, _ value: Node) throws(Fault) {
    switch name {
    case "state-dir": stateFolder = try Settings.text(value, name)
    case "root":
      guard case .mapping(let mapping) = value, !mapping.isEmpty else {
        throw Fault(description: "root: names and folders are expected")
      }
      var roots: [(name: String, path: String)] = []
      for (key, folder) in mapping {
        roots.append((try Settings.text(key, name), try Settings.text(folder, name)))
      }
      self.roots = roots
    case "http-socket": httpSocket = Settings.socket(try Settings.text(value, name))
    case "http-listen": httpListen = try Settings.address(try Settings.text(value, name), name)
    case "http-auth": httpAuth = try Settings.auth(try Settings.text(value, name), name)
    case "http-admin-group": httpAdminGroup = try Settings.text(value, name)
    case "http-read-group": httpReadGroup = try Settings.text(value, name)
    case "http-tls-certificates": httpCertificates = try Settings.text(value, name)
    case "http-tls-client":
      guard case .mapping(let mapping) = value else {
        throw Fault(description: "http-tls-client: names and scopes are expected")
      }
      httpClients = [:]
      for (key, scopes) in mapping {
        let client = try Settings.text(key, name)
        httpClients[client] = try Settings.grant(try Settings.text(scopes, name), name)
      }
    case "http-host":
      guard case .sequence(let items) = value else {
        httpHosts = [try Settings.text(value, name)]
        return
      }
      httpHosts = []
      for item in items { httpHosts.append(try Settings.text(item, name)) }
    case "audit-log": auditLog = try Settings.text(value, name)
    case "nbd-socket": nbdSocket = Settings.socket(try Settings.text(value, name))
    case "nbd-listen": nbdListen = try Settings.address(try Settings.text(value, name), name)
    case "nbd-tls": nbdTLS = try Settings.tls(try Settings.text(value, name), name)
    case "nbd-socket-tls": nbdSocketTLS = try Settings.tls(try Settings.text(value, name), name)
    case "nbd-tls-certificates": nbdCertificates = try Settings.text(value, name)
    case "nbd-tls-psk": nbdKeys = try Settings.text(value, name)
    case "nbd-tls-verify-peer": nbdVerifiesPeers = try Settings.flag(value, name)
    case "index-cache-size":
      indexCacheBytes = try Settings.bytes(try Settings.text(value, name), name)
    case "etcd": fleetPart.etcd = try Settings.urls(try Settings.text(value, name), name)
    case "etcd-certificates": fleetPart.certificates = try Settings.text(value, name)
    case "node": fleetPart.node = try Settings.text(value, name)
    case "node-endpoint": fleetPart.endpoint = try Settings.text(value, name)
    case "node-label":
      guard case .mapping(let mapping) = value else {
        throw Fault(description: "node-label: names and values are expected")
      }
      fleetPart.labels = [:]
      for (key, text) in mapping {
        fleetPart.labels[try Settings.text(key, name)] = try Settings.text(text, name)
      }
    case "node-capacity":
      fleetPart.capacity = try Settings.number(
        try Settings.text(value, name), in: 0...1_000_000, name)
    case "lease-seconds":
      fleetPart.leaseSeconds = try Settings.number(
        try Settings.text(value, name), in: FleetPart.leaseRange, name)
    case "shared-locks": fleetPart.hasSharedLocks = try Settings.flag(value, name)
    case "log-level": logLevel = try Settings.level(try Settings.text(value, name), name)
    case "slow-operation-ms":
      slowOperationMilliseconds = try Settings.milliseconds(try Settings.text(value, name), name)
    case "log-json": logJSON = try Settings.flag(value, name)
    default:
      let meant = Settings.name(near: name).map { "; \($0) is one" } ?? ""
      throw Fault(description: "there is no setting \(name)\(meant)")
    }
  }

  /// A setting's name that somebody has written differently, with two slips of the pen at most.
  private static func name(near text: String) -> String? {
    let text = String(text.lowercased().map { $0 == "_" ? "-" : $0 })
    let near = Settings().pairs.map { (name: $0.name, slips: slips(text, $0.name)) }
      .min { $0.slips < $1.slips }
    return near.flatMap { $0.slips <= 2 ? $0.name : nil }
  }

  /// How many characters have to be put in, left out or changed until one text is the other.
  private static func slips(_ one: String, _ other: String) -> Int {
    var row = Array(0...other.count)
    for (index, character) in one.enumerated() {
      var corner = row[0]
      row[0] = index + 1
      for (column, wanted) in other.enumerated() {
        let changed = corner + (character == wanted ? 0 : 1)
        corner = row[column + 1]
        row[column + 1] = min(changed, corner + 1, row[column] + 1)
      }
    }
    return row[other.count]
  }

  private static func flag(_ node: Node, _ name: String) throws(Fault) -> Bool {
    guard let flag = node.bool else {
      throw Fault(description: "\(name): true or false is expected")
    }
    return flag
  }

  private static func text(_ node: Node, _ name: String) throws(Fault) -> String {
    guard case .scalar(let scalar) = node, !scalar.string.isEmpty else {
      throw Fault(description: "\(name): a text is expected")
    }
    return scalar.string
  }
}
