internal import Logging
internal import PloopControl
internal import PloopEtcd
internal import PloopIO
internal import PloopPeer

extension Settings {
  /// What this host has together with others.
  struct FleetPart {
    /// URLs of etcd's members; none for a host of its own.
    var etcd: [String] = []
    /// A folder with ca-cert.pem, client-cert.pem and client-key.pem; nil for none.
    var certificates: String?
    /// Nil for the host's name.
    var node: String?
    /// Where others find the API; nil for where it listens.
    var endpoint: String?
    var labels: [String: String] = [:]
    var capacity: Int?
    var leaseSeconds = 15
    var hasSharedLocks = false

    static let leaseRange = 5...3_600
  }

  static func urls(_ text: String, _ option: String) throws(Fault) -> [String] {
    let urls = text.split(separator: ",").map(String.init)
    guard !urls.isEmpty, urls.allSatisfy({ PeerAddress($0) != nil }) else {
      throw Fault(description: "\(option): \(text) is no list of http://HOST:PORT or https://")
    }
    return urls
  }

  static func label(_ text: String, _ option: String) throws(Fault) -> (String, String) {
    let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[0].isEmpty else {
      throw Fault(description: "\(option): \(text) is no NAME=VALUE")
    }
    return (String(parts[0]), String(parts[1]))
  }

  static func number(
    _ text: String, in range: ClosedRange<Int>, _ option: String
  ) throws(Fault) -> Int {
    guard let number = Int(text), range.contains(number) else {
      throw Fault(
        description:
          "\(option): \(text) is no whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// - Parameter host: this host's name.
  /// - Returns: nil for a host of its own.
  func fleet(host: String, log: Logger) throws(Fault) -> Fleet? {
    guard !fleetPart.etcd.isEmpty else { return nil }
    let name =
      fleetPart.node ?? host.split(separator: ".").first.map(String.init)?.lowercased() ?? ""
    guard Names.isValid(name) else {
      throw Fault(
        description:
          "node: \(name.isEmpty ? "this host has no name; one" : "\(name) is no name; one of a-z, 0-9, - and _") is expected"
      )
    }
    if let endpoint = fleetPart.endpoint, PeerAddress(endpoint) == nil {
      throw Fault(description: "node-endpoint: \(endpoint) is no http://HOST:PORT or https://")
    }
    guard var endpoint = fleetPart.endpoint ?? ownEndpoint else {
      throw Fault(description: "node-endpoint: others have to know where the API of this node is")
    }
    if endpoint.hasSuffix("/") { endpoint.removeLast() }
    var addresses: [PeerAddress] = []
    for url in fleetPart.etcd {
      guard let address = PeerAddress(url) else {
        throw Fault(description: "etcd: \(url) is no address")
      }
      addresses.append(address)
    }
    var identity = HTTPClient.Identity()
    if let folder = fleetPart.certificates {
      identity.authorities = "\(folder)/ca-cert.pem"
      identity.certificate = "\(folder)/client-cert.pem"
      identity.key = "\(folder)/client-key.pem"
    }
    var part = FleetSettings(
      node: FleetNode(
        name: name, endpoint: endpoint, version: ProductVersion.current,
        labels: fleetPart.labels, capacity: fleetPart.capacity ?? ServiceLimits().maxDevices,
        since: wallClockSeconds()))
    part.leaseSeconds = fleetPart.leaseSeconds
    part.hasSharedLocks = fleetPart.hasSharedLocks
    // A member that says nothing must not take a renewal's time from the others.
    let seconds = max(1, part.leaseSeconds / 6)
    return Fleet(
      part, in: EtcdClient(addresses, as: identity, answerSeconds: seconds), log: log)
  }

  private var ownEndpoint: String? {
    httpListen.flatMap { address in
      guard address.host != Settings.vsock, address.port != 0 else { return nil }
      let host = address.host.contains(":") ? "[\(address.host)]" : address.host
      return "\(httpCertificates == nil ? "http" : "https")://\(host):\(address.port)"
    }
  }
}
