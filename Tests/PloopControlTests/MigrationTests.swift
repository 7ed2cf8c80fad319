import GRDB
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

/// What an earlier version wrote is what stands here, in SQL of that time: whatever becomes of today's code that writes it.
@Suite("State databases of earlier versions")
struct MigrationTests {
  /// A row as the step that made its table knew it.
  private struct Written {
    /// The number of that step, from 1.
    let step: Int
    let table: String
    let columns: String
    let values: String
  }

  private static let rows = [
    Written(
      step: 1, table: "devices", columns: "id, revision, record",
      values: #"'old', 7, '{"not":"looked at here"}'"#),
    Written(
      step: 2, table: "answers",
      columns: "number, key, route, fingerprint, answer, created_at, expires_at",
      values: "3, 'k', 'POST /v1/devices', 'f', 'answer', 1.5, 4000000000.0"),
    Written(
      step: 3, table: "intents", columns: "device, kind, intent, created_at",
      values: "'old', 'attach', '{}', 2.5"),
    Written(
      step: 4, table: "events", columns: "revision, at, type, subject, device",
      values: "41, 4000000000.0, 'device.created', 'old', 'old'"),
    Written(
      step: 5, table: "jobs",
      columns:
        "id, type, device, state, priority, dedupe_key, revision, created_at, finished_at, job",
      values: "'j1', 'merge', 'old', 'queued', 50, 'nightly', 42, 3.5, NULL, '{}'"),
    Written(
      step: 5, table: "job_log", columns: "job, number, at, level, message",
      values: "'j1', 1, 3.5, 'info', 'begun'"),
    Written(
      step: 6, table: "outcomes", columns: "key, fingerprint, device, snapshot, expires_at",
      values: "'k', 'f', 'old', '{5fba}', 4000000000.0"),
    Written(step: 7, table: "queue", columns: "id, settings", values: "1, '{}'"),
    Written(
      step: 10, table: "targets", columns: "name, revision, target", values: "'nas', 43, '{}'"),
    Written(
      step: 10, table: "verdicts", columns: "target, backup, verified_at, problem",
      values: "'nas', 'one', 5.5, 'is wrong'"),
  ]

  private static let names = Migrations.migrator().migrations

  private static func schema(_ database: Database) throws -> [String] {
    try String.fetchAll(
      database,
      sql: "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master ORDER BY 1")
  }

  @Test("each is brought to today's schema, and every row is kept", arguments: 1...names.count)
  func rowsAreKept(step: Int) throws {
    let queue = try DatabaseQueue()
    try Migrations.migrator().migrate(queue, upTo: Self.names[step - 1])
    try queue.write { database in
      try database.execute(sql: "UPDATE service SET revision = 50")
      for row in Self.rows where row.step <= step {
        try database.execute(
          sql: "INSERT INTO \(row.table) (\(row.columns)) VALUES (\(row.values))")
      }
    }
    try Migrations.migrator().migrate(queue)
    try queue.read { database in
      for row in Self.rows where row.step <= step {
        // The values are compared by SQLite: what they are in SQL is what they were.
        let count = try Int.fetchOne(
          database,
          sql: """
            SELECT count(*) FROM (SELECT \(row.columns) FROM \(row.table)
            INTERSECT SELECT \(row.values))
            """)
        #expect(count == 1, "\(row.table)")
      }
      #expect(try Int.fetchOne(database, sql: "SELECT revision FROM service") == 50)
      let faults = try Row.fetchAll(database, sql: "PRAGMA foreign_key_check").count
      #expect(faults == 0)
      // What was there when the floor was brought in is what it is made of: nothing before 41 is known.
      if step < 9 {
        let floor = try Int.fetchOne(database, sql: "SELECT events_floor FROM service")
        #expect(floor == (step >= 4 ? 40 : 50))
      }
    }
    let new = try DatabaseQueue()
    try Migrations.migrator().migrate(new)
    let (migrated, made) = (try queue.read(Self.schema), try new.read(Self.schema))
    #expect(migrated == made)
  }

  @Test("every table has a row here, so that none is forgotten")
  func tables() throws {
    let queue = try DatabaseQueue()
    try Migrations.migrator().migrate(queue)
    let tables = try queue.read { database in
      try String.fetchAll(
        database,
        sql: """
          SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
          AND name NOT IN ('grdb_migrations', 'service')
          """)
    }
    #expect(Set(tables) == Set(Self.rows.map(\.table)))
  }
}
