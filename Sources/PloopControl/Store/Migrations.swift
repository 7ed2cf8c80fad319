internal import GRDB

/// The tables, as a list of steps that is only ever appended to: a step that was released is never
/// changed, since somewhere a database has taken it. docs/operations.md says what is in them.
enum Migrations {
  /// - Parameter files: what an earlier version kept in files, for the first step to take in. It is
  ///   in the same transaction as the tables: either both are there or neither.
  static func migrator(
    importing files: StateFiles.Content? = nil, revisionFloor: UInt64 = 0
  ) -> DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("0001 devices") { database in
      try database.execute(sql: devices)
      try database.execute(
        sql: "INSERT INTO service (id, revision) VALUES (1, ?)",
        arguments: [Int64(clamping: max(revisionFloor, files?.revision ?? 0))])
      for record in files?.records ?? [] {
        try StateTransaction(database).save(record)
      }
    }
    migrator.registerMigration("0002 answers") { try $0.execute(sql: answers) }
    migrator.registerMigration("0003 intents") { try $0.execute(sql: intents) }
    migrator.registerMigration("0004 events") { try $0.execute(sql: events) }
    migrator.registerMigration("0005 jobs") { try $0.execute(sql: jobs) }
    migrator.registerMigration("0006 outcomes") { try $0.execute(sql: outcomes) }
    migrator.registerMigration("0007 queue") { try $0.execute(sql: queue) }
    migrator.registerMigration("0008 jobs that come back") { try $0.execute(sql: comingBack) }
    migrator.registerMigration("0009 events floor") { try $0.execute(sql: eventsFloor) }
    migrator.registerMigration("0010 targets") { try $0.execute(sql: targets) }
    migrator.registerMigration("0011 actors") { try $0.execute(sql: actors) }
    return migrator
  }

  /// A device is one document: it is read and written as a whole, and what is searched for among
  /// devices is searched for in memory.
  private static let devices = """
    CREATE TABLE service (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      revision INTEGER NOT NULL CHECK (revision >= 0)
    ) STRICT;
    CREATE TABLE devices (
      id TEXT PRIMARY KEY NOT NULL,
      revision INTEGER NOT NULL,
      record TEXT NOT NULL
    ) STRICT;
    """

  /// Replies to requests with a key. `number` is the order in which they came.
  private static let answers = """
    CREATE TABLE answers (
      number INTEGER PRIMARY KEY AUTOINCREMENT,
      key TEXT NOT NULL UNIQUE,
      route TEXT NOT NULL,
      fingerprint TEXT NOT NULL,
      answer TEXT NOT NULL,
      created_at REAL NOT NULL,
      expires_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX answers_by_end ON answers (expires_at);
    """

  /// One operation at a time for a device, so one intent.
  private static let intents = """
    CREATE TABLE intents (
      device TEXT PRIMARY KEY NOT NULL,
      kind TEXT NOT NULL,
      intent TEXT NOT NULL,
      created_at REAL NOT NULL
    ) STRICT;
    """

  /// What requests with a key had made when a crash came before their answers were kept.
  private static let outcomes = """
    CREATE TABLE outcomes (
      key TEXT PRIMARY KEY NOT NULL,
      fingerprint TEXT NOT NULL,
      device TEXT NOT NULL,
      snapshot TEXT NOT NULL,
      expires_at REAL NOT NULL
    ) STRICT;
    """

  /// A job that is interrupted is queued again, whatever was queued under its key meanwhile. That a
  /// key is not queued twice by requests is seen to in memory.
  private static let comingBack = """
    DROP INDEX jobs_not_twice;
    """

  /// What holds for all jobs, as one document.
  private static let queue = """
    CREATE TABLE queue (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      settings TEXT NOT NULL
    ) STRICT;
    """

  private static let events = """
    CREATE TABLE events (
      revision INTEGER PRIMARY KEY NOT NULL,
      at REAL NOT NULL,
      type TEXT NOT NULL,
      subject TEXT NOT NULL,
      device TEXT
    ) STRICT;
    """

  /// The greatest revision whose event has been forgotten: there may be revisions without events, so
  /// the oldest event does not tell. In a database that is begun anew it is the first revision.
  private static let eventsFloor = """
    ALTER TABLE service ADD COLUMN events_floor INTEGER NOT NULL DEFAULT 0;
    UPDATE service
      SET events_floor = COALESCE((SELECT MIN(revision) - 1 FROM events), revision);
    """

  /// Where backups are kept, each as one document, and what the last look at each backup has found; what
  /// backups there are the targets themselves say.
  private static let targets = """
    CREATE TABLE targets (
      name TEXT PRIMARY KEY NOT NULL,
      revision INTEGER NOT NULL,
      target TEXT NOT NULL
    ) STRICT;
    CREATE TABLE verdicts (
      target TEXT NOT NULL REFERENCES targets (name) ON DELETE CASCADE,
      backup TEXT NOT NULL,
      verified_at REAL NOT NULL,
      problem TEXT,
      PRIMARY KEY (target, backup)
    ) STRICT;
    """

  /// Who had an event happen; of earlier ones nobody knows.
  private static let actors = """
    ALTER TABLE events ADD COLUMN actor TEXT;
    """

  /// What the queue is ordered and searched by has columns; the rest of a job is its document.
  private static let jobs = """
    CREATE TABLE jobs (
      id TEXT PRIMARY KEY NOT NULL,
      type TEXT NOT NULL,
      device TEXT,
      state TEXT NOT NULL,
      priority INTEGER NOT NULL,
      dedupe_key TEXT,
      revision INTEGER NOT NULL,
      created_at REAL NOT NULL,
      finished_at REAL,
      job TEXT NOT NULL
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state, priority DESC, created_at);
    CREATE INDEX jobs_by_device ON jobs (device);
    CREATE UNIQUE INDEX jobs_not_twice ON jobs (dedupe_key)
      WHERE dedupe_key IS NOT NULL AND state = 'queued';
    CREATE TABLE job_log (
      job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
      number INTEGER NOT NULL,
      at REAL NOT NULL,
      level TEXT NOT NULL,
      message TEXT NOT NULL,
      PRIMARY KEY (job, number)
    ) STRICT;
    """
}
