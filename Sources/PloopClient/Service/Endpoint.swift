internal import Glibc
internal import PloopPeer

/// Where the service is.
enum Endpoint: Sendable, Equatable {
  case socket(path: String)
  /// `http://` or `https://` with host and port.
  case web(base: String)

  /// Where a service with the example settings has its socket, and where `make run` has it.
  static let installed = "/run/ploopd/api.sock"
  static let own = "var/api.sock"

  static var usual: Endpoint {
    .socket(path: access(installed, F_OK) == 0 ? installed : own)
  }

  /// - Parameter text: `http://HOST:PORT`, `https://HOST:PORT`, `unix:PATH`, or a path.
  init(_ text: String) throws(ClientFault) {
    if text.hasPrefix("http://") || text.hasPrefix("https://") {
      guard PeerAddress(text) != nil else {
        throw ClientFault(
          .usage, "\(text) is no address: scheme, host and port are expected, no path")
      }
      self = .web(base: text.hasSuffix("/") ? String(text.dropLast()) : text)
      return
    }
    let path = text.hasPrefix("unix:") ? String(text.dropFirst(5)) : text
    guard text.hasPrefix("unix:") || path.contains("/"), !path.isEmpty,
      !text.contains("://")
    else {
      throw ClientFault(
        .usage,
        "\(text) is no address: http://HOST:PORT, https://HOST:PORT or unix:PATH is expected")
    }
    self = .socket(path: path)
  }

  var peer: PeerAddress? {
    switch self {
    case .socket(let path): PeerAddress(socket: path)
    case .web(let base): PeerAddress(base)
    }
  }

  var base: String {
    switch self {
    case .socket: "http://localhost"
    case .web(let base): base
    }
  }

  /// Whether what is sent cannot be read on the way.
  var isPrivate: Bool {
    guard case .web(let base) = self, let host = base.split(separator: "/").last,
      !base.hasPrefix("https://")
    else { return true }
    let loopbacks = ["localhost", "127.0.0.1", "[::1]"]
    return loopbacks.contains { host == $0 || host.hasPrefix("\($0):") }
  }
}
