internal import PloopIO
internal import PloopTLS

/// Says who has sent a request, by what the kernel knows of the connection, by the token that the
/// request shows, or by the client's certificate.
package final class AccessControl: Sendable {
  /// Who is served over TCP.
  package enum TCP: String, Sendable {
    /// Who shows a token.
    case token
    /// Everybody who can reach the address: a loopback one only.
    case none
  }

  private let tcp: TCP
  private let clients: [String: Grant]
  private let rules: Locked<PeerRules>
  private let book: TokenBook?
  private let failures = FailureThrottle()

  /// - Parameters:
  ///   - clients: what those may do who have a certificate for a name.
  ///   - book: nil where no token is known to anybody.
  package init(
    _ rules: PeerRules, tcp: TCP, clients: [String: Grant] = [:], book: TokenBook?
  ) {
    self.clients = clients
    self.rules = Locked(rules)
    self.tcp = tcp
    self.book = book
  }

  /// Call when the host's groups may have changed.
  package func replace(_ rules: PeerRules) { self.rules.withLock { $0 = rules } }

  /// - Throws: `unauthorized`, `too-many-failures` or `peer-not-allowed`.
  func caller(of request: HTTPRequest) throws(Problem) -> Caller {
    if case .tcp = request.peer, tcp == .none {
      return Caller(actor: "anonymous", grant: .all)
    }
    if let secret = try shown(by: request) { return try caller(secret, request) }
    switch request.peer {
    case .unix(_, let user, let groups):
      guard let grant = rules.withLock({ $0 }).grant(user: user, groups: groups) else {
        throw Problem("peer-not-allowed", "the user \(user) may not use this service")
      }
      return Caller(actor: "uid:\(user)", grant: grant)
    case .tcp, .vsock, .unknown: return try caller(by: request.certificate)
    }
  }

  private func caller(by certificate: ClientCertificate?) throws(Problem) -> Caller {
    switch certificate {
    case .trusted(let names):
      for name in names {
        if let grant = clients[name.text] {
          return Caller(actor: "cert:\(name.text)", grant: grant)
        }
      }
      throw Problem(
        "unauthorized",
        "nothing is said of the certificate's names: \(names.map(\.text).joined(separator: ", "))"
      )
    case .untrusted:
      throw Problem("unauthorized", "no authority of this service vouches for the certificate now")
    case nil: throw Problem("unauthorized", "the request shows neither token nor certificate")
    }
  }

  /// Whether somebody at the Unix socket may do nothing unless he shows a token.
  func isStranger(_ peer: SocketPeer) -> Bool {
    guard case .unix(_, let user, let groups) = peer else { return false }
    return rules.withLock { $0 }.grant(user: user, groups: groups) == nil
  }

  /// A proxy before the Unix socket may hand on credentials that are for itself: only what can be one of
  /// our tokens counts as one there.
  private func shown(by request: HTTPRequest) throws(Problem) -> TokenSecret? {
    let values = request.values(of: "authorization")
    guard let value = values.first else { return nil }
    let words = value.split(separator: " ", omittingEmptySubsequences: true)
    let isOurs =
      words.count == 2 && words[0].lowercased() == "bearer"
      && words[1].hasPrefix(TokenSecret.prefix)
    if isOurs, values.count == 1 { return TokenSecret(text: String(words[1])) }
    if case .unix = request.peer, !isOurs { return nil }
    throw refusal(of: request, "Authorization is not one Bearer token of this service")
  }

  private func caller(
    _ secret: TokenSecret, _ request: HTTPRequest
  ) throws(Problem) -> Caller {
    guard let token = book?.token(of: secret) else {
      throw refusal(of: request, "there is no such token")
    }
    let host: String? = if case .tcp(let host, _) = request.peer { host } else { nil }
    // Whoever has the secret may hear what is the matter with it.
    guard !token.isExpired(at: wallClockSeconds()) else {
      throw refusal(of: request, "the token \(token.name) has expired")
    }
    guard token.mayComeFrom(host) else {
      throw refusal(of: request, "the token \(token.name) may not come from here")
    }
    return Caller(actor: "token:\(token.name)", grant: token.grant)
  }

  /// Of credentials that are wrong.
  private func refusal(of request: HTTPRequest, _ detail: String) -> Problem {
    let address =
      switch request.peer {
      case .tcp(let host, _): host
      case .unix(_, let user, _): "uid:\(user)"
      case .vsock, .unknown: request.peer.description
      }
    guard let seconds = failures.failed(address) else { return Problem("unauthorized", detail) }
    var problem = Problem("too-many-failures", "too many wrong credentials come from \(address)")
    problem.retrySeconds = seconds
    return problem
  }
}
