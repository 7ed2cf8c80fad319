internal import FoundationEssentials
internal import PloopJSON

/// A key as etcd has it.
package struct EtcdValue: Sendable, Equatable {
  package let key: String
  package let bytes: [UInt8]
  /// When it was made, and written last: revisions of the whole cluster.
  package let createdAt: UInt64
  package let writtenAt: UInt64
  /// Under which lease it is; 0 for none.
  package let lease: UInt64

  init?(_ json: JSON) {
    guard let key = json.member("key")?.base64 else { return nil }
    self.key = String(decoding: key, as: UTF8.self)
    bytes = json.member("value")?.base64 ?? []
    createdAt = json.number("create_revision")
    writtenAt = json.number("mod_revision")
    lease = json.number("lease")
  }
}

/// A change of a key that is watched; `value` is nil when it is gone.
package struct EtcdEvent: Sendable {
  package let key: String
  package let value: EtcdValue?
  package let revision: UInt64
}

/// What has to be so for a transaction to be carried out.
package enum EtcdCondition: Sendable {
  case missing(String)
  case exists(String)
  /// It was written last at a revision.
  case written(String, at: UInt64)

  fileprivate var json: JSON {
    switch self {
    case .missing(let key), .exists(let key):
      .members([
        "key": .base64(key), "target": .string("CREATE"), "create_revision": .string("0"),
        "result": .string(isMissing ? "EQUAL" : "GREATER"),
      ])
    case .written(let key, let revision):
      .members([
        "key": .base64(key), "target": .string("MOD"), "mod_revision": .string(String(revision)),
        "result": .string("EQUAL"),
      ])
    }
  }

  private var isMissing: Bool {
    guard case .missing = self else { return false }
    return true
  }
}

package enum EtcdStep: Sendable {
  /// - Parameter lease: 0 for none.
  case put(String, [UInt8], lease: UInt64)
  case delete(String)
  case deletePrefix(String)

  fileprivate var json: JSON {
    switch self {
    case .put(let key, let bytes, let lease):
      .members([
        "requestPut": .members([
          "key": .base64(key), "value": .base64(bytes),
          "lease": lease == 0 ? nil : .string(String(lease)),
        ])
      ])
    case .delete(let key):
      .members(["requestDeleteRange": .members(["key": .base64(key)])])
    case .deletePrefix(let prefix):
      .members([
        "requestDeleteRange": .members([
          "key": .base64(prefix), "range_end": .base64(EtcdClient.end(of: prefix)),
        ])
      ])
    }
  }
}

extension EtcdClient {
  // MARK: Leases

  /// - Parameter seconds: for which it lives when nobody renews it; etcd may take more.
  /// - Returns: the lease, and the seconds that it has.
  package func grantLease(seconds: Int) throws(EtcdError) -> (id: UInt64, seconds: Int) {
    let reply = try ask("/v3/lease/grant", .members(["TTL": .string(String(seconds))]))
    let id = reply.number("ID")
    guard id != 0 else { throw EtcdError(.refused, "etcd: a lease without a number") }
    return (id, Int(clamping: reply.number("TTL")))
  }

  /// - Returns: false when there is no such lease any more.
  package func keepLease(_ id: UInt64) throws(EtcdError) -> Bool {
    let reply = try ask("/v3/lease/keepalive", .members(["ID": .string(String(id))]))
    // The answer is that of a stream: a result, or an error, in one line.
    guard let result = reply.member("result") else {
      throw EtcdError(.unreachable, "etcd: \(reply.member("error")?.text ?? "no answer")")
    }
    return result.number("TTL") > 0
  }

  package func revokeLease(_ id: UInt64) throws(EtcdError) {
    _ = try ask("/v3/lease/revoke", .members(["ID": .string(String(id))]))
  }

  // MARK: Keys

  package func value(of key: String) throws(EtcdError) -> EtcdValue? {
    let reply = try ask("/v3/kv/range", .members(["key": .base64(key)]))
    return reply.member("kvs")?.items.first.flatMap(EtcdValue.init)
  }

  /// Values of one answer: what is asked for is there within the time for an answer, however many there are.
  private static let pageLength = 1_000

  /// All that begin with `prefix`, as they were at one revision.
  package func values(
    under prefix: String
  ) throws(EtcdError) -> (values: [EtcdValue], revision: UInt64) {
    var values: [EtcdValue] = []
    var first = Array(prefix.utf8)
    var revision: UInt64 = 0
    while true {
      let reply = try ask(
        "/v3/kv/range",
        .members([
          "key": .base64(first), "range_end": .base64(EtcdClient.end(of: prefix)),
          "limit": .string(String(EtcdClient.pageLength)), "revision": .string(String(revision)),
        ]))
      values += reply.member("kvs")?.items.compactMap(EtcdValue.init) ?? []
      if revision == 0 { revision = reply.member("header")?.number("revision") ?? 0 }
      guard reply.member("more") == .bool(true), let last = values.last?.key else {
        return (values, revision)
      }
      first = Array(last.utf8) + [0]
    }
  }

  /// Does all the steps when the conditions are met, or none.
  ///
  /// - Returns: whether they were, and the revision.
  package func transact(
    if conditions: [EtcdCondition], _ steps: [EtcdStep]
  ) throws(EtcdError) -> (isDone: Bool, revision: UInt64) {
    let reply = try ask(
      "/v3/kv/txn",
      .members([
        "compare": .array(conditions.map(\.json)), "success": .array(steps.map(\.json)),
      ]))
    return (
      reply.member("succeeded") == .bool(true), reply.member("header")?.number("revision") ?? 0
    )
  }

  // MARK: Watching

  /// Tells of each change of what begins with `prefix`, in order, for a time.
  ///
  /// Who is far behind is told in parts, each of which gets through within that time.
  ///
  /// - Parameters:
  ///   - revision: of the first change that is told.
  ///   - receive: is given changes, and the revision up to which that is everything; false ends it.
  /// - Throws: `.compacted` when the changes from there on are not kept any more.
  package func watch(
    under prefix: String, from revision: UInt64, seconds: Int,
    _ receive: ([EtcdEvent], UInt64) -> Bool
  ) throws(EtcdError) {
    let body = JSON.members([
      "create_request": .members([
        "key": .base64(prefix), "range_end": .base64(EtcdClient.end(of: prefix)),
        "start_revision": .string(String(revision)), "fragment": .bool(true),
      ])
    ])
    var end: EtcdError?
    try stream("/v3/watch", body, seconds: seconds) { line in
      guard let result = line.member("result") else {
        end = EtcdError(.unreachable, "etcd: \(line.member("error")?.text ?? "a watch has ended")")
        return false
      }
      if result.number("compact_revision") > 0 {
        end = EtcdError(.compacted, "etcd has forgotten what came behind revision \(revision)")
        return false
      }
      if result.member("canceled") == .bool(true) {
        end = EtcdError(.unreachable, "etcd has ended a watch")
        return false
      }
      let events = result.member("events")?.items.compactMap(EtcdClient.event) ?? []
      guard let last = events.map(\.revision).max() else { return true }
      // The changes of one revision may lie in two parts.
      return receive(events, result.member("fragment") == .bool(true) ? max(last, 1) - 1 : last)
    }
    if let end { throw end }
  }

  private static func event(_ json: JSON) -> EtcdEvent? {
    guard let pair = json.member("kv"), let value = EtcdValue(pair) else { return nil }
    let isGone = json.member("type")?.text == "DELETE"
    return EtcdEvent(key: value.key, value: isGone ? nil : value, revision: value.writtenAt)
  }

  /// The first key behind all that begin with `prefix`.
  static func end(of prefix: String) -> [UInt8] {
    var bytes = Array(prefix.utf8)
    while let last = bytes.popLast() {
      guard last < 255 else { continue }
      return bytes + [last + 1]
    }
    return [0]
  }
}

extension JSON {
  fileprivate static func base64(_ text: String) -> JSON { .base64(Array(text.utf8)) }

  fileprivate static func base64(_ bytes: [UInt8]) -> JSON {
    .string(Data(bytes).base64EncodedString())
  }

  fileprivate var base64: [UInt8]? {
    text.flatMap { Data(base64Encoded: $0) }.map { Array($0) }
  }

  /// A member that is a number as the gateway writes it; 0 where there is none.
  fileprivate func number(_ name: String) -> UInt64 {
    switch member(name) {
    case .string(let text): UInt64(text) ?? 0
    case .integer(let number): UInt64(clamping: number)
    default: 0
    }
  }
}
