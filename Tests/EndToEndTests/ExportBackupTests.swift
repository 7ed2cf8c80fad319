import Foundation
import PloopBackup
import PloopIO
import TestSupport
import Testing

/// A service with a target that is an export, and a disk.
struct ExportFixture {
  let folder = try? TemporaryFolder()
  let service: RunningService
  let server: ForeignServer
  let disk: String

  /// - Parameter filters: words for `nbdkit` before its plugin.
  init(filters: [String] = []) throws {
    guard let path = folder?.path else { throw Tool.Failure(description: "no folder") }
    service = try RunningService(in: path)
    disk = "\(path)/store.raw"
    try Tool.shell("truncate -s 64M '\(disk)'")
    server = try ForeignServer.nbdkit(filters + ["file", disk], at: "\(path)/images/nbdkit")
    let made = try service.post(
      "/v1/targets", "{\"name\":\"far\",\"type\":\"nbd\",\"uri\":\"\(server.uri)\"}")
    guard made.status == 201 else { throw Tool.Failure(description: made.text) }
    guard try service.create("vm", sizeBytes: 48 << 20, clusterBytes: 1 << 16).status == 201 else {
      throw Tool.Failure(description: "no disk")
    }
  }

  func write(_ commands: String...) throws {
    let list = (commands + ["flush"]).map { "-c '\($0)'" }.joined(separator: " ")
    try Tool.shell("qemu-io -f raw \(list) '\(service.uri("vm"))'")
  }

  /// What the disk holds now, as a raw file.
  func save(_ name: String) throws {
    try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(raw(name))'")
  }

  func raw(_ name: String) -> String { "\(folder?.path ?? "")/\(name).raw" }

  func begin(_ type: String, _ parameters: String, _ more: String = "") throws -> String {
    let reply = try service.post(
      "/v1/jobs", "{\"type\":\"\(type)\",\"params\":{\"target\":\"far\"\(parameters)}\(more)}")
    guard reply.status == 202, let id = reply.json["id"] as? String else {
      throw Tool.Failure(description: reply.text)
    }
    return id
  }

  func end(of id: String) throws -> [String: Any] {
    while true {
      let job = try service.get("/v1/jobs/\(id)").json
      if job["finished_at"] is String { return job }
      let revision = job["revision"] as? Int ?? 0
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(revision)&wait=10")
    }
  }

  func restore(_ backup: String, to id: String) throws -> [String: Any] {
    try end(
      of: begin(
        "restore",
        ",\"backup\":\"\(backup)\",\"to\":{\"id\":\"\(id)\",\"directory\":\"\(id)\",\"export\":\"\(id)\"}"
      ))
  }

  func expect(_ export: String, holds name: String) throws {
    try Tool.shell(
      "qemu-img compare -f raw -F raw '\(service.uri(export))' '\(raw(name))'", seconds: 120)
  }

  func backups() throws -> [[String: Any]] {
    try service.get("/v1/targets/far/backups").json["items"] as? [[String: Any]] ?? []
  }
}

@Suite("Backups in an NBD server's export")
struct ExportBackupTests {
  private func code(_ job: [String: Any]) -> String? {
    (job["error"] as? [String: Any])?["code"] as? String
  }

  @Test("are listed, restored, verified and removed like others")
  func life() throws {
    let fixture = try ExportFixture()
    let service = fixture.service
    #expect(try fixture.backups().isEmpty)
    try fixture.write("write -P 17 0 20M", "write -P 18 22M 20M", "write -z 30M 1M")
    try fixture.save("b1")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let records = try ImageFolder(path: "\(service.folder)/state")
      .makeFolder(beneath: "exports/\(SHA256.hexDigest(Array(fixture.server.uri.utf8)))")
    let target = NBDTarget(fixture.server.uri, records: records)
    try StoredBackup.store(
      image: "\(service.images)/vm/root.hds", in: target, device: "vm", id: "b1")
    let listed = try #require(try fixture.backups().first)
    #expect(listed["state"] as? String == "complete" && listed["device"] as? String == "vm")
    #expect(listed["descriptor"] is NSNull && listed["chain_length"] as? Int == 1)
    let usage = try service.get("/v1/targets/far").json["usage"] as? [String: Int]
    #expect(usage?["backups"] == 1 && usage?["bytes"] == 39 << 20, "\(usage ?? [:])")
    #expect(try service.delete("/v1/targets/far").code == "target-not-empty")
    let verified = try fixture.end(of: fixture.begin("verify", ""))
    #expect(verified["state"] as? String == "succeeded", "\(verified)")
    #expect((verified["progress"] as? [String: Any])?["done_bytes"] as? Int == 48 << 20)
    #expect((verified["progress"] as? [String: Any])?["total_bytes"] as? Int == 48 << 20)
    let restored = try fixture.restore("b1", to: "r")
    #expect(restored["state"] as? String == "succeeded", "\(restored)")
    try fixture.expect("r", holds: "b1")
    // Another name for the same export finds the same.
    #expect(try service.delete("/v1/targets/far?backups=keep").status == 204)
    #expect(
      try service.post(
        "/v1/targets", "{\"name\":\"far\",\"type\":\"nbd\",\"uri\":\"\(fixture.server.uri)\"}"
      ).status == 201)
    #expect(try fixture.backups().count == 1)
    // A byte that is another is found, and not handed out.
    try Tool.shell(
      "printf x | dd of='\(fixture.disk)' bs=1 seek=$((65536 * 37 + 5)) conv=notrunc 2>&1")
    let failed = try fixture.end(of: fixture.begin("verify", ",\"backup\":\"b1\""))
    #expect(code(failed) == "backup-corrupt", "\(failed)")
    let detail = (failed["error"] as? [String: Any])?["detail"] as? String ?? ""
    #expect(detail.contains(fixture.server.uri) && detail.contains("clusters 37"), "\(detail)")
    #expect(code(try fixture.restore("b1", to: "s")) == "backup-corrupt")
    #expect(try fixture.backups().first?["state"] as? String == "damaged")
    fixture.server.kill()
    #expect(code(try fixture.end(of: fixture.begin("verify", ""))) == "target-unreachable")
    #expect(try service.delete("/v1/targets/far/backups/b1").status == 204)
    #expect(try fixture.backups().isEmpty)
    #expect(try service.delete("/v1/targets/far").status == 204)
  }

  private func backUp(_ fixture: ExportFixture, _ more: String = "") throws -> String {
    try fixture.begin("backup", more, ",\"device\":\"vm\"")
  }

  private func result(_ job: [String: Any]) -> [String: Any] {
    job["result"] as? [String: Any] ?? [:]
  }

  @Test("are made of a live disk by the job, each in the place of the one before")
  func live() throws {
    let fixture = try ExportFixture()
    try fixture.write("write -P 17 0 20M", "write -P 18 22M 20M")
    try fixture.save("first")
    let refused = try fixture.service.post(
      "/v1/jobs",
      #"{"type":"backup","device":"vm","params":{"target":"far","mode":"incremental"}}"#)
    #expect(refused.code == "increment-not-possible", "\(refused.text)")
    let first = try backUp(fixture, ",\"mode\":\"full\"")
    let done = try fixture.end(of: first)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(result(done)["backup"] as? String == first)
    #expect(result(done)["bytes_written"] as? Int == 40 << 20, "\(done)")
    #expect(try fixture.restore(first, to: "r1")["state"] as? String == "succeeded")
    try fixture.expect("r1", holds: "first")
    try fixture.write("write -z 1M 2M", "write -P 19 44M 1M", "discard 30M 4M")
    try fixture.save("second")
    let second = try backUp(fixture)
    #expect(result(try fixture.end(of: second))["degraded_reason"] is String)
    #expect(try fixture.backups().map { $0["id"] as? String } == [second])
    #expect(try fixture.restore(second, to: "r2")["state"] as? String == "succeeded")
    try fixture.expect("r2", holds: "second")
    // Whoever opens the export finds the disk.
    try Tool.shell(
      "cmp -n \(48 << 20) '\(fixture.disk)' '\(fixture.raw("second"))'")
    let events = try fixture.service.get("/v1/events?types=backup.*").json["items"]
    let types = (events as? [[String: Any]])?.compactMap { $0["type"] as? String }
    #expect(types == ["backup.complete", "backup.deleted", "backup.complete"])
  }

  @Test("go on when their server, or the service, was killed, and guests notice nothing")
  func killed() throws {
    let fixture = try ExportFixture()
    let service = fixture.service
    try fixture.write("write -P 17 0 20M", "write -P 18 22M 20M")
    try fixture.save("then")
    func slow(_ more: String = "") throws -> String {
      let id = try fixture.begin(
        "backup", more, ",\"device\":\"vm\",\"limits\":{\"bps\":8388608}")
      while true {
        let job = try service.get("/v1/jobs/\(id)").json
        let done = (job["progress"] as? [String: Any])?["done_bytes"] as? Int ?? 0
        if done >= 12 << 20 { return id }
        try #require(!(job["finished_at"] is String), "\(job)")
      }
    }
    func finish(_ id: String) throws -> [String: Any] {
      #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}").status == 200)
      return try fixture.end(of: id)
    }
    // The instant stays the same while the server is away.
    let live = try slow()
    fixture.server.kill()
    try fixture.write("write -P 33 0 48M")
    while true {
      let waits = try service.get("/v1/jobs/\(live)").json["waiting_for"] as? [[String: Any]] ?? []
      if waits.contains(where: { $0["kind"] as? String == "target" }) { break }
    }
    try fixture.server.restart()
    let lived = try finish(live)
    #expect(lived["state"] as? String == "succeeded", "\(lived)")
    #expect(result(lived)["restarted"] as? Bool == false)
    #expect(try fixture.restore(live, to: "r1")["state"] as? String == "succeeded")
    try fixture.expect("r1", holds: "then")
    // A snapshot's goes on at its cursor behind kill -9.
    try fixture.save("now")
    let made = try service.post("/v1/devices/vm/snapshots", "{}")
    let uuid = try #require(made.json["uuid"] as? String)
    let still = try slow(",\"snapshot\":\"\(uuid)\"")
    service.kill()
    try service.start()
    let stilled = try finish(still)
    #expect(stilled["state"] as? String == "succeeded", "\(stilled)")
    let log = try service.get("/v1/jobs/\(still)/log").text
    #expect(log.contains("goes on at cluster"), "\(log)")
    #expect(try fixture.restore(still, to: "r2")["state"] as? String == "succeeded")
    try fixture.expect("r2", holds: "now")
    // A live disk's begins anew.
    let again = try slow()
    service.kill()
    try service.start()
    let restarted = try finish(again)
    #expect(result(restarted)["restarted"] as? Bool == true, "\(restarted)")
    #expect(try fixture.end(of: fixture.begin("verify", ""))["state"] as? String == "succeeded")
    // Who is cancelled leaves nothing.
    let cancelled = try slow()
    _ = try service.call("POST", "/v1/jobs/\(cancelled)/cancel", nil, ["Prefer: wait=60"])
    #expect(try fixture.end(of: cancelled)["state"] as? String == "cancelled")
    #expect(try fixture.backups().isEmpty)
  }
}
