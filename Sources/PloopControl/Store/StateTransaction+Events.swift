internal import GRDB
internal import PloopIO

// The ring of events: those of the last revisions and hours, in the order of their revisions. A
// cursor is a revision; where it cannot be told any more what came behind it, it has expired.

extension StateTransaction {
  /// Events that are kept: the newest, by their revisions.
  static let eventsKept: UInt64 = 10_000
  static let eventSeconds = 24.0 * 60 * 60

  /// Notes that something has changed, under the revision that it has now.
  ///
  /// - Parameters:
  ///   - subject: the name of the device or export.
  ///   - actor: for whom it happens, where nobody asks for it now.
  ///   - now: seconds since 1970.
  func note(
    _ type: EventType, _ subject: String, device: String?, at revision: UInt64,
    for actor: String? = nil,
    now: Double = wallClockSeconds()
  ) throws(ServiceError) {
    try storing {
      try database.execute(
        sql: """
          INSERT INTO events (revision, at, type, subject, device, actor) VALUES (?, ?, ?, ?, ?, ?)
          """,
        arguments: [
          Int64(clamping: revision), now, type.rawValue, subject, device, self.actor ?? actor,
        ])
      try forgetEvents(newest: revision, now: now)
    }
  }

  private func forgetEvents(newest: UInt64, now: Double) throws {
    // The search ends at the first that is young enough: it looks at what is forgotten only.
    let young = try Int64.fetchOne(
      database, sql: "SELECT revision FROM events WHERE at >= ? ORDER BY revision LIMIT 1",
      arguments: [now - StateTransaction.eventSeconds])
    let counted = newest > StateTransaction.eventsKept ? newest - StateTransaction.eventsKept : 0
    let bound = max(Int64(clamping: counted), (young ?? 1) - 1)
    let last = try Int64.fetchOne(
      database, sql: "SELECT MAX(revision) FROM events WHERE revision <= ?", arguments: [bound])
    guard let last else { return }
    try database.execute(sql: "DELETE FROM events WHERE revision <= ?", arguments: [last])
    try database.execute(
      sql: "UPDATE service SET events_floor = MAX(events_floor, ?)", arguments: [last])
  }

  /// Events behind a cursor, oldest first.
  ///
  /// - Parameters:
  ///   - after: the cursor; nil for the beginning of the ring.
  ///   - shown: the greatest revision that may be told.
  /// - Returns: at most `limit` events, and the revision up to which they are all.
  /// - Throws: `events-expired` when the cursor is older than the ring, or of another database.
  func events(
    after: UInt64?, through shown: UInt64, matching filter: EventFilter, limit: Int
  ) throws(ServiceError) -> Page<Event> {
    let floor = try eventsFloor()
    let newest = try revision()
    if let after, after < floor || after > newest {
      throw ServiceError(
        .eventsExpired, "what came after revision \(after) is not known any more",
        facts: ["current_revision": .number(shown)])
    }
    let begin = after ?? floor
    // One more than asked for tells whether there are more.
    var events = try events(after: begin, through: shown, filter, count: limit + 1)
    guard events.count > limit else {
      return Page(items: events, next: nil, revision: max(begin, shown))
    }
    events.removeLast(events.count - limit)
    return Page(items: events, next: nil, revision: events.last?.revision ?? begin)
  }

  /// The greatest revision whose event has been forgotten, or was never there.
  private func eventsFloor() throws(ServiceError) -> UInt64 {
    try storing {
      UInt64(
        clamping: try Int64.fetchOne(database, sql: "SELECT events_floor FROM service") ?? 0)
    }
  }

  private func events(
    after begin: UInt64, through shown: UInt64, _ filter: EventFilter, count: Int
  ) throws(ServiceError) -> [Event] {
    var conditions = ["revision > ?", "revision <= ?"]
    var arguments: StatementArguments = [Int64(clamping: begin), Int64(clamping: shown)]
    if !filter.types.isEmpty {
      conditions.append(
        "(\(filter.types.map { _ in "type GLOB ?" }.joined(separator: " OR ")))")
      arguments += StatementArguments(filter.types.map(\.text))
    }
    if let device = filter.device {
      conditions.append("device = ?")
      arguments += [device]
    }
    if let patterns = filter.devices?.patterns {
      conditions.append("(\(patterns.map { _ in "device GLOB ?" }.joined(separator: " OR ")))")
      arguments += StatementArguments(patterns)
    }
    let query = """
      SELECT revision, at, type, subject, device, actor FROM events
      WHERE \(conditions.joined(separator: " AND ")) ORDER BY revision LIMIT \(count)
      """
    return try storing {
      try Row.fetchAll(database, sql: query, arguments: arguments).map { row in
        let revision: Int64 = row["revision"]
        return Event(
          revision: UInt64(clamping: revision), at: row["at"], type: row["type"],
          subject: row["subject"], device: row["device"], actor: row["actor"])
      }
    }
  }
}
