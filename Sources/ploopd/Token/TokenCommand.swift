internal import ArgumentParser
internal import FoundationEssentials
internal import PloopControl
internal import PloopHTTP
internal import PloopIO
internal import PloopJSON

/// `ploopd token`: who may come over TCP. The service sees each change with its next request.
struct TokenCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "token", abstract: "Say who may use the API over TCP.",
    discussion: """
      Works on the state folder of a service, running or not. Only hashes are kept: a token is shown \
      once, when it is made. A change counts from the next request on.
      """,
    subcommands: [TokenAddCommand.self, TokenListCommand.self, TokenRevokeCommand.self])
}

/// Where the tokens are.
struct TokenPlace: ParsableArguments {
  @Option(help: ArgumentHelp("The service's state folder.", valueName: "dir"))
  var stateDir: String?
  @Option(help: ArgumentHelp("The service's file of settings.", valueName: "file"))
  var config: String?

  func file() throws -> TokenFile {
    var settings = Settings()
    do throws(Settings.Fault) {
      if let config { try settings.read(file: config) }
    } catch { throw ValidationError(error.description) }
    return TokenFile(in: stateDir ?? settings.stateFolder)
  }
}

struct TokenAddCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "add", abstract: "Make a token and print it, this once.")

  @Argument(help: "What it is called in logs and lists.") var name: String
  @Option(
    name: .customLong("scope"),
    help: ArgumentHelp(
      "read, operate, admin (each includes those before it) or data; several may be given.",
      valueName: "scope"))
  var scopes: [String]
  @Option(
    name: .customLong("device"),
    help: ArgumentHelp(
      "Only devices whose ids are like this, as 'tenant-a-*'; several may be given.",
      valueName: "glob"))
  var devices: [String] = []
  @Option(
    name: .customLong("from"),
    help: ArgumentHelp(
      "Only from these addresses, as 10.0.0.0/8; several may be given.", valueName: "cidr"))
  var networks: [String] = []
  @Option(
    help: ArgumentHelp(
      "Until when: 90d, 12h, 30m, or a time as 2027-01-31T00:00:00Z.", valueName: "when"))
  var expires: String?
  @OptionGroup var place: TokenPlace

  func run() throws {
    let secret = TokenSecret.make()
    let now = wallClockSeconds()
    let token = Token(
      name: try checkedName(), digest: secret.digest, grant: try grant(),
      networks: try networks.map(TokenAddCommand.network),
      expiresAt: try expires.map { try TokenAddCommand.end($0, now) }, createdAt: now)
    let file = try place.file()
    try reporting {
      try file.change { tokens in
        guard !tokens.contains(where: { $0.name == name }) else {
          throw CommandFault("there is a token \(name); revoke it first, or choose another name")
        }
        guard tokens.count < TokenFile.mostTokens else {
          throw CommandFault("there are \(tokens.count) tokens, which is the most")
        }
        tokens.append(token)
      }
    }
    print(secret.text)
  }

  private func checkedName() throws -> String {
    guard Token.isName(name) else {
      throw ValidationError("\(name) is no name: 1 to 63 letters, digits, '.', '_' and '-'")
    }
    return name
  }

  private func grant() throws -> Grant {
    let scopes = try scopes.flatMap { $0.split(separator: ",") }.map { text throws -> Scope in
      guard let scope = Scope(rawValue: String(text)) else {
        let known = Scope.allCases.map(\.rawValue).joined(separator: ", ")
        throw ValidationError("--scope: \(text) is none of \(known)")
      }
      return scope
    }
    guard !scopes.isEmpty else { throw ValidationError("--scope: what may it do?") }
    guard !devices.isEmpty else { return Grant(Set(scopes)) }
    guard let globs = DeviceGlobs(devices) else {
      throw ValidationError(
        "--device: 1 to 64 patterns of a-z, 0-9, '.', '_', '-', '*' and '?' are expected")
    }
    return Grant(Set(scopes), devices: globs)
  }

  private static func network(_ text: String) throws -> Network {
    guard let network = Network(text) else {
      throw ValidationError("--from: \(text) is no network, as 10.0.0.0/8 or 2001:db8::/32")
    }
    return network
  }

  private static func end(_ text: String, _ now: Double) throws -> Double {
    let units: [Character: Double] = ["m": 60, "h": 3600, "d": 86_400]
    if let unit = text.last.flatMap({ units[$0] }), let count = UInt32(text.dropLast()), count > 0 {
      return now + Double(count) * unit
    }
    guard let date = try? Date.ISO8601FormatStyle().parse(text) else {
      throw ValidationError("--expires: \(text) is neither a duration as 90d nor a time")
    }
    guard date.timeIntervalSince1970 > now else {
      throw ValidationError("--expires: \(text) is over")
    }
    return date.timeIntervalSince1970
  }
}

struct TokenListCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Show all tokens, without what only their owners know.")

  @Flag(help: "As JSON.") var json = false
  @OptionGroup var place: TokenPlace

  func run() throws {
    let file = try place.file()
    let tokens = try reporting { try file.tokens() }
    guard !json else {
      print(String(decoding: JSON.array(tokens.map(\.json)).encoded, as: UTF8.self))
      return
    }
    for token in tokens { print(TokenListCommand.line(token, wallClockSeconds())) }
  }

  private static func line(_ token: Token, _ now: Double) -> String {
    let scopes = Scope.allCases.filter(token.grant.scopes.contains).map(\.rawValue)
    var words = [token.name, scopes.joined(separator: ",")]
    if let devices = token.grant.devices {
      words.append("devices=\(devices.patterns.joined(separator: ","))")
    }
    if !token.networks.isEmpty {
      words.append("from=\(token.networks.map(\.text).joined(separator: ","))")
    }
    if let end = token.expiresAt {
      let time = Date(timeIntervalSince1970: end).formatted(Date.ISO8601FormatStyle())
      words.append(token.isExpired(at: now) ? "expired=\(time)" : "expires=\(time)")
    }
    return words.joined(separator: " ")
  }
}

struct TokenRevokeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "revoke", abstract: "Forget a token: its next request is refused.")

  @Argument(help: "What it is called.") var name: String
  @OptionGroup var place: TokenPlace

  func run() throws {
    let file = try place.file()
    try reporting {
      try file.change { tokens in
        guard tokens.contains(where: { $0.name == name }) else {
          throw CommandFault("there is no token \(name)")
        }
        tokens.removeAll { $0.name == name }
      }
    }
  }
}
