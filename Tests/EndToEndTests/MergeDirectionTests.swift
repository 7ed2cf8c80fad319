import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("Merging in either direction while a disk is used")
struct MergeDirectionTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
  }

  private func write(_ pattern: Int, _ place: String) throws {
    try Tool.shell("qemu-io -f raw -c 'write -P \(pattern) \(place)' '\(service.uri("vm"))'")
  }

  private func save(_ name: String, of export: String = "vm") throws {
    try Tool.shell("nbdcopy '\(service.uri(export))' '\(folder.path)/\(name)'")
  }

  private func bare(_ guid: String) -> String { guid.filter { !"{}".contains($0) } }

  private func snapshot() throws -> String {
    let reply = try service.post("/v1/devices/vm/snapshots", "{}")
    return bare(try #require(reply.json["uuid"] as? String, "\(reply.text)"))
  }

  private func merge(
    _ parameters: String, _ more: String = "", headers: [String] = ["Prefer: wait=60"],
    query: String = ""
  ) throws -> RunningService.Reply {
    try service.post(
      "/v1/jobs\(query)",
      "{\"type\":\"merge\",\"device\":\"vm\",\"params\":{\(parameters)}\(more)}", headers)
  }

  private func plan(_ parameters: String) throws -> [String: Any] {
    let reply = try merge(parameters, headers: [], query: "?dry_run=true")
    return try #require(reply.json["plan"] as? [String: Any], "\(reply.text)")
  }

  /// What a state that can be gone back to holds, as a file.
  private func save(_ name: String, at guid: String) throws {
    let reply = try service.post(
      "/v1/exports", "{\"name\":\"look\",\"device\":\"vm\",\"snapshot\":\"\(guid)\"}")
    #expect(reply.status == 201, "\(reply.text)")
    try save(name, of: "look")
    #expect(try service.delete("/v1/exports/look").status == 204)
  }

  private func copying(_ id: String) throws {
    while try service.get("/v1/jobs/\(id)").json["phase"] as? String != "copying" {}
    _ = try service.get("/v1/jobs/\(id)/log?after=2&wait=20")
  }

  private func end(of id: String) throws -> [String: Any] {
    let deadline = Deadline.after(seconds: 120)
    while !deadline.hasPassed {
      let job = try service.get("/v1/jobs/\(id)")
      let revision = try #require(job.json["revision"] as? Int, "\(job.text)")
      if job.json["finished_at"] is String { return job.json }
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(revision)&wait=2")
    }
    throw Tool.Failure(description: "the job \(id) does not end")
  }

  /// Closes the disk, and has OpenVZ's and QEMU's tools read it.
  private func judge(_ content: String) throws {
    let device = try service.get("/v1/devices/vm")
    let deltas = device.json["deltas"] as? [[String: Any]] ?? []
    let paths = deltas.compactMap { $0["path"] as? String }.map {
      "\(service.images)/\($0.dropFirst("main:".count))"
    }
    #expect(!paths.isEmpty && paths.count == deltas.count, "\(device.text)")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
    for path in paths { try QEMU.expectSound(path) }
    try Tool.shell(
      "qemu-img convert -O raw '\(QEMU.stack(paths, rawBase: false))' '\(folder.path)/judged'")
    try expectSameBytes("\(folder.path)/judged", "\(folder.path)/\(content)")
    let left = try Tool.shell(
      "ls '\(service.images)/vm' | grep '^root.hds' | grep -vc index-backup"
    ).output
    #expect(left == "\(paths.count)\n")
  }

  @Test("each index of a chain of six, backward under fio, keeps the disk and the other states")
  func underLoad() throws {
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 15).status == 201)
    try write(17, "24M 30M")
    var snapshots: [String] = []
    for round in 1...5 {
      snapshots.append(try snapshot())
      try write(round, "\(24 + round * 4)M 6M")
    }
    for (index, guid) in snapshots.enumerated() { try save("state\(index)", at: guid) }
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
    var gone: Set<Int> = []
    // The middle, what is then in the middle, the oldest.
    for (level, index) in [(2, 2), (2, 3), (0, 0)] {
      let merged = try merge("\"level\":\(level),\"direction\":\"backward\"")
      #expect(merged.json["state"] as? String == "succeeded", "\(merged.text)")
      let result = merged.json["result"] as? [String: Any]
      #expect(result?["direction"] as? String == "backward", "\(merged.text)")
      gone.insert(index)
    }
    _ = ended.wait { $0 ? true : nil }
    load.join()
    let items = try service.get("/v1/devices/vm/snapshots").json["items"] as? [[String: Any]] ?? []
    let names = items.compactMap { ($0["uuid"] as? String).map(bare) }
    #expect(names == [snapshots[1], snapshots[4]])
    #expect(items.allSatisfy { $0["temporary"] as? Bool == false })
    for (index, guid) in snapshots.enumerated() where !gone.contains(index) {
      try save("again", at: guid)
      try expectSameBytes("\(folder.path)/again", "\(folder.path)/state\(index)", "state \(index)")
    }
    try save("now")
    try judge("now")
  }

  @Test("the side with less to copy is taken, and a dry run says which and why")
  func automatic() throws {
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 15).status == 201)
    try write(1, "0 12M")
    let large = try snapshot()
    try write(2, "1M 64k")
    let small = try snapshot()
    try write(3, "0 4M")
    _ = try snapshot()
    try save("before")
    let down = try plan("\"snapshot\":\"\(large)\"")
    #expect(down["direction"] as? String == "backward", "\(down)")
    #expect(down["clusters_to_copy"] as? Int == 2)
    #expect(down["space_needed_bytes"] as? Int == 0)
    let up = try plan("\"snapshot\":\"\(small)\"")
    #expect(up["direction"] as? String == "forward", "\(up)")
    #expect(up["reason"] as? String == "0 clusters to copy forward, 128 backward", "\(up)")
    let asked = try plan("\"snapshot\":\"\(large)\",\"direction\":\"forward\"")
    #expect(asked["clusters_to_copy"] as? Int == 382)
    let newest = try plan("")
    #expect(newest["direction"] as? String == "forward", "\(newest)")
    let deleted = try service.call(
      "DELETE", "/v1/devices/vm/snapshots/\(large)", nil, ["Prefer: wait=60"])
    let result = deleted.json["result"] as? [String: Any]
    #expect(result?["direction"] as? String == "backward", "\(deleted.text)")
    #expect(result?["clusters_copied"] as? Int == 2)
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
    try judge("after")
  }

  @Test("what is not possible backward is refused, and says who is in the way")
  func refused() throws {
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 15).status == 201)
    try write(1, "0 4M")
    let one = try snapshot()
    try write(2, "2M 4M")
    let two = try snapshot()
    try write(3, "4M 4M")
    let newest = try merge("\"direction\":\"backward\"")
    #expect(newest.code == "merge-direction-invalid" && newest.status == 422, "\(newest.text)")
    #expect(try merge("\"direction\":\"down\"").code == "invalid-value")
    // Of the receiver's state, and of one above it: both read its file.
    for guid in [one, two] {
      let export = try service.post(
        "/v1/exports", "{\"name\":\"old\",\"device\":\"vm\",\"snapshot\":\"\(guid)\"}")
      #expect(export.status == 201, "\(export.text)")
      let held = try merge("\"level\":0,\"direction\":\"backward\"")
      #expect(held.code == "export-in-use", "\(held.text)")
      #expect((held.json["holder"] as? [String: Any])?["id"] as? String == "old")
      #expect(try service.delete("/v1/exports/old").status == 204)
    }
    let look = try service.post(
      "/v1/devices",
      "{\"id\":\"look\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"at\":\"\(one)\"}")
    if look.status == 201 {
      let other = try merge("\"level\":0,\"direction\":\"backward\"")
      #expect(other.code == "image-in-use", "\(other.text)")
      #expect((other.json["holder"] as? [String: Any])?["id"] as? String == "look")
      #expect(try service.delete("/v1/devices/look").status == 204)
    } else {
      #expect(look.code == "image-in-use", "\(look.text)")
    }
    let back = try service.post(
      "/v1/devices/vm/snapshots/\(one)/switch", "{\"keep_top_as\":\"kept\"}")
    #expect(back.status == 200, "\(back.text)")
    _ = try snapshot()
    let branches = try merge("\"level\":0,\"direction\":\"backward\"")
    #expect(branches.code == "snapshot-has-branches", "\(branches.text)")
    #expect((branches.json["holder"] as? [String: Any])?["kind"] as? String == "snapshot")
    let branch = try merge("\"snapshot\":\"\(two)\",\"direction\":\"backward\"")
    #expect(branch.code == "merge-direction-invalid", "\(branch.text)")
  }

  @Test("a raw base, and a file that was there before its descriptor, do not receive")
  func foreignFiles() throws {
    try Tool.shell("mkdir -p '\(service.images)/s'; truncate -s 16M '\(service.images)/s/raw.img'")
    for name in ["base", "a", "b"] {
      try QEMU.create("\(service.images)/s/\(name).hds", "size=16M,cluster_size=64k")
    }
    let listed = try service.attach("vm", ["s/base.hds", "s/a.hds", "s/b.hds"])
    #expect(listed.status == 201, "\(listed.text)")
    try write(5, "0 8M")
    #expect(try plan("\"level\":0")["direction"] as? String == "forward")
    let shared = try merge("\"level\":0,\"direction\":\"backward\"")
    #expect(shared.code == "image-has-children" && shared.status == 409, "\(shared.text)")
    #expect(try merge("\"level\":0").json["state"] as? String == "succeeded")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try Tool.shell("rm '\(service.images)'/s/DiskDescriptor.xml*")
    let raw = try service.post(
      "/v1/devices",
      "{\"id\":\"vm\",\"deltas\":[{\"path\":\"s/raw.img\",\"format\":\"raw\"},{\"path\":\"s/b.hds\"}],\"export\":{\"name\":\"vm\"}}"
    )
    #expect(raw.status == 201, "\(raw.text)")
    _ = try snapshot()
    let refused = try merge("\"level\":0,\"direction\":\"backward\"")
    #expect(refused.code == "merge-direction-invalid", "\(refused.text)")
  }

  @Test(
    "a kill in the middle, or a cancel, leaves a disk that reads right and a merge to be made whole"
  )
  func interrupted() throws {
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 15).status == 201)
    try write(17, "0 32M")
    let given = try snapshot()
    try write(18, "1M 24M")
    let kept = try snapshot()
    try write(19, "3M 1M")
    try Tool.shell("qemu-io -f raw -c flush '\(service.uri("vm"))'")
    try save("before")
    try save("held", at: kept)
    let slow = ",\"limits\":{\"bps\":4194304}"
    func begin() throws -> String {
      let reply = try merge(
        "\"snapshot\":\"\(given)\",\"direction\":\"backward\"", slow, headers: [])
      let id = try #require(reply.json["id"] as? String, "\(reply.text)")
      try copying(id)
      return id
    }
    func isTemporary() throws -> Bool? {
      try service.get("/v1/devices/vm/snapshots/\(given)").json["temporary"] as? Bool
    }
    let first = try begin()
    #expect(try isTemporary() == true)
    let export = try service.post(
      "/v1/exports", "{\"name\":\"old\",\"device\":\"vm\",\"snapshot\":\"\(given)\"}")
    #expect(export.status == 409, "\(export.text)")
    let cancelled = try service.call(
      "POST", "/v1/jobs/\(first)/cancel", nil, ["Prefer: wait=30"])
    #expect(cancelled.json["state"] as? String == "cancelled", "\(cancelled.text)")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before", "after a cancel")
    #expect(try isTemporary() == true)
    let back = try service.post(
      "/v1/devices/vm/snapshots/\(given)/switch", "{\"keep_top_as\":\"x\"}")
    #expect(back.code == "snapshot-not-possible", "\(back.text)")

    let second = try begin()
    service.kill()
    try service.start()
    #expect(try service.get("/v1/devices/vm").json["state"] as? String == "online")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before", "after a kill")
    #expect(try service.patch("/v1/jobs/\(second)", "{\"limits\":{}}").status == 200)
    let job = try end(of: second)
    #expect(job["state"] as? String == "succeeded", "\(job)")
    #expect(try service.get("/v1/devices/vm/snapshots/\(given)").status == 404)
    try save("again", at: kept)
    try expectSameBytes("\(folder.path)/again", "\(folder.path)/held")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before", "at the end")
    try judge("after")
  }

  @Test("with the state lost in the middle, the snapshot is temporary and DELETE makes it whole")
  func stateLost() throws {
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 15).status == 201)
    try write(17, "0 32M")
    let given = try snapshot()
    try write(18, "1M 30M")
    _ = try snapshot()
    try write(19, "3M 1M")
    try Tool.shell("qemu-io -f raw -c flush '\(service.uri("vm"))'")
    try save("before")
    let reply = try merge(
      "\"level\":0,\"direction\":\"backward\"", ",\"limits\":{\"bps\":4194304}", headers: [])
    try copying(try #require(reply.json["id"] as? String, "\(reply.text)"))
    service.kill()
    try Tool.shell("rm -rf '\(service.folder)/state'/*")
    try service.start()
    let again = try service.post(
      "/v1/devices",
      "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"export\":{\"name\":\"vm\"}}")
    #expect(again.status == 201, "\(again.text)")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
    let item = try service.get("/v1/devices/vm/snapshots/\(given)")
    #expect(item.json["temporary"] as? Bool == true, "\(item.text)")
    let deleted = try service.call(
      "DELETE", "/v1/devices/vm/snapshots/\(given)", nil, ["Prefer: wait=60"])
    #expect(deleted.json["state"] as? String == "succeeded", "\(deleted.text)")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
    try judge("after")
  }
}
