import Foundation
import TestSupport
import Testing

@Suite("Where backups are kept")
struct TargetTests {
  @Test("has a name, is changed and forgotten like other things, and comes back after kill -9")
  func life() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    let body =
      #"{"name":"nas","type":"directory","path":"a/b","slots":3,"limits":{"bps":1048576}}"#
    let made = try service.post("/v1/targets", body, ["Idempotency-Key: one"])
    #expect(made.status == 201, "\(made.text)")
    #expect(made.json["path"] as? String == "main:a/b")
    try Tool.shell("test -d '\(service.images)/a/b'")
    #expect(try service.post("/v1/targets", body, ["Idempotency-Key: one"]).text == made.text)
    #expect(try service.post("/v1/targets", body).code == "target-exists")
    for path in ["a", "a/b/c", "a/b"] {
      let reply = try service.post(
        "/v1/targets", "{\"name\":\"other\",\"type\":\"directory\",\"path\":\"\(path)\"}")
      #expect(reply.code == "target-exists", "\(path): \(reply.text)")
    }
    #expect(
      try service.post("/v1/targets", #"{"name":"x","type":"directory","path":"../y"}"#).code
        == "path-outside-root")
    #expect(
      try service.post("/v1/targets", #"{"name":"x","type":"nbd","uri":"http://h/"}"#).code
        == "invalid-value")
    let file = try service.post(
      "/v1/targets", #"{"name":"file","type":"file","path":"a/bc","format":"ploop1"}"#)
    #expect(file.status == 201 && file.json["format"] as? String == "ploop1", "\(file.text)")
    let revision = try #require(made.json["revision"] as? Int)
    let changed = try service.patch("/v1/targets/nas", #"{"slots":1,"limits":{"iops":7}}"#)
    #expect(changed.status == 200 && changed.json["slots"] as? Int == 1)
    #expect((changed.json["limits"] as? [String: Int]) == ["bps": 1_048_576, "iops": 7])
    let late = try service.call(
      "PATCH", "/v1/targets/nas", #"{"slots":2}"#, ["If-Match: \"\(revision)\""])
    #expect(late.status == 412)
    let seen = try service.get("/v1/targets/nas?after_revision=\(revision)&wait=60")
    #expect(seen.json["revision"] as? Int == changed.json["revision"] as? Int)
    service.kill()
    try service.start()
    let back = try service.get("/v1/targets").json["items"] as? [[String: Any]] ?? []
    #expect(back.map { $0["name"] as? String } == ["file", "nas"])
    #expect(back.last?["slots"] as? Int == 1)
    #expect(try service.delete("/v1/targets/file").status == 204)
    #expect(try service.get("/v1/targets/file").code == "target-not-found")
    let events = try service.get("/v1/events?types=target.*").json["items"] as? [[String: Any]]
    #expect(
      events?.compactMap { $0["type"] as? String } == [
        "target.created", "target.created", "target.changed", "target.deleted",
      ])
  }

  @Test("that answers is never said not to answer, however often it is looked at")
  func answering() throws {
    let fixture = try BackupFixture()
    // What stands behind # is not sent: four hundred times the same.
    let answers = try Tool.shell(
      "curl -sS --max-time 90 --unix-socket '\(fixture.service.httpSocket)' 'http://localhost/v1/targets/nas#[1-400]'",
      seconds: 120)
    #expect(answers.output.ranges(of: "\"Opened\"").count == 400)
  }

  /// The target, once there is an answer: on a busy machine that may take longer than a client is kept waiting.
  private func target(of service: RunningService) throws -> [String: Any] {
    for _ in 0..<60 {
      let json = try service.get("/v1/targets/nas").json
      let conditions = json["conditions"] as? [[String: Any]] ?? []
      guard conditions.contains(where: { $0["reason"] as? String == "NotAnswering" }) else {
        return json
      }
    }
    throw Tool.Failure(description: "the target does not answer")
  }

  @Test("says when it cannot be reached, and is forgotten all the same")
  func unreachable() throws {
    let fixture = try BackupFixture()
    let service = fixture.service
    func reachable() throws -> (status: String?, reason: String?) {
      let json = try target(of: service)
      let condition = (json["conditions"] as? [[String: Any]])?.first
      return (condition?["status"] as? String, condition?["reason"] as? String)
    }
    #expect(try reachable() == ("True", "Opened"))
    // Another folder is in its place, as where nothing is mounted.
    try Tool.shell("mv '\(fixture.store)' '\(fixture.folder.path)/away'")
    #expect(try reachable() == ("False", "Missing"))
    try Tool.shell("mkdir '\(fixture.store)'")
    #expect(try reachable() == ("False", "Replaced"))
    #expect(try service.get("/v1/targets/nas/backups").code == "target-unreachable")
    try Tool.shell("cd '\(fixture.store)' && [ -z \"$(ls -A)\" ] && rmdir \"$PWD\"")
    try Tool.shell("mv '\(fixture.folder.path)/away' '\(fixture.store)'")
    #expect(try reachable() == ("True", "Opened"))
    try Tool.shell("rm -r '\(fixture.store)' && touch '\(fixture.store)'")
    #expect(try reachable().status == "False")
    #expect(try service.get("/v1/targets/nas").json["usage"] is NSNull)
    #expect(try service.get("/v1/targets/nas/backups").code == "target-unreachable")
    let job = try service.post(
      "/v1/jobs", #"{"type":"verify","params":{"target":"nas"}}"#)
    #expect(job.code == "target-unreachable", "\(job.text)")
    #expect(try service.delete("/v1/targets/nas").status == 204)
    #expect(try service.delete("/v1/targets/nas").code == "target-not-found")
  }

  @Test("lists every point with its state, attaches any whole one, and removes what nobody needs")
  func points() throws {
    let fixture = try BackupFixture()
    try fixture.storeTwo()
    let service = fixture.service
    try StoredBackup.store(
      image: "\(service.images)/vm/root.hds", in: fixture.store, device: "vm", chain: "b1",
      id: "b3", parent: "b2", stopping: 4 << 20)
    try Tool.shell("cp '\(fixture.chain)/b2.json' '\(fixture.chain)/b4.json'")
    let all = try fixture.backups()
    #expect(all.map { $0["id"] as? String } == ["b1", "b2", "b3", "b4"])
    #expect(
      all.map { $0["state"] as? String } == ["complete", "complete", "partial", "damaged"])
    #expect(all.map { $0["chain_length"] as? Int } == [1, 2, 0, 0])
    #expect(all.allSatisfy { ($0["reason"] is String) == ($0["state"] as? String != "complete") })
    #expect(all[1]["parent"] as? String == "b1" && all[1]["at"] is NSNull)
    #expect(try fixture.backups("?device=none").isEmpty)
    #expect(try fixture.backups("?limit=1").count == 1)
    #expect(try fixture.backups("?cursor=b2").map { $0["id"] as? String } == ["b3", "b4"])
    let usage = try target(of: service)["usage"] as? [String: Int]
    #expect(usage?["backups"] == 4 && usage?["bytes"] ?? 0 >= 43 << 20)
    // Any whole one is a disk, at once.
    let descriptor = try #require(all[0]["descriptor"] as? String)
    let at = try #require(all[0]["at"] as? String)
    for (id, more) in [("b1", "\"at\":\"\(at)\""), ("b2", "\"readonly\":true")] {
      let reply = try service.post(
        "/v1/devices",
        "{\"id\":\"\(id)\",\"descriptor\":\"\(descriptor)\",\(more),\"export\":{\"name\":\"\(id)\"}}"
      )
      #expect(reply.status == 201 && reply.json["readonly"] as? Bool == true, "\(reply.text)")
      try fixture.expect(id, holds: id)
    }
    // The first has the others above it; the others go one by one, unless somebody has them open.
    let refused = try service.delete("/v1/targets/nas/backups/b1")
    #expect(refused.code == "backup-has-dependents", "\(refused.text)")
    #expect(refused.json["backups"] as? [String] == ["b2", "b3"])
    #expect(try service.delete("/v1/targets/nas/backups/b3").status == 204)
    #expect(try service.delete("/v1/targets/nas/backups/b2").code == "image-in-use")
    #expect(try service.delete("/v1/devices/b2").status == 204)
    #expect(try service.delete("/v1/targets/nas/backups/b4").status == 204)
    #expect(try service.delete("/v1/targets/nas/backups/b2").status == 204)
    try fixture.expect("b1", holds: "b1")
    #expect(try service.get("/v1/targets/nas/backups/b2").code == "backup-not-found")
    #expect(try service.delete("/v1/targets/nas").code == "target-not-empty")
    try OpenVZ.run("cd '\(fixture.chain)' && ploop snapshot-list DiskDescriptor.xml")
    #expect(try service.delete("/v1/targets/nas?backups=keep").status == 204)
    try fixture.expect("b1", holds: "b1")
  }

  @Test("lists the points of a chain whose descriptor is damaged, and removes them with one call")
  func orphans() throws {
    let fixture = try BackupFixture()
    try fixture.storeTwo()
    let service = fixture.service
    try Tool.shell("echo damaged > '\(fixture.chain)/DiskDescriptor.xml'")
    let all = try fixture.backups()
    #expect(all.map { $0["state"] as? String } == ["damaged", "damaged"])
    #expect(all.allSatisfy { $0["descriptor"] is NSNull })
    let refused = try service.post(
      "/v1/jobs",
      #"{"type":"restore","params":{"target":"nas","backup":"b2","to":{"id":"r","directory":"r"}}}"#
    )
    #expect(refused.code == "backup-incomplete", "\(refused.text)")
    #expect(try service.delete("/v1/targets/nas/backups/b1?cascade=true").status == 204)
    #expect(try fixture.backups().isEmpty)
  }
}
