internal import TestSupport

// Backups of ploopd's disks, and where anybody's go.

extension Servers {
  /// An export in memory, empty, which forgets all when it ends.
  ///
  /// - Parameter bytesPerSecond: how fast it takes anything; nil for as fast as it can.
  func memory(sizeBytes: Int, bytesPerSecond: Int? = nil) throws -> Contender {
    let filter = bytesPerSecond == nil ? [] : ["--filter=rate"]
    let rate = bytesPerSecond.map { ["rate=\($0 * 8)"] } ?? []
    // ploopd goes to no socket that lies beneath no root.
    let place = try service(.ploopd).images
    return try run(.nbdkit, export: "", files: [], in: place) { door in
      ["nbdkit", "-f", "-U", door, "-t", "16"] + filter + ["memory", "\(sizeBytes)"] + rate
    }
  }

  /// Gives ploopd a target.
  ///
  /// - Parameter place: the members that say where it is, as JSON.
  /// - Returns: its name.
  func addTarget(_ place: String) throws -> String {
    let name = newName("t")
    let reply = try service(.ploopd).post("/v1/targets", "{\"name\":\"\(name)\",\(place)}")
    guard reply.status == 201 else { throw BenchFailure("target: \(reply.text)") }
    return name
  }

  func removeTarget(_ name: String) throws {
    let reply = try service(.ploopd).delete("/v1/targets/\(name)?backups=keep")
    guard reply.status == 204 else { throw BenchFailure("target: \(reply.text)") }
  }

  /// - Returns: the job.
  func beginBackup(_ contender: Contender, to target: String, mode: String) throws -> String {
    try beginJob(
      "{\"type\":\"backup\",\"device\":\"\(contender.address.export)\",\"params\":{\"target\":\"\(target)\",\"mode\":\"\(mode)\"}}"
    )
  }

  /// Waits until the job is in a phase.
  func awaitJob(_ id: String, in phase: String) throws {
    let service = try service(.ploopd)
    while true {
      let job = try service.get("/v1/jobs/\(id)")
      if job.json["phase"] as? String == phase { return }
      guard !(job.json["finished_at"] is String) else { throw BenchFailure("job: \(job.text)") }
      let revision = job.json["revision"] as? Int ?? 0
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(revision)&wait=10")
    }
  }

  func cancelJob(_ id: String) throws {
    let service = try service(.ploopd)
    let reply = try service.post("/v1/jobs/\(id)/cancel", "{}")
    guard (200...202).contains(reply.status) else { throw BenchFailure("cancel: \(reply.text)") }
    while !(try service.get("/v1/jobs/\(id)").json["finished_at"] is String) {
      _ = try service.get("/v1/jobs/\(id)?wait=1")
    }
  }
}
