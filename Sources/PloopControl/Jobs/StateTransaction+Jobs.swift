internal import FoundationEssentials
internal import GRDB
internal import PloopIO

extension StateTransaction {
  /// Jobs that are over are kept so long, and so many of them.
  static let jobSecondsKept = 30.0 * 24 * 60 * 60
  static let jobsKept = 10_000
  /// Lines of one job's log that are kept.
  static let logLinesKept = 10_000

  func save(_ job: JobRecord) throws(ServiceError) {
    try storing {
      try database.execute(
        sql: """
          INSERT INTO jobs (id, type, device, state, priority, dedupe_key, revision, created_at,
            finished_at, job)
          VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
          ON CONFLICT (id) DO UPDATE SET state = excluded.state, priority = excluded.priority,
            revision = excluded.revision, finished_at = excluded.finished_at, job = excluded.job
          """,
        arguments: [
          job.id, job.type, job.device, job.state.rawValue, job.priority, job.dedupeKey,
          Int64(clamping: job.revision), job.createdAt, job.finishedAt, try text(of: job),
        ])
    }
  }

  func job(_ id: String) throws(ServiceError) -> JobRecord? {
    try storing {
      try String.fetchOne(database, sql: "SELECT job FROM jobs WHERE id = ?", arguments: [id])
        .map { try value(of: $0) }
    }
  }

  /// Jobs that are not over, oldest first.
  func openJobs() throws(ServiceError) -> [JobRecord] {
    try storing {
      let final = JobState.allCases.filter(\.isFinal).map { "'\($0.rawValue)'" }
      return try String.fetchAll(
        database,
        sql: "SELECT job FROM jobs WHERE state NOT IN (\(final.joined(separator: ","))) ORDER BY id"
      ).compactMap { try? value(of: $0) }
    }
  }

  /// Newest first.
  ///
  /// - Parameter before: only jobs that were made before this one.
  func jobs(
    before: String?, limit: Int, _ filter: JobFilter
  ) throws(ServiceError) -> [JobRecord] {
    try storing {
      var conditions: [String] = []
      var arguments: [String] = []
      for (condition, value) in [
        ("id < ?", before), ("state = ?", filter.state?.rawValue), ("device = ?", filter.device),
        ("type = ?", filter.type),
      ] {
        guard let value else { continue }
        conditions.append(condition)
        arguments.append(value)
      }
      for (name, value) in filter.labels.sorted(by: { $0.key < $1.key }) {
        conditions.append(
          "EXISTS (SELECT 1 FROM json_each(job, '$.labels') WHERE key = ? AND value = ?)")
        arguments += [name, value]
      }
      let filter = conditions.isEmpty ? "" : "WHERE " + conditions.joined(separator: " AND ")
      return try String.fetchAll(
        database, sql: "SELECT job FROM jobs \(filter) ORDER BY id DESC LIMIT \(limit)",
        arguments: StatementArguments(arguments)
      ).compactMap { try? value(of: $0) }
    }
  }

  func removeJob(_ id: String) throws(ServiceError) {
    try storing { try database.execute(sql: "DELETE FROM jobs WHERE id = ?", arguments: [id]) }
  }

  /// Removes what has been kept long enough of jobs that are over.
  ///
  /// - Parameter awaited: jobs whose ends others wait for.
  func removeOldJobs(keeping awaited: Set<String>) throws(ServiceError) {
    try storing {
      let old = try String.fetchAll(
        database,
        sql: """
          SELECT id FROM jobs WHERE finished_at < ? UNION
          SELECT id FROM (SELECT id FROM jobs WHERE finished_at IS NOT NULL
            ORDER BY finished_at DESC LIMIT -1 OFFSET \(StateTransaction.jobsKept))
          """, arguments: [wallClockSeconds() - StateTransaction.jobSecondsKept])
      for id in old where !awaited.contains(id) {
        try database.execute(sql: "DELETE FROM jobs WHERE id = ?", arguments: [id])
      }
    }
  }

  func log(_ job: String, _ level: String, _ message: String) throws(ServiceError) {
    try storing {
      try database.execute(
        sql: """
          INSERT INTO job_log (job, number, at, level, message)
          SELECT ?, COALESCE(MAX(number), 0) + 1, ?, ?, ? FROM job_log WHERE job = ?
          """, arguments: [job, wallClockSeconds(), level, message, job])
      try database.execute(
        sql: """
          DELETE FROM job_log WHERE job = ? AND number <=
            (SELECT MAX(number) FROM job_log WHERE job = ?) - \(StateTransaction.logLinesKept)
          """, arguments: [job, job])
    }
  }

  func log(of job: String, after: UInt64, limit: Int) throws(ServiceError) -> [JobLogLine] {
    try storing {
      try Row.fetchAll(
        database,
        sql: """
          SELECT number, at, level, message FROM job_log WHERE job = ? AND number > ?
          ORDER BY number LIMIT \(limit)
          """, arguments: [job, Int64(clamping: after)]
      ).map { row in
        let number: Int64 = row["number"]
        return JobLogLine(
          number: UInt64(clamping: number), at: row["at"], level: row["level"],
          message: row["message"])
      }
    }
  }

  // MARK: The queue

  func queueSettings() throws(ServiceError) -> QueueSettings {
    try storing {
      guard let text = try String.fetchOne(database, sql: "SELECT settings FROM queue") else {
        return QueueSettings()
      }
      return try value(of: text)
    }
  }

  func save(_ settings: QueueSettings) throws(ServiceError) {
    try storing {
      try database.execute(
        sql: "INSERT OR REPLACE INTO queue (id, settings) VALUES (1, ?)",
        arguments: [try text(of: settings)])
    }
  }
}

/// Which jobs are listed.
package struct JobFilter: Sendable {
  package var state: JobState?
  package var device: String?
  package var type: String?
  package var labels: [String: String] = [:]

  package init() {}
}
