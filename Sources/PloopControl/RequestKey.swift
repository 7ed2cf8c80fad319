internal import PloopIO

/// The name that a caller gives a request, so that it has its effect only once however often it is
/// made.
package struct RequestKey: Sendable, Hashable {
  /// How long an answer is kept; afterwards the same key makes a new request.
  package static let secondsKept = 24 * 60 * 60
  /// Older answers than these go even before their time.
  package static let mostKept = 20_000

  package let text: String
  /// What was asked for, in words for people.
  package let route: String
  /// Tells two requests apart that come with one key.
  package let fingerprint: String

  package init(_ text: String, route: String, fingerprint: String) {
    self.text = text
    self.route = route
    self.fingerprint = fingerprint
  }

  /// The request, as it is written beside what it makes where the database cannot tell.
  var words: String { "\(fingerprint) \(text)" }
}

/// Turns what a request has made into the answer that is kept under its key, in the transaction
/// that makes it.
package struct AnswerKeeper<Created: Sendable>: Sendable {
  package let key: RequestKey
  let encode: @Sendable (Created) -> String

  package init(_ key: RequestKey, _ encode: @escaping @Sendable (Created) -> String) {
    self.key = key
    self.encode = encode
  }

  func keep(_ created: Created, in transaction: StateTransaction) throws(ServiceError) {
    try transaction.keep(encode(created), of: key, seconds: RequestKey.secondsKept)
  }
}

/// What is known about a request with a key before it is served.
package enum RequestClaim: Sendable {
  /// Nothing: it is to be served, and then released.
  case new
  /// It was served, and this was its answer.
  case answered(String)
}

extension Service {
  /// Takes a key for the time that its request is being served.
  ///
  /// - Throws: `idempotency-key-in-use` while the same request is being served, and
  ///   `idempotency-key-reused` when the key belongs to another request.
  package func claim(_ key: RequestKey) async throws(ServiceError) -> RequestClaim {
    try claims.withLock { claims throws(ServiceError) in
      if let other = claims[key.text] {
        try Service.requireSame(key, other.fingerprint)
        throw ServiceError(
          .idempotencyKeyInUse, "the first request with the key \(key.text) is still being served")
      }
      claims[key.text] = key
    }
    do throws(ServiceError) {
      let kept = try await clerk.run { [store] () throws(ServiceError) in
        try store.read { transaction throws(ServiceError) in try transaction.answer(of: key) }
      }
      guard let kept else { return .new }
      try Service.requireSame(key, kept.fingerprint)
      release(key)
      return .answered(kept.answer)
    } catch {
      release(key)
      throw error
    }
  }

  /// Call when the request of a new claim has ended, however it ended.
  package func release(_ key: RequestKey) {
    claims.withLock { _ = $0.removeValue(forKey: key.text) }
  }

  private static func requireSame(
    _ key: RequestKey, _ fingerprint: String
  ) throws(ServiceError) {
    guard key.fingerprint != fingerprint else { return }
    throw ServiceError(
      .idempotencyKeyReused, "the key \(key.text) belongs to another request",
      remedy: "use a new key for each request")
  }
}
