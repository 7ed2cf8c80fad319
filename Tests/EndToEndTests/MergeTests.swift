import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("Merging and deleting snapshots while a disk is used")
struct MergeTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
  }

  private func write(_ pattern: Int, _ place: String) throws {
    try Tool.shell("qemu-io -f raw -c 'write -P \(pattern) \(place)' '\(service.uri("vm"))'")
  }

  private func save(_ name: String) throws {
    try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(folder.path)/\(name)'")
  }

  private func snapshot() throws -> String {
    let reply = try service.post("/v1/devices/vm/snapshots", "{}")
    return try #require(reply.json["uuid"] as? String, "\(reply.text)")
  }

  private func levels() throws -> Int {
    (try service.get("/v1/devices/vm").json["deltas"] as? [Any])?.count ?? 0
  }

  private func merge(_ more: String = "", _ headers: [String] = ["Prefer: wait=60"]) throws
    -> RunningService.Reply
  {
    try service.post("/v1/jobs", "{\"type\":\"merge\",\"device\":\"vm\"\(more)}", headers)
  }

  /// Waits until a job is over.
  private func end(of id: String) throws -> [String: Any] {
    for _ in 0..<60 {
      let job = try service.get("/v1/jobs/\(id)")
      let revision = try #require(job.json["revision"] as? Int, "\(job.text)")
      if job.json["finished_at"] is String { return job.json }
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(revision)&wait=2")
    }
    throw Tool.Failure(description: "the job \(id) does not end")
  }

  @Test("newest, oldest and middle ones are merged under fio, to the same bytes")
  func underLoad() throws {
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 16).status == 201)
    try write(17, "32M 16M")
    var snapshots: [String] = []
    for round in 1...4 {
      snapshots.append(try snapshot())
      try write(round, "\(30 + round * 3)M 5M")
    }
    let ended = Monitor(false)
    let load = try Thread(name: "fio") {
      do {
        try Tool.shell(
          """
          cd '\(self.folder.path)' && fio --name=load --ioengine=nbd --uri='\(self.service.uri("vm"))' --rw=randrw \
            --bs=16k --iodepth=8 --size=24m --time_based=1 --runtime=4 --verify=crc32c \
            --verify_backlog=64 --verify_fatal=1 --randseed=9 --output=fio.log >/dev/null 2>&1
          """, seconds: 120)
      } catch { Issue.record("the load: \(error)") }
      ended.update { $0 = true }
    }
    defer { load.join() }
    let plan = try service.post(
      "/v1/jobs?dry_run=true", "{\"type\":\"merge\",\"device\":\"vm\"}")
    #expect(plan.status == 200)
    let planned = (plan.json["plan"] as? [String: Any])?["clusters_to_copy"] as? Int ?? 0
    #expect(planned > 0)
    let newest = try merge()
    #expect(
      newest.status == 200 && newest.json["state"] as? String == "succeeded", "\(newest.text)")
    #expect(try levels() == 4)
    let middle = try merge(",\"params\":{\"level\":1}")
    #expect(middle.json["state"] as? String == "succeeded", "\(middle.text)")
    let path = "/v1/devices/vm/snapshots/\(snapshots[0].filter { !"{}".contains($0) })"
    let stale = try service.call("DELETE", path, nil, ["If-Match: \"1\""])
    #expect(stale.status == 412 && stale.code == "precondition-failed", "\(stale.text)")
    let oldest = try service.call("DELETE", path, nil, ["Prefer: wait=60"])
    #expect(oldest.json["state"] as? String == "succeeded", "\(oldest.text)")
    #expect(try levels() == 2)
    _ = ended.wait { $0 ? true : nil }
    for round in 1...4 {
      let end = round == 4 ? 5 : 3
      let read = "read -P \(round) \(30 + round * 3)M \(end)M"
      let output = try Tool.shell("qemu-io -r -f raw -c '\(read)' '\(service.uri("vm"))'").output
      #expect(!output.contains("failed"), "round \(round)")
    }
    try save("now")
    let files = try Tool.shell("ls '\(service.images)/vm' | grep -c root.hds").output
    #expect(files == "2\n", "\(files)")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let again = try service.post(
      "/v1/devices",
      "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"export\":{\"name\":\"vm\"}}")
    #expect(again.status == 201, "\(again.text)")
    try save("again")
    try expectSameBytes("\(folder.path)/again", "\(folder.path)/now")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
  }

  @Test("branches: a leaf is dropped, a branch merged offline, and what others build on is refused")
  func branches() throws {
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
    try write(1, "0 4M")
    let one = try snapshot()
    try write(2, "2M 4M")
    let two = try snapshot()
    try write(3, "4M 4M")
    try save("branch")
    let path = "/v1/devices/vm/snapshots"
    func bare(_ guid: String) -> String { guid.filter { !"{}".contains($0) } }
    let back = try service.post(
      "\(path)/\(bare(one))/switch", "{\"keep_top_as\":\"33333333-0000-4000-8000-000000000000\"}")
    #expect(back.status == 200, "\(back.text)")
    try write(4, "8M 1M")
    try save("top")
    let refused = try service.delete("\(path)/\(bare(one))")
    #expect(refused.code == "snapshot-has-branches", "\(refused.text)")
    #expect((refused.json["holder"] as? [String: Any])?["kind"] as? String == "snapshot")
    // `two` is on the other branch, with the kept state above it.
    let offline = try service.call(
      "DELETE", "\(path)/\(bare(two))", nil, ["Prefer: wait=60"])
    #expect(offline.json["state"] as? String == "succeeded", "\(offline.text)")
    let look = try service.post(
      "/v1/devices",
      "{\"id\":\"look\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"at\":\"33333333-0000-4000-8000-000000000000\",\"export\":{\"name\":\"look\"}}"
    )
    #expect(look.status == 201, "\(look.text)")
    try Tool.shell("nbdcopy '\(service.uri("look"))' '\(folder.path)/look'")
    try expectSameBytes("\(folder.path)/look", "\(folder.path)/branch")
    #expect(try service.delete("/v1/devices/look").status == 204)
    let leaf = try service.call(
      "DELETE", "\(path)/33333333-0000-4000-8000-000000000000", nil, ["Prefer: wait=60"])
    #expect(leaf.json["state"] as? String == "succeeded", "\(leaf.text)")
    #expect(try service.delete("\(path)/33333333-0000-4000-8000-000000000000").status == 404)
    try save("now")
    try expectSameBytes("\(folder.path)/now", "\(folder.path)/top")
    #expect(try Tool.shell("ls '\(service.images)/vm' | grep -c root.hds").output == "2\n")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
  }

  @Test("a merge that a kill interrupts goes on where it was, and copies little again")
  func killed() throws {
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 14).status == 201)
    try write(17, "0 48M")
    _ = try snapshot()
    try write(18, "1M 1M")
    try save("before")
    let reply = try merge(",\"limits\":{\"bps\":8388608}", ["Idempotency-Key: one"])
    #expect(reply.status == 202, "\(reply.text)")
    let id = try #require(reply.json["id"] as? String)
    // Until some of it is durable.
    var log = ""
    while !log.contains("moved, durably") {
      log = try service.get("/v1/jobs/\(id)/log?after=2&wait=10").text
    }
    service.kill()
    try service.start()
    #expect(try merge(",\"limits\":{\"bps\":8388608}", ["Idempotency-Key: one"]).text == reply.text)
    let paused = try service.patch("/v1/jobs/\(id)", "{\"paused\":true}")
    #expect(paused.json["paused"] as? Bool == true, "\(paused.text)")
    let busy = try service.post("/v1/devices/vm/snapshots", "{}")
    let holder = busy.json["holder"] as? [String: Any]
    if busy.status != 201 {
      #expect(busy.code == "device-busy" && holder?["id"] as? String == id, "\(busy.text)")
    }
    #expect(try service.patch("/v1/jobs/\(id)", "{\"paused\":false,\"limits\":{}}").status == 200)
    let job = try end(of: id)
    #expect(job["state"] as? String == "succeeded", "\(job)")
    #expect(job["interruptions"] as? Int == 1)
    // From the log: what was left when it began anew, and what had been durable.
    let lines = try service.get("/v1/jobs/\(id)/log").text.split(separator: "\n")
    func number(_ line: Substring) -> Int {
      line.split(separator: "\"").compactMap { part in
        Int(part.split(separator: " ").first ?? "")
      }.first ?? -1
    }
    let totals = lines.filter { $0.contains("clusters to move") }.map(number)
    #expect(totals.count == 2, "\(lines)")
    let restart = try #require(lines.lastIndex { $0.contains("clusters to move") })
    let durable = try #require(
      lines[..<restart].last { $0.contains("moved, durably") }.map(number))
    #expect(totals[1] <= totals[0] - durable, "\(lines)")
    // Each line is a step of at most 32 clusters behind the one before, and at most two steps were
    // neither durable nor in a line: no more than 64 clusters were copied twice.
    let marks = [0] + lines[..<restart].filter { $0.contains("moved, durably") }.map(number)
    #expect(zip(marks, marks.dropFirst()).allSatisfy { $1 > $0 && $1 - $0 <= 32 }, "\(lines)")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
    #expect(try service.delete("/v1/jobs/\(id)").status == 204)
    #expect(try service.get("/v1/jobs/\(id)").status == 404)
  }

  @Test("cancel, retry, order, slots and a paused queue do what they say")
  func queue() throws {
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 14).status == 201)
    try write(17, "0 32M")
    _ = try snapshot()
    try save("before")
    #expect(try service.patch("/v1/queue", "{\"paused\":true}").status == 200)
    let waiting = try merge("", [])
    let id = try #require(waiting.json["id"] as? String, "\(waiting.text)")
    let second = try merge(",\"dedupe_key\":\"nightly\",\"after\":[\"\(id)\"]", [])
    #expect(second.status == 202, "\(second.text)")
    let same = try merge(",\"dedupe_key\":\"nightly\"", [])
    #expect(same.status == 200 && same.json["id"] as? String == second.json["id"] as? String)
    #expect(try merge(",\"after\":[\"none\"]", []).code == "dependency-missing")
    #expect(try merge(",\"params\":{\"level\":9}", []).code == "nothing-to-merge")
    #expect(try merge(",\"params\":{\"levle\":0}", []).code == "unknown-field")
    #expect(try merge(",\"type\":\"merge\"", []).code == "duplicate-key")
    #expect(
      try service.post("/v1/jobs", "{\"type\":\"x\",\"device\":\"vm\"}").code == "invalid-value")
    #expect(
      try service.post("/v1/jobs", "{\"type\":\"merge\",\"device\":\"x\"}").code
        == "device-not-found")
    #expect(try service.delete("/v1/jobs/\(id)").code == "job-active")
    #expect(try service.post("/v1/jobs/\(id)/retry", "").code == "job-not-failed")
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":2097152}}").status == 200)
    #expect(try service.patch("/v1/queue", "{\"paused\":false}").status == 200)
    while try service.get("/v1/jobs/\(id)").json["phase"] as? String != "copying" {}
    let safe = try service.delete("/v1/devices/vm")
    #expect(safe.code == "device-busy", "\(safe.text)")
    let cancelled = try service.call(
      "POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=30"])
    #expect(cancelled.json["state"] as? String == "cancelled", "\(cancelled.text)")
    #expect(try service.post("/v1/jobs/\(id)/cancel", "").code == "job-finished")
    let orphan = try end(of: try #require(second.json["id"] as? String))
    #expect((orphan["error"] as? [String: Any])?["code"] as? String == "dependency-failed")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
    #expect(try levels() == 2)
    #expect(try service.patch("/v1/queue", "{\"limits\":{\"bps\":4194304}}").status == 200)
    let retried = try service.post("/v1/jobs/\(id)/retry", "")
    #expect(retried.json["attempt"] as? Int == 2, "\(retried.text)")
    while try service.get("/v1/jobs/\(id)").json["phase"] as? String != "copying" {}
    // The disk goes away, and its job waits for it.
    #expect(try service.delete("/v1/devices/vm?mode=hard").status == 204)
    let left = try service.get("/v1/jobs/\(id)").json
    #expect(left["state"] as? String == "queued", "\(left)")
    let again = try service.post(
      "/v1/devices",
      "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"export\":{\"name\":\"vm\"}}")
    #expect(again.status == 201, "\(again.text)")
    #expect(try service.patch("/v1/queue", "{\"limits\":{}}").status == 200)
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{}}").status == 200)
    #expect(try end(of: id)["state"] as? String == "succeeded")
    #expect(try levels() == 1)
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
  }

  @Test("a suspended disk's merge waits, and another door to the descriptor disturbs none")
  func suspended() throws {
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 15).status == 201)
    try write(17, "0 32M")
    _ = try snapshot()
    try save("before")
    let id = try #require(try merge(",\"limits\":{\"bps\":4194304}", []).json["id"] as? String)
    while try service.get("/v1/jobs/\(id)").json["phase"] as? String != "copying" {}
    let other = try service.post(
      "/v1/devices", "{\"id\":\"other\",\"descriptor\":\"vm/DiskDescriptor.xml\"}")
    #expect(other.code == "image-in-use", "\(other.text)")
    #expect(try Tool.shell("ls '\(service.images)/vm' | grep -c intent").output == "1\n")
    #expect(try service.patch("/v1/devices/vm", "{\"suspended\":true}").status == 200)
    #expect(try service.get("/v1/jobs/\(id)").json["state"] as? String == "queued")
    #expect(try service.delete("/v1/devices/vm?mode=hard").status == 204)
    let again = try service.post(
      "/v1/devices",
      "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"suspended\":true,\"export\":{\"name\":\"vm\"}}"
    )
    #expect(again.status == 201, "\(again.text)")
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{}}").status == 200)
    #expect(try service.patch("/v1/devices/vm", "{\"suspended\":false}").status == 200)
    #expect(try end(of: id)["state"] as? String == "succeeded")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
  }

  @Test("a delta that others build on, or that another device has, is not taken from them")
  func shared() throws {
    try Tool.shell("mkdir -p '\(service.images)/s'")
    for name in ["base", "a", "b"] {
      try QEMU.create("\(service.images)/s/\(name).hds", "size=16M,cluster_size=64k")
    }
    #expect(try service.attach("vm", ["s/base.hds"]).status == 201)
    try write(5, "0 8M")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    #expect(try service.attach("vm", ["s/base.hds", "s/a.hds"]).status == 201)
    try write(6, "1M 1M")
    let other = try service.post(
      "/v1/devices",
      "{\"id\":\"b\",\"deltas\":[{\"path\":\"s/base.hds\"}],\"readonly\":true}")
    #expect(other.status == 201, "\(other.text)")
    let held = try merge(",\"params\":{\"level\":0}")
    #expect(
      (held.json["error"] as? [String: Any] ?? held.json)["code"] as? String == "image-in-use")
    #expect(try service.delete("/v1/devices/b").status == 204)
    // Notes that were damaged, and are begun anew: what they said of shared files still holds.
    try Tool.shell("echo nonsense > '\(service.images)/s/DiskDescriptor.xml.notes'")
    #expect(try merge(",\"params\":{\"level\":0}").code == "snapshot-protected")
    let items = try service.get("/v1/devices/vm/snapshots").json["items"] as? [[String: Any]]
    let guid = (items?.first?["uuid"] as? String ?? "").filter { !"{}".contains($0) }
    #expect(
      try service.patch("/v1/devices/vm/snapshots/\(guid)", "{\"name\":\"base\"}").status == 200)
    let merged = try merge(",\"params\":{\"level\":0}")
    #expect(merged.json["state"] as? String == "succeeded", "\(merged.text)")
    #expect(try levels() == 1)
    try write(7, "2M 1M")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    // The other disk on the same base has it still.
    #expect(try service.attach("vm", ["s/base.hds", "s/b.hds"]).status == 201)
    let output = try Tool.shell(
      "qemu-io -r -f raw -c 'read -P 5 0 8M' -c 'read -P 0 8M 8M' '\(service.uri("vm"))'"
    ).output
    #expect(!output.contains("failed"), "\(output)")
  }

  @Test(
    "with the state lost in the middle of a merge, the disk is attached as it is, without repair")
  func stateLost() throws {
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 15).status == 201)
    try write(17, "0 32M")
    _ = try snapshot()
    try write(18, "1M 1M")
    try Tool.shell("qemu-io -f raw -c flush '\(service.uri("vm"))'")
    try save("before")
    let id = try #require(try merge(",\"limits\":{\"bps\":4194304}", []).json["id"] as? String)
    while try service.get("/v1/jobs/\(id)").json["phase"] as? String != "copying" {}
    service.kill()
    try Tool.shell("rm -rf '\(service.folder)/state'/*")
    try service.start()
    let again = try service.post(
      "/v1/devices",
      "{\"id\":\"new\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"export\":{\"name\":\"vm\"}}")
    // The intent beside the descriptor says whose the marks in the images are.
    #expect(again.status == 201, "\(again.text)")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
    #expect(
      try Tool.shell("ls '\(service.images)/vm' | grep -c intent", check: false).output == "0\n")
  }
}
