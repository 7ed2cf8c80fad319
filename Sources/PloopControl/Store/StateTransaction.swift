internal import FoundationEssentials
internal import GRDB
internal import PloopIO

/// What can be changed in one transaction: all of it becomes durable together, or none of it.
///
/// Only good inside of ``Store/write(_:)``.
struct StateTransaction {
  let database: Database
  /// Who has asked for the changes; nil for the service itself.
  let actor: String?

  init(_ database: Database, actor: String? = nil) {
    self.database = database
    self.actor = actor
  }

  /// A number that is greater than every one before, also of earlier lives of the service. It is
  /// given back if the transaction fails.
  ///
  /// - Parameter known: another service may have given it out, to what is this one's by now.
  func nextRevision(above known: UInt64 = 0) throws(ServiceError) -> UInt64 {
    try storing {
      try database.execute(
        sql: "UPDATE service SET revision = max(revision, ?) + 1",
        arguments: [Int64(clamping: min(known, StateTransaction.greatestRevision))])
      return try revision()
    }
  }

  /// What clients can read as a number of JSON; nobody gets there by counting.
  private static let greatestRevision = UInt64(1) << 52

  func revision() throws(ServiceError) -> UInt64 {
    try storing {
      UInt64(
        clamping: try Int64.fetchOne(database, sql: "SELECT revision FROM service WHERE id = 1")
          ?? 0)
    }
  }

  // MARK: Devices

  func save(_ record: DeviceRecord) throws(ServiceError) {
    try storing {
      try database.execute(
        sql: "INSERT OR REPLACE INTO devices (id, revision, record) VALUES (?, ?, ?)",
        arguments: [record.id, Int64(clamping: record.revision), try text(of: record)])
    }
  }

  func remove(_ id: String) throws(ServiceError) {
    try storing { try database.execute(sql: "DELETE FROM devices WHERE id = ?", arguments: [id]) }
  }

  /// Every record that can be read, and what cannot, in words.
  func records() throws(ServiceError) -> (records: [DeviceRecord], damaged: [String]) {
    try storing {
      var records: [DeviceRecord] = []
      var damaged: [String] = []
      for row in try Row.fetchAll(database, sql: "SELECT id, record FROM devices ORDER BY id") {
        let id: String = row["id"]
        do { records.append(try value(of: row["record"])) } catch {
          damaged.append("the record of the device \(id) cannot be read: \(error)")
        }
      }
      return (records, damaged)
    }
  }

  // MARK: Intents

  func begin(_ intent: AttachIntent) throws(ServiceError) {
    try storing {
      try database.execute(
        sql: """
          INSERT OR REPLACE INTO intents (device, kind, intent, created_at)
          VALUES (?, 'attach', ?, ?)
          """, arguments: [intent.id, try text(of: intent), wallClockSeconds()])
    }
  }

  func endIntent(of device: String) throws(ServiceError) {
    try storing {
      try database.execute(sql: "DELETE FROM intents WHERE device = ?", arguments: [device])
    }
  }

  func attachIntents() throws(ServiceError) -> [AttachIntent] {
    try storing {
      try String.fetchAll(database, sql: "SELECT intent FROM intents WHERE kind = 'attach'")
        .compactMap { try? value(of: $0) }
    }
  }

  // MARK: Answers

  /// Keeps what a request was answered, for when it is made again.
  func keep(_ answer: String, of key: RequestKey, seconds: Int) throws(ServiceError) {
    let now = wallClockSeconds()
    try storing {
      try database.execute(sql: "DELETE FROM answers WHERE expires_at <= ?", arguments: [now])
      try database.execute(
        sql: """
          INSERT OR REPLACE INTO answers (key, route, fingerprint, answer, created_at, expires_at)
          VALUES (?, ?, ?, ?, ?, ?)
          """,
        arguments: [key.text, key.route, key.fingerprint, answer, now, now + Double(seconds)])
      try database.execute(
        sql: "DELETE FROM answers WHERE number <= ?",
        arguments: [database.lastInsertedRowID - Int64(RequestKey.mostKept)])
    }
  }

  func answer(of key: RequestKey) throws(ServiceError) -> (fingerprint: String, answer: String)? {
    try storing {
      try Row.fetchOne(
        database, sql: "SELECT fingerprint, answer FROM answers WHERE key = ? AND expires_at > ?",
        arguments: [key.text, wallClockSeconds()]
      ).map { ($0["fingerprint"], $0["answer"]) }
    }
  }

  /// What a request has made, though its answer was never kept.
  struct Outcome {
    let fingerprint: String
    let device: String
    let snapshot: String
  }

  func keepOutcome(
    of key: RequestKey, device: String, snapshot: String
  ) throws(ServiceError) {
    let now = wallClockSeconds()
    try storing {
      try database.execute(sql: "DELETE FROM outcomes WHERE expires_at <= ?", arguments: [now])
      try database.execute(
        sql: """
          INSERT OR REPLACE INTO outcomes (key, fingerprint, device, snapshot, expires_at)
          VALUES (?, ?, ?, ?, ?)
          """,
        arguments: [
          key.text, key.fingerprint, device, snapshot, now + Double(RequestKey.secondsKept),
        ])
    }
  }

  func outcome(of key: RequestKey) throws(ServiceError) -> Outcome? {
    try storing {
      try Row.fetchOne(
        database,
        sql: "SELECT fingerprint, device, snapshot FROM outcomes WHERE key = ? AND expires_at > ?",
        arguments: [key.text, wallClockSeconds()]
      ).map {
        Outcome(fingerprint: $0["fingerprint"], device: $0["device"], snapshot: $0["snapshot"])
      }
    }
  }

  func endOutcome(of key: RequestKey) throws(ServiceError) {
    try storing {
      try database.execute(sql: "DELETE FROM outcomes WHERE key = ?", arguments: [key.text])
    }
  }

  // MARK: Parts

  func text(of value: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(value), as: UTF8.self)
  }

  func value<Value: Decodable>(of text: String) throws -> Value {
    try JSONDecoder().decode(Value.self, from: Data(text.utf8))
  }
}

/// Calls the database and converts its errors.
func storing<Result>(_ body: () throws -> Result) throws(ServiceError) -> Result {
  do { return try body() } catch { throw ServiceError(storing: error) }
}
