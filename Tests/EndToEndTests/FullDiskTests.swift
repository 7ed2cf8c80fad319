import Glibc
import PloopIO
import TestSupport
import Testing

/// What a small file system below the images does to guests, merges and requests. It is mounted in a
/// folder of the root, which itself has all the room there is.
@Suite("A file system that runs out of space")
struct FullDiskTests {
  private let folder: TemporaryFolder
  private let disk: SmallFilesystem
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    disk = try SmallFilesystem(in: folder, "images/small", mebibytes: 48)
    service = try RunningService(in: folder.path)
  }

  private var guest: FullDiskGuest {
    FullDiskGuest(model: "\(folder.path)/model", uri: service.uri("vm"))
  }

  private func create(_ id: String, sizeBytes: Int = 64 << 20) throws -> RunningService.Reply {
    try service.post(
      "/v1/devices",
      "{\"id\":\"\(id)\",\"create\":{\"directory\":\"small/\(id)\",\"size\":\(sizeBytes),\"cluster_size\":65536},\"export\":{\"name\":\"\(id)\"}}"
    )
  }

  private func device() throws -> [String: Any] { try service.get("/v1/devices/vm").json }

  private func shortage() throws -> [String: Any]? {
    (try device()["conditions"] as? [[String: Any]])?.first { $0["type"] as? String == "SpaceLow" }
  }

  /// What is free may be shown as it was a moment ago.
  private func awaitRoom() throws {
    let deadline = Deadline.after(seconds: 60)
    while try shortage() != nil {
      try #require(!deadline.hasPassed)
      poll(nil, 0, 50)
    }
  }

  /// Closed, the image and its descriptor are what other tools take for sound.
  private func close() throws {
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(disk.path)/vm' && ploop check DiskDescriptor.xml")
    #expect(try service.end() == 0)
  }

  // MARK: Guests

  @Test("guests hear of it, lose nothing, and go on when there is room")
  func guests() throws {
    #expect(try create("vm").status == 201)
    #expect(try shortage() == nil)
    // It gets more room below the feet of guests that stay connected.
    try guest.run(
      """
      connections = [connect() for _ in range(4)]
      assert not fill(connections, 5)
      check(connections[0])
      written = [b for b, v in model.items() if len(v) == 1]
      for block in written[:20]: assert write(connections[1], block), "in place"
      run(sys.argv[4])
      for block in list(model): assert write(connections[2], block), "once there is room"
      assert not fill(connections, 5)
      for h in connections: h.flush()
      check(connections[3])
      save()
      """, [disk.enlarging(byMebibytes: 8)])
    try disk.fill()
    let low = try #require(try shortage())
    #expect(low["reason"] as? String == "Full" && low["status"] as? String == "True", "\(low)")
    let figures = (low["message"] as? String)?.split(separator: " ").compactMap { Int($0) } ?? []
    #expect(figures.count == 2 && figures[0] < 65536, "\(low)")
    #expect(figures[1] > 100 << 20 && figures[1] <= 160 << 20, "\(low)")
    try Tool.shell(disk.enlarging(byMebibytes: 64))
    try awaitRoom()
    try guest.run(
      """
      h = connect()
      check(h)
      for block in range(1024): assert write(h, block), block
      h.flush(); check(h); h.shutdown()
      """)
    try close()
    try QEMU.expectSound("\(disk.path)/vm/root.hds")
  }

  @Test("kill -9 while it is full costs nothing that was promised, and the disk comes back full")
  func killed() throws {
    #expect(try create("vm").status == 201)
    // What was answered is durable; of what was not, the old bytes or the new.
    try guest.run(
      """
      connections = [connect() for _ in range(4)]
      left = [40]
      def refused():
          with lock: left[0] -= 1
          if left[0] == 0: os.kill(int(sys.argv[4]), signal.SIGKILL)
      failed = fill(connections, 1000, nbd.CMD_FLAG_FUA, refused)
      assert len(failed) == 4 and all(isinstance(e, nbd.Error) for e in failed), failed
      save()
      """, [String(service.process)])
    // Not a byte is left, not even for what a repair would like to keep.
    try disk.fill()
    service.kill()
    try service.start()
    let back = try device()
    #expect(back["state"] as? String == "online", "\(back)")
    let repairs = try #require(back["repairs"] as? [String])
    #expect(repairs.contains { $0.contains("no room to save") }, "\(repairs)")
    try disk.fill()
    try guest.run(
      """
      h = connect()
      check(h)
      assert not fill([h], 1)
      h.flush(); check(h); save()
      """)
    try disk.removeFiller()
    try Tool.shell(disk.enlarging(byMebibytes: 64))
    try guest.run(
      """
      h = connect()
      check(h)
      for block in range(1024): assert write(h, block), block
      h.flush(); check(h); h.shutdown()
      """)
    try close()
    try QEMU.expectSound("\(disk.path)/vm/root.hds")
  }

  // MARK: Merges

  private func merge(_ more: String = "", _ headers: [String] = []) throws -> RunningService.Reply {
    try service.post("/v1/jobs", "{\"type\":\"merge\",\"device\":\"vm\"\(more)}", headers)
  }

  private func job(_ id: String, until isWanted: ([String: Any]) -> Bool) throws -> [String: Any] {
    for _ in 0..<240 {
      let job = try service.get("/v1/jobs/\(id)")
      if isWanted(job.json) { return job.json }
      let revision = job.json["revision"] as? Int ?? 0
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(revision)&wait=1")
    }
    throw Tool.Failure(description: try service.get("/v1/jobs/\(id)").text)
  }

  private func end(of id: String) throws -> [String: Any] {
    try job(id) { $0["finished_at"] is String }
  }

  private static func waitsForSpace(_ job: [String: Any]) -> Bool {
    (job["waiting_for"] as? [[String: Any]])?.contains { $0["kind"] as? String == "space" } == true
  }

  private func levels() throws -> Int { (try device()["deltas"] as? [Any])?.count ?? 0 }

  @Test(
    "a merge waits for room in a valid chain, through kill -9, and goes on by itself",
    arguments: ["forward", "backward"])
  func merged(direction: String) throws {
    #expect(try create("vm").status == 201)
    for blocks in ["range(200)", "range(0, 400, 2)", "range(0, 200, 9)"] {
      try guest.run("h = connect()\nfor b in \(blocks): assert write(h, b)\nh.flush(); save()")
      guard blocks != "range(0, 200, 9)" else { break }
      #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
    }
    // Slow enough to be met by what comes.
    let made = try merge(
      ",\"params\":{\"level\":0,\"direction\":\"\(direction)\"},\"limits\":{\"bps\":2097152}")
    let id = try #require(made.json["id"] as? String, "\(made.text)")
    try disk.fill()
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}").status == 200)
    let waits = try job(id, until: Self.waitsForSpace)
    #expect(waits["state"] as? String == "running", "\(waits)")
    try guest.run(
      """
      h = connect()
      check(h)
      for b in range(0, 200, 9): assert write(h, b), "in place"
      h.flush(); save()
      """)
    service.kill()
    try disk.fill()
    try service.start()
    // Not even what it notes before it begins has room.
    _ = try job(id, until: Self.waitsForSpace)
    try guest.run("check(connect())")
    try disk.removeFiller()
    let end = try end(of: id)
    #expect(end["state"] as? String == "succeeded", "\(end)")
    let progress = try #require(end["progress"] as? [String: Any])
    #expect(
      progress["done_clusters"] as? Int == progress["total_clusters"] as? Int, "\(progress)")
    try guest.run("h = connect(); check(h); h.shutdown()")
    #expect(try levels() == 2)
    try close()
  }

  @Test("a merge that waits for room can be cancelled, and leaves the chain as it was")
  func cancelled() throws {
    #expect(try create("vm").status == 201)
    try guest.run("h = connect()\nfor b in range(200): assert write(h, b)\nh.flush(); save()")
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
    let made = try merge(",\"limits\":{\"bps\":2097152}")
    let id = try #require(made.json["id"] as? String, "\(made.text)")
    try disk.fill()
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}").status == 200)
    _ = try job(id, until: Self.waitsForSpace)
    let over = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(over.json["state"] as? String == "cancelled", "\(over.text)")
    #expect(try levels() == 2)
    try guest.run("check(connect())")
    // The leaf's own file is room enough, once its removal has room to be noted.
    let names = try Tool.shell("ls '\(disk.path)/vm'").output
    #expect(!names.contains("intent") && !names.contains(".tmp"), "\(names)")
    try disk.removeFiller()
    #expect(try merge("", ["Prefer: wait=60"]).json["state"] as? String == "succeeded")
    try guest.run("check(connect())")
    try close()
  }

  // MARK: Growing

  @Test("a disk that grows waits for room for what is in its index's way, through kill -9")
  func grown() throws {
    #expect(try create("vm").status == 201)
    try guest.run("h = connect()\nfor b in range(200): assert write(h, b)\nh.flush(); save()")
    // 127 clusters are in the way, and a step moves 16 of them.
    let size = 128 << 30
    let made = try service.post(
      "/v1/jobs",
      "{\"type\":\"resize\",\"device\":\"vm\",\"params\":{\"size\":\(size)},\"limits\":{\"bps\":1024}}"
    )
    let id = try #require(made.json["id"] as? String, "\(made.text)")
    _ = try job(id) {
      (($0["progress"] as? [String: Any])?["done_clusters"] as? Int ?? 0) > 0
    }
    try disk.fill()
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}").status == 200)
    let waits = try job(id, until: Self.waitsForSpace)
    #expect(waits["state"] as? String == "running", "\(waits)")
    #expect(try device()["size"] as? Int == 64 << 20)
    try guest.run(
      """
      h = connect()
      check(h)
      for b in range(0, 200, 9): assert write(h, b), "in place"
      h.flush(); save()
      """)
    service.kill()
    try disk.fill()
    try service.start()
    _ = try job(id, until: Self.waitsForSpace)
    #expect(try device()["size"] as? Int == 64 << 20)
    try guest.run("check(connect())")
    try disk.removeFiller()
    let end = try end(of: id)
    #expect(end["state"] as? String == "succeeded", "\(end)")
    #expect(try device()["size"] as? Int == size)
    try guest.run("h = connect(); check(h); h.shutdown()")
    try close()
    try QEMU.expectSound("\(disk.path)/vm/root.hds")
  }

  // MARK: Refusals

  /// What is refused says how much is wanted, and how much there is.
  private func expectRefused(
    _ reply: RunningService.Reply, atLeast required: Int, _ what: String
  ) throws {
    #expect(reply.status == 409 && reply.code == "insufficient-space", "\(what): \(reply.text)")
    let free = try disk.freeBytes()
    let told = try #require(reply.json["free_bytes"] as? Int, "\(what): \(reply.text)")
    #expect(abs(told - free) < 1 << 20, "\(what), \(free): \(reply.text)")
    let wanted = try #require(reply.json["required_bytes"] as? Int, "\(what): \(reply.text)")
    #expect(wanted >= required && wanted > told, "\(what): \(reply.text)")
  }

  @Test(
    "what cannot fit is refused with figures of the file system that it lies on, and changes nothing"
  )
  func refused() throws {
    #expect(try create("vm").status == 201)
    try guest.run("h = connect()\nfor b in range(100): assert write(h, b)\nh.flush(); save()")
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
    try disk.fill()
    let files = try Tool.shell("ls -lR '\(disk.path)'").output
    let revision = try device()["revision"] as? Int
    try expectRefused(try create("other"), atLeast: 2 << 16, "create")
    try expectRefused(
      try service.post("/v1/devices/vm/snapshots", "{}"), atLeast: 1 << 16, "snapshot")
    try expectRefused(try merge(), atLeast: 100 << 16, "merge")
    let snapshots = try service.get("/v1/devices/vm/snapshots")
    let snapshot = try #require(
      (snapshots.json["items"] as? [[String: Any]])?.first?["uuid"] as? String, "\(snapshots.text)")
    let path = "/v1/devices/vm/snapshots/\(snapshot.filter { !"{}".contains($0) })"
    try expectRefused(
      try service.post("\(path)/switch", "{\"discard_top\":true}"), atLeast: 1 << 16, "switch")
    try expectRefused(try service.delete(path), atLeast: 100 << 16, "delete")
    let plan = try service.post("/v1/jobs?dry_run=true", "{\"type\":\"merge\",\"device\":\"vm\"}")
    let planned = try #require(plan.json["plan"] as? [String: Any], "\(plan.text)")
    #expect(planned["space_needed_bytes"] as? Int == 100 << 16)
    #expect((planned["space_free_bytes"] as? Int ?? .max) < 1 << 20, "\(plan.text)")
    let blockers = planned["blockers"] as? [[String: Any]]
    #expect(blockers?.contains { $0["kind"] as? String == "space" } == true, "\(plan.text)")
    #expect(try device()["revision"] as? Int == revision)
    #expect(try Tool.shell("ls -lR '\(disk.path)'").output == files)
    try disk.removeFiller()
    #expect(try merge("", ["Prefer: wait=60"]).json["state"] as? String == "succeeded")
    try guest.run("h = connect(); check(h); h.shutdown()")
    try close()
  }

  @Test("it is the receiver's file system that counts, and not the top's")
  func otherFilesystem() throws {
    try Tool.shell("mkdir -p '\(service.images)/large'")
    for file in ["small/base.hds", "small/middle.hds", "large/top.hds"] {
      try QEMU.create("\(service.images)/\(file)", "size=32M,cluster_size=64k")
    }
    #expect(try service.attach("vm", ["small/base.hds"]).status == 201)
    try guest.run("h = connect()\nfor b in range(200): assert write(h, b)\nh.flush(); save()")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let chain = ["small/base.hds", "small/middle.hds", "large/top.hds"]
    #expect(try service.attach("vm", chain).status == 201)
    try disk.fill()
    #expect(try shortage() == nil)
    try guest.run("h = connect()\nfor b in range(0, 200, 3): assert write(h, b)\nh.flush(); save()")
    // The base into the middle, which has no room; the middle into the top, which has.
    try expectRefused(try merge(",\"params\":{\"level\":0}"), atLeast: 200 << 16, "merge")
    try disk.removeFiller()
    let slow = ",\"params\":{\"level\":0},\"limits\":{\"bps\":2097152}"
    let id = try #require(try merge(slow).json["id"] as? String)
    try disk.fill()
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}").status == 200)
    _ = try job(id, until: Self.waitsForSpace)
    try guest.run("check(connect())")
    try disk.removeFiller()
    #expect(try end(of: id)["state"] as? String == "succeeded")
    try disk.fill()
    #expect(try merge("", ["Prefer: wait=60"]).json["state"] as? String == "succeeded")
    try guest.run("h = connect(); check(h); h.shutdown()")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    #expect(try service.end() == 0)
  }
}
