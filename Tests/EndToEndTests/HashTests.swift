import TestSupport
import Testing

@Suite("Hashing a disk")
struct HashTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
    try Tool.shell(
      "qemu-io -f raw -c 'write -P 17 0 5M' -c 'write -P 18 9M 3M' '\(service.uri("vm"))'")
  }

  private func hash(_ more: String = "", _ headers: [String] = []) throws -> RunningService.Reply {
    try service.post("/v1/jobs", "{\"type\":\"hash\",\"device\":\"vm\"\(more)}", headers)
  }

  /// What another program makes of what a client reads.
  private func judged() throws -> String {
    try Tool.shell("nbdcopy '\(service.uri("vm"))' - | sha256sum | cut -c 1-64").output
      .filter { $0 != "\n" }
  }

  private func digest(_ job: [String: Any]) -> String? {
    (job["result"] as? [String: Any])?["sha256"] as? String
  }

  private func doneBytes(_ id: String) throws -> Int {
    let progress = try service.get("/v1/jobs/\(id)").json["progress"] as? [String: Any]
    return progress?["done_bytes"] as? Int ?? 0
  }

  @Test("with Prefer gives what sha256sum says of an nbdcopy, and says how much it has read")
  func preferred() throws {
    let reply = try hash("", ["Prefer: wait=60"])
    #expect(reply.status == 200, "\(reply.text)")
    #expect(digest(reply.json) == (try judged()))
    let result = reply.json["result"] as? [String: Any]
    #expect(result?["bytes_read"] as? Int == 8 << 20)
    #expect(result?["mapped_bytes"] as? Int == 8 << 20)
    let plan =
      try service.post(
        "/v1/jobs?dry_run=true", "{\"type\":\"hash\",\"device\":\"vm\"}"
      ).json["plan"] as? [String: Any]
    #expect(plan?["bytes_to_copy"] as? Int == 8 << 20)
    #expect(
      try hash(",\"params\":{\"snapshot\":\"x\"}").code == "unknown-field")
  }

  @Test("is begun again after kill -9, and comes to the same")
  func killed() throws {
    let wanted = try judged()
    let reply = try hash(",\"limits\":{\"bps\":1048576}", ["Idempotency-Key: one"])
    #expect(reply.status == 202, "\(reply.text)")
    let id = try #require(reply.json["id"] as? String)
    while try doneBytes(id) == 0 {}
    service.kill()
    try service.start()
    #expect(try hash(",\"limits\":{\"bps\":1048576}", ["Idempotency-Key: one"]).text == reply.text)
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{}}").status == 200)
    var job = try service.get("/v1/jobs/\(id)").json
    while !(job["finished_at"] is String) {
      let revision = try #require(job["revision"] as? Int)
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(revision)&wait=10")
      job = try service.get("/v1/jobs/\(id)").json
    }
    #expect(job["state"] as? String == "succeeded", "\(job)")
    #expect(job["interruptions"] as? Int == 1)
    #expect(job["resumable"] as? Bool == false)
    #expect(digest(job) == wanted)
    let log = try service.get("/v1/jobs/\(id)/log").text.split(separator: "\n")
    #expect(log.filter { $0.contains("from the start") }.count == 2, "\(log)")
  }

  @Test("ends at a cancel, and leaves the device to others")
  func cancelled() throws {
    let id = try #require(try hash(",\"limits\":{\"bps\":1}").json["id"] as? String)
    while try doneBytes(id) == 0 {}
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").code == "device-busy")
    let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=30"])
    #expect(ended.status == 200, "\(ended.text)")
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
  }
}
