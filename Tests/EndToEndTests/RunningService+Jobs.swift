import TestSupport

// Jobs as a test follows them.

extension RunningService {
  /// A job as it is once a condition holds.
  @discardableResult
  func awaitJob(_ id: String, _ isMet: ([String: Any]) -> Bool) throws -> [String: Any] {
    for _ in 0..<100_000 {
      let job = try get("/v1/jobs/\(id)").json
      if isMet(job) { return job }
      if job["finished_at"] is String {
        throw Tool.Failure(description: "the job is over: \(job)")
      }
    }
    throw Tool.Failure(description: "the job \(id) never came so far")
  }

  /// A job as it is when it is over.
  func endOfJob(_ id: String) throws -> [String: Any] {
    while true {
      let job = try get("/v1/jobs/\(id)").json
      if job["finished_at"] is String { return job }
      let revision = job["revision"] as? Int ?? 0
      _ = try get("/v1/jobs/\(id)?after_revision=\(revision)&wait=10")
    }
  }

  func logOfJob(_ id: String) throws -> [Substring] {
    try get("/v1/jobs/\(id)/log").text.split(separator: "\n")
  }
}
