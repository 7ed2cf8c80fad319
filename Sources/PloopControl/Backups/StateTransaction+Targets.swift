internal import GRDB

extension StateTransaction {
  func save(_ target: Target) throws(ServiceError) {
    try storing {
      try database.execute(
        sql: """
          INSERT INTO targets (name, revision, target) VALUES (?, ?, ?)
          ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, target = excluded.target
          """,
        arguments: [target.name, Int64(clamping: target.revision), try text(of: target)])
    }
  }

  /// Removes a target, with what is known of its backups.
  func removeTarget(_ name: String) throws(ServiceError) {
    try storing {
      try database.execute(sql: "DELETE FROM targets WHERE name = ?", arguments: [name])
    }
  }

  /// Every target that can be read, and what cannot, in words.
  func targets() throws(ServiceError) -> (targets: [Target], damaged: [String]) {
    try storing {
      var targets: [Target] = []
      var damaged: [String] = []
      for row in try Row.fetchAll(database, sql: "SELECT name, target FROM targets ORDER BY name") {
        let name: String = row["name"]
        do { targets.append(try value(of: row["target"])) } catch {
          damaged.append("the record of the target \(name) cannot be read: \(error)")
        }
      }
      return (targets, damaged)
    }
  }

  // MARK: Verdicts

  /// What the last look at all of a backup's bytes has found.
  struct Verdict: Sendable, Equatable {
    /// Seconds since 1970.
    var verifiedAt: Double
    /// Nil where everything is as it was stored.
    var problem: String?
  }

  func save(
    _ verdict: Verdict, of backup: String, on target: String
  ) throws(ServiceError) {
    try storing {
      try database.execute(
        sql: """
          INSERT OR REPLACE INTO verdicts (target, backup, verified_at, problem)
          VALUES (?, ?, ?, ?)
          """, arguments: [target, backup, verdict.verifiedAt, verdict.problem])
    }
  }

  func removeVerdict(of backup: String, on target: String) throws(ServiceError) {
    try storing {
      try database.execute(
        sql: "DELETE FROM verdicts WHERE target = ? AND backup = ?", arguments: [target, backup])
    }
  }

  /// By the ids of the backups.
  func verdicts(on target: String) throws(ServiceError) -> [String: Verdict] {
    try storing {
      let rows = try Row.fetchAll(
        database, sql: "SELECT backup, verified_at, problem FROM verdicts WHERE target = ?",
        arguments: [target])
      return Dictionary(
        rows.map { ($0["backup"], Verdict(verifiedAt: $0["verified_at"], problem: $0["problem"])) },
        uniquingKeysWith: { first, _ in first })
    }
  }
}
