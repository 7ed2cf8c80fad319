internal import FoundationEssentials
internal import PloopIO
package import PloopJSON
package import PloopPeer
internal import Synchronization

/// Why etcd has not done what was asked.
package struct EtcdError: Error, Sendable {
  package enum Kind: Sendable, Equatable {
    /// No member of the cluster answers, or there is no leader: whether it was done, nobody knows.
    case unreachable
    /// It was refused; asking again makes no difference.
    case refused
    /// What was to be watched from there on is not kept any more.
    case compacted
  }

  package let kind: Kind
  package let detail: String

  package init(_ kind: Kind, _ detail: String) {
    self.kind = kind
    self.detail = detail
  }
}

/// A cluster of etcd, by the JSON of its HTTP gateway.
///
/// The gateway leaves out whatever is false, zero or empty, and writes 64-bit numbers as strings; keys and values are
/// base64. A member that does not answer is passed over: the next one is asked, and is asked first from then on.
package final class EtcdClient: Sendable {
  private static let connectSeconds = 1
  private static let replyLimitBytes = 256 << 20
  fileprivate static let limits = JSONParser.Limits(depth: 32, items: 10_000_000)
  /// gRPC's code for what may pass: no leader, no majority, a member that ends.
  private static let unavailable: Set<Int64> = [1, 4, 14]

  private let members: [HTTPClient]
  private let preferred = Atomic<Int>(0)

  /// - Parameters:
  ///   - addresses: of its members' client interfaces; at least one.
  ///   - identity: as what they are shown who asks.
  ///   - answerSeconds: how long each is waited for: one that has lost its leader says nothing for longer.
  package init(
    _ addresses: [PeerAddress], as identity: HTTPClient.Identity = .init(), answerSeconds: Int = 3
  ) {
    members = addresses.map { address in
      var client = HTTPClient(address: address)
      client.connectSeconds = EtcdClient.connectSeconds
      client.seconds = answerSeconds
      client.replyLimitBytes = EtcdClient.replyLimitBytes
      client.identity = identity
      return client
    }
  }

  /// - Throws: `.unreachable` when no member has answered, `.refused` for what etcd will not do.
  package func ask(_ path: String, _ body: JSON) throws(EtcdError) -> JSON {
    try trying { (member) throws(EtcdError) in
      let reply: HTTPClient.Reply
      do throws(PeerError) { reply = try member.send("POST", path, body.encoded) } catch {
        throw EtcdError(error)
      }
      return try EtcdClient.answer(reply)
    }
  }

  /// Asks for what comes line by line, for a time.
  ///
  /// - Parameters:
  ///   - seconds: how long at most.
  ///   - receive: is given each line; false ends it.
  /// - Throws: as ``ask(_:_:)``; not when the time is over.
  package func stream(
    _ path: String, _ body: JSON, seconds: Int, _ receive: (JSON) -> Bool
  ) throws(EtcdError) {
    try trying { (member) throws(EtcdError) in
      var member = member
      member.seconds = seconds
      var lines = LineReader()
      var hasBegun = false
      let reply: HTTPClient.Reply
      do throws(PeerError) {
        reply = try member.stream(path, posting: body.encoded) { bytes in
          hasBegun = true
          return lines.add(bytes).allSatisfy { receive($0) }
        }
      } catch {
        // Its time is over, or the member has gone: whoever watches goes on where he is.
        if hasBegun { return }
        throw EtcdError(error)
      }
      if reply.status != 200 { _ = try EtcdClient.answer(reply) }
    }
  }

  private func trying<Result>(
    _ body: (HTTPClient) throws(EtcdError) -> Result
  ) throws(EtcdError) -> Result {
    let first = preferred.load(ordering: .relaxed)
    var failure = EtcdError(.unreachable, "no member of etcd is known")
    for turn in members.indices {
      let index = (first + turn) % members.count
      do throws(EtcdError) {
        let result = try body(members[index])
        if turn > 0 { preferred.store(index, ordering: .relaxed) }
        return result
      } catch {
        guard error.kind == .unreachable else { throw error }
        failure = error
      }
    }
    throw failure
  }

  private static func answer(_ reply: HTTPClient.Reply) throws(EtcdError) -> JSON {
    let json: JSON
    do { json = try JSONParser.parse(reply.body, limits) } catch {
      throw EtcdError(.unreachable, "etcd answers \(reply.status), and no JSON")
    }
    guard reply.status != 200 else { return json }
    let words = json.member("message")?.text ?? json.member("error")?.text ?? "\(reply.status)"
    guard case .integer(let code)? = json.member("code"), !unavailable.contains(code),
      reply.status < 500
    else { throw EtcdError(.unreachable, "etcd: \(words)") }
    throw EtcdError(.refused, "etcd: \(words)")
  }
}

extension EtcdError {
  init(_ error: PeerError) { self.init(.unreachable, "etcd: \(error.detail)") }
}

/// Cuts what comes into lines of JSON; a line that is none is passed over.
private struct LineReader {
  /// A line that is longer is no answer of etcd's.
  private static let lineLimitBytes = 64 << 20
  private var rest: [UInt8] = []

  mutating func add(_ bytes: UnsafeRawBufferPointer) -> [JSON] {
    // What is there has been looked through: a long line comes in a thousand pieces.
    var seen = rest.count
    rest += bytes
    var found: [JSON] = []
    while let end = rest[seen...].firstIndex(of: UInt8(ascii: "\n")) {
      if let line = try? JSONParser.parse(Array(rest[..<end]), EtcdClient.limits) {
        found.append(line)
      }
      rest.removeSubrange(...end)
      seen = 0
    }
    if rest.count > LineReader.lineLimitBytes { rest = [] }
    return found
  }
}
