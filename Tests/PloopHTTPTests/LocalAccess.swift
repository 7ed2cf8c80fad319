import PloopControl
import PloopIO

@testable import PloopHTTP

// What most tests ask is asked by root, through the Unix socket.

extension SocketPeer {
  static let root = SocketPeer.unix(process: 1, user: 0, groups: [0])
}

extension HTTPRequest {
  init(
    method: String, target: some Sequence<UInt8>, headers: [(name: String, value: String)] = [],
    body: [UInt8] = []
  ) {
    self.init(from: .root, method: method, target: target, headers: headers, body: body)
  }
}

extension AccessControl {
  /// Without groups or tokens; TCP is open.
  static func local() -> AccessControl {
    AccessControl(PeerRules(ownUser: 0, admins: nil, readers: nil), tcp: .none, book: nil)
  }
}

extension Router {
  init(
    _ service: any ServiceAPI, watchers: EventWatchers = EventWatchers(),
    longestPatience: Int? = nil, diagnostics: DiagnosticsSource = DiagnosticsSource()
  ) {
    self.init(
      service, access: .local(), watchers: watchers, longestPatience: longestPatience,
      diagnostics: diagnostics)
  }
}
