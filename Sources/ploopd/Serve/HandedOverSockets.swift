internal import PloopIO

/// What systemd listens on for the service, and goes on listening on while it is started again.
struct HandedOverSockets {
  private enum Name: String, CaseIterable { case nbd, http }

  private(set) var nbd: [ListeningSocket] = []
  private(set) var http: [ListeningSocket] = []

  /// Takes what is there; call it once, before there are other threads.
  init() throws(Settings.Fault) {
    do {
      for (name, socket) in try InheritedSockets.take(called: Name.allCases.map(\.rawValue)) {
        if name == Name.nbd.rawValue { nbd.append(socket) } else { http.append(socket) }
      }
    } catch {
      throw Settings.Fault(description: error.description)
    }
  }

  /// The settings without the sockets and addresses in whose place these are.
  ///
  /// - Throws: the rules for addresses, whoever listens there.
  func replacing(_ settings: Settings) throws(Settings.Fault) -> Settings {
    var settings = settings
    if !nbd.isEmpty { (settings.nbdSocket, settings.nbdListen) = (nil, nil) }
    if !http.isEmpty { (settings.httpSocket, settings.httpListen) = (nil, nil) }
    if !nbd.isEmpty || !http.isEmpty { settings.isEmbedded = false }
    for socket in nbd {
      if let host = host(of: socket) { try settings.checkNBD(listeningAt: host) }
    }
    for socket in http {
      if let host = host(of: socket) { try settings.checkHTTP(listeningAt: host) }
    }
    return settings
  }

  /// Nil for a Unix socket, whose file says who may connect.
  private func host(of socket: ListeningSocket) -> String? {
    switch socket.family {
    case .unix: nil
    case .tcp: socket.host
    case .vsock: Settings.vsock
    }
  }
}
