internal import Glibc
internal import PloopIO

/// What shows who asks. It never stands on a command line, nor in what is printed.
struct Token: Sendable {
  let secret: String
  /// Where a shell finds it for the same call.
  let source: Source

  enum Source: Sendable, Equatable {
    case environment
    /// Whether the file has the whole header, as `var/token` of `make run`.
    case file(path: String, isHeader: Bool)
  }

  static let variable = "PLOOPD_TOKEN"
  private static let prefix = "Authorization: Bearer "
  private static let mostBytes = 4096

  /// The one of a file, or, where there is none and the service is not at a Unix socket, of the environment: at a
  /// socket the kernel says who asks.
  static func find(file: String?, for endpoint: Endpoint) throws(ClientFault) -> Token? {
    let token: Token
    if let file {
      token = try read(file)
    } else if case .web = endpoint, let secret = environment(variable) {
      token = Token(secret: try checked(secret, variable), source: .environment)
    } else {
      return nil
    }
    guard endpoint.isPrivate else {
      throw ClientFault(
        .usage, "\(endpoint.base): a token is not sent where others can read it; use https://")
    }
    return token
  }

  private static func read(_ path: String) throws(ClientFault) -> Token {
    guard let file = fopen(path, "re") else {
      throw ClientFault(.usage, "\(path): \(IOError.text(of: errno))")
    }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: mostBytes)
    let count = fread(&bytes, 1, bytes.count, file)
    var text = String(decoding: bytes.prefix(count), as: UTF8.self)
    while text.last?.isWhitespace == true { text.removeLast() }
    let isHeader = text.hasPrefix(prefix)
    if isHeader { text.removeFirst(prefix.count) }
    return Token(secret: try checked(text, path), source: .file(path: path, isHeader: isHeader))
  }

  private static func checked(_ text: String, _ place: String) throws(ClientFault) -> String {
    guard !text.isEmpty, text.utf8.count < mostBytes,
      text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
    else { throw ClientFault(.usage, "\(place) holds no token") }
    return text
  }
}

/// - Returns: nil for an empty one, too.
func environment(_ name: String) -> String? {
  guard let value = getenv(name) else { return nil }
  let text = String(cString: value)
  return text.isEmpty ? nil : text
}
