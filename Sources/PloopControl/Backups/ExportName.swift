/// Which export an address of an NBD server means, however it is written: with TLS or without, with the usual port
/// or none, in whatever case and escapes.
struct ExportName: Equatable {
  private static let port = "10809"

  /// A host and a port, or the path of a socket as it stands there.
  private let server: String
  private let export: String

  /// - Returns: nil for what is no such address.
  init?(_ uri: String) {
    guard let end = uri.firstRange(of: "://")?.upperBound else { return nil }
    let rest = uri[end...].prefix { $0 != "?" && $0 != "#" }
    let authority = rest.prefix { $0 != "/" }
    guard let export = PercentEncoding.decode(rest.dropFirst(authority.count + 1).utf8) else {
      return nil
    }
    self.export = export
    if let socket = try? TargetPlace.socketPath(of: uri) {
      server = socket
    } else {
      let host = authority.split(separator: "@").last.map(String.init) ?? ""
      // A colon within brackets is one of an IPv6 address.
      let hasPort = host.lastIndex(of: ":").map { !host[$0...].contains("]") } ?? false
      server = (hasPort ? host : "\(host):\(ExportName.port)").lowercased()
    }
  }
}
