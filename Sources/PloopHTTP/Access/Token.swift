internal import FoundationEssentials
internal import PloopControl
package import PloopIO
package import PloopJSON

/// The secret that a client shows: 256 random bits, behind a prefix by which scanners find those that
/// were published by mistake. It is kept nowhere.
package struct TokenSecret: Sendable {
  package static let prefix = "plp_"
  private static let bytes = 32

  package let text: String

  /// A new one. The system's generator asks the kernel (man 2 getrandom).
  package static func make() -> TokenSecret {
    var generator = SystemRandomNumberGenerator()
    let random = (0..<bytes).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
    let text = Data(random).base64EncodedString()
      .replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    return TokenSecret(text: prefix + text)
  }

  /// What is kept instead. Nobody can guess 256 bits, so a slow hash would slow nobody but us.
  package var digest: String { SHA256.hexDigest(Array(text.utf8)) }

  package init(text: String) { self.text = text }
}

/// Who may come over TCP, from where, until when, and for what.
package struct Token: Sendable, Equatable {
  package let name: String
  /// SHA-256 of its secret, 64 hexadecimal digits.
  package let digest: String
  package let grant: Grant
  /// Where it may come from; empty for everywhere.
  package let networks: [Network]
  /// Seconds since 1970; nil for never.
  package let expiresAt: Double?
  /// Seconds since 1970.
  package let createdAt: Double

  package init(
    name: String, digest: String, grant: Grant, networks: [Network] = [],
    expiresAt: Double? = nil, createdAt: Double
  ) {
    self.name = name
    self.digest = digest
    self.grant = grant
    self.networks = networks
    self.expiresAt = expiresAt
    self.createdAt = createdAt
  }

  /// Whether this is the hash of its secret. It takes as long for every hash that it is not.
  func hasDigest(_ other: [UInt8]) -> Bool {
    let own = Array(digest.utf8)
    guard own.count == other.count else { return false }
    var difference: UInt8 = 0
    for index in own.indices { difference |= own[index] ^ other[index] }
    return difference == 0
  }

  package func isExpired(at now: Double) -> Bool { expiresAt.map { now >= $0 } ?? false }

  /// - Parameter host: nil for who comes by a Unix socket.
  func mayComeFrom(_ host: String?) -> Bool {
    networks.isEmpty || host.map { host in networks.contains { $0.contains(host) } } ?? false
  }
}

extension Token {
  package var json: JSON {
    .members([
      "name": .string(name), "sha256": .string(digest),
      "scopes": .array(Scope.allCases.filter(grant.scopes.contains).map { .string($0.rawValue) }),
      "devices": grant.devices.map { .array($0.patterns.map(JSON.string)) } ?? .null,
      "networks": .array(networks.map { .string($0.text) }),
      "expires_at": expiresAt.map { .integer(Int64($0)) } ?? .null,
      "created_at": .integer(Int64(createdAt)),
    ])
  }

  init(_ value: JSON) throws(Problem) {
    var fields = try Fields(value)
    let name = try fields.requiredText("name")
    let digest = try fields.requiredText("sha256")
    guard Token.isName(name), digest.utf8.count == 64,
      digest.utf8.allSatisfy({ "0123456789abcdef".utf8.contains($0) })
    else { throw Problem("invalid-value", "a token's name or hash is none") }
    var scopes: Set<Scope> = []
    for text in try fields.list("scopes") {
      guard let scope = Scope(rawValue: text) else {
        throw Problem("invalid-value", "there is no scope \(text)")
      }
      scopes.insert(scope)
    }
    var devices: DeviceGlobs?
    if let patterns = try fields.listOrNull("devices") {
      devices = DeviceGlobs(patterns)
      guard devices != nil else { throw Problem("invalid-value", "devices are no patterns") }
    }
    var networks: [Network] = []
    for text in try fields.list("networks") {
      guard let network = Network(text) else {
        throw Problem("invalid-value", "\(text) is no network")
      }
      networks.append(network)
    }
    let expiresAt = try fields.secondsOrNull("expires_at")
    guard let createdAt = try fields.number("created_at") else {
      throw Problem("invalid-value", "created_at is missing")
    }
    try fields.finish()
    self.init(
      name: name, digest: digest, grant: Grant(scopes, devices: devices), networks: networks,
      expiresAt: expiresAt, createdAt: Double(createdAt))
  }

  /// What needs no quotes in a shell, a log or a table.
  package static func isName(_ text: String) -> Bool {
    (1...63).contains(text.utf8.count)
      && text.utf8.allSatisfy {
        (0x61...0x7A).contains($0) || (0x41...0x5A).contains($0) || (0x30...0x39).contains($0)
          || "._-".utf8.contains($0)
      }
  }
}

extension Fields {
  fileprivate mutating func list(_ name: String) throws(Problem) -> [String] {
    guard let list = try listOrNull(name) else { throw wrongValue(name, "a list is expected") }
    return list
  }

  fileprivate mutating func listOrNull(_ name: String) throws(Problem) -> [String]? {
    switch json(name) {
    case .null?: return nil
    case .array(let items)?:
      var texts: [String] = []
      for item in items {
        guard case .string(let text) = item else { throw wrongValue(name, "texts are expected") }
        texts.append(text)
      }
      return texts
    default: throw wrongValue(name, "a list is expected")
    }
  }

  fileprivate mutating func secondsOrNull(_ name: String) throws(Problem) -> Double? {
    switch json(name) {
    case .null?: return nil
    case .integer(let seconds)? where (0...JSON.largestNumber).contains(seconds):
      return Double(seconds)
    default: throw wrongValue(name, "seconds since 1970, or null, are expected")
    }
  }
}
