import PloopIO
import TestSupport
import Testing

@Suite("Push backup, by a copier outside")
struct PushBackupTests {
  private let folder: TemporaryFolder
  private let service: RunningService
  private let path = "/v1/devices/vm/push-backup"
  private static let mebibyte = 1 << 20

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 16 * Self.mebibyte).status == 201)
    try write(1, "0 5M")
    try write(2, "9M 1M")
  }

  private func write(_ pattern: Int, _ place: String) throws {
    try Tool.shell("qemu-io -f raw -c 'write -P \(pattern) \(place)' '\(service.uri("vm"))'")
  }

  private func save(_ export: String, _ name: String) throws {
    try Tool.shell("nbdcopy '\(service.uri(export))' '\(folder.path)/\(name)'")
  }

  private func start(_ body: String) throws -> RunningService.Reply {
    let reply = try service.post(path, body)
    #expect(reply.status == 201, "\(reply.text)")
    return reply
  }

  private func confirm(_ body: String) throws -> RunningService.Reply {
    try service.post("\(path)/confirm", "{\"uuid\":\"b\",\(body)}")
  }

  private func stop(_ outcome: String) throws -> RunningService.Reply {
    try service.delete("\(path)?uuid=b&outcome=\(outcome)")
  }

  /// Writes at random until it is ended.
  private func writer(seconds: Int) throws -> ChildProcess {
    try ChildProcess(
      [
        "/bin/sh", "-c",
        "exec fio --name=w --ioengine=nbd --uri='\(service.uri("vm"))' --rw=randwrite --bs=4k-64k --iodepth=8 --size=16M --time_based --runtime=\(seconds) --randrepeat=0",
      ], output: "/dev/null", errors: "\(folder.path)/fio")
  }

  private static let modes = [
    "\"on_deadline\":\"wait\"", "\"on_deadline\":\"abort\",\"deadline_seconds\":18000",
    "\"on_deadline\":\"spill\",\"spill\":{\"path\":\"spill\",\"max_bytes\":4194304}",
  ]

  @Test(
    "what is copied by ranges and confirmed, while guests write at random, is the disk as it was",
    arguments: modes)
  func ranges(mode: String) throws {
    try save("vm", "before")
    let started = try start("{\"uuid\":\"b\",\(mode)}")
    #expect(started.json["clusters_total"] as? Int == 16)
    let writer = try writer(seconds: 600)
    let copy = "\(folder.path)/copy"
    try Tool.shell("truncate -s 16M '\(copy)'")
    var remaining = 16
    while remaining > 0 {
      let work = try service.post(
        "\(path)/read", "{\"uuid\":\"b\",\"max\":1,\"left_max\":1}")
      let pending = (work.json["pending"] as? [[String: Any]])?.first
      let left = (work.json["left"] as? [[String: Any]])?.first
      let cluster = try #require(
        pending?["cluster"] as? Int ?? left?["cluster"] as? Int, "\(work.text)")
      let first = cluster * Self.mebibyte
      try Tool.shell(
        """
        curl -sS -f --unix-socket '\(service.httpSocket)' -H 'Range: bytes=\(first)-\(first + Self.mebibyte - 1)' \
          -o '\(folder.path)/part' 'http://localhost\(path)/data?uuid=b'
        dd status=none if='\(folder.path)/part' of='\(copy)' bs=1M seek=\(cluster) conv=notrunc
        """)
      let done = try confirm("\"clusters\":[\(cluster)]")
      #expect(done.json["confirmed"] as? Int == 1, "\(done.text)")
      remaining = try #require(done.json["remaining"] as? Int)
    }
    let ended = try stop("complete")
    #expect(ended.json["state"] as? String == "complete", "\(ended.text)")
    #expect(ended.json["remaining"] as? Int == 0)
    writer.end()
    try expectSameBytes(copy, "\(folder.path)/before", mode)
    #expect(try service.get(path).code == "push-backup-not-active")
    let events = try service.get("/v1/events?types=push_backup.*")
    #expect(events.text.contains("push_backup.complete"), "\(events.text)")
    #expect(!events.text.contains("push_backup.failed"))
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
  }

  @Test("with a scratch file the export shows the disk as it was, while guests write at full speed")
  func export() throws {
    try save("vm", "before")
    let started = try start(
      "{\"uuid\":\"b\",\"on_deadline\":\"spill\",\"spill\":{\"path\":\"vm/spill\",\"max_bytes\":16777216}}"
    )
    #expect(started.json["export"] as? String == "vm@backup")
    #expect(try Tool.shell("ls '\(service.images)/vm'").output.contains("spill") == false)
    let writer = try writer(seconds: 600)
    // Until everything that was there has been overwritten.
    while try service.get(path).json["spilled_bytes"] as? Int != 6 * Self.mebibyte {}
    for round in 0..<2 {
      try save("vm@backup", "copy")
      try expectSameBytes("\(folder.path)/copy", "\(folder.path)/before", "round \(round)")
    }
    let listed = try service.get("/v1/exports/vm@backup")
    #expect(listed.json["readonly"] as? Bool == true, "\(listed.text)")
    let refused = try Tool.shell(
      "qemu-io -f raw -c 'write 0 4k' '\(service.uri("vm@backup"))'", check: false)
    #expect(refused.output.contains("read-only") || refused.status != 0)
    #expect(
      try confirm("\"ranges\":[{\"cluster\":0,\"count\":16}]").json["confirmed"] as? Int == 16)
    let ended = try stop("complete")
    #expect(ended.json["spilled_bytes"] as? Int == 6 * Self.mebibyte, "\(ended.text)")
    writer.end()
    #expect(try service.get("/v1/exports/vm@backup").code == "export-not-found")
  }

  @Test(
    "F7, F8: while it goes on the chain stays; what does not fit it is refused, each by its name")
  func refusals() throws {
    #expect(try service.get(path).code == "push-backup-not-active")
    let started = try service.post(
      path, "{\"uuid\":\"b\",\"clusters\":{\"bitmap\":\"Bg==\"}}", ["Idempotency-Key: k"])
    #expect(started.json["remaining"] as? Int == 2, "\(started.text)")
    let again = try service.post(
      path, "{\"uuid\":\"b\",\"clusters\":{\"bitmap\":\"Bg==\"}}", ["Idempotency-Key: k"])
    #expect(again.text == started.text)
    for (reply, code) in [
      (try service.post(path, "{}"), "push-backup-active"),
      (try service.post("/v1/devices/vm/tracking", "{}"), "device-busy"),
      (try service.post("/v1/devices/vm/snapshots", "{}"), "device-busy"),
      (try service.delete("/v1/devices/vm"), "device-busy"),
      (
        try service.post("\(path)/read", "{\"uuid\":\"other\"}"), "push-backup-uuid-mismatch"
      ),
      (try service.delete("\(path)?uuid=other"), "push-backup-uuid-mismatch"),
      (try confirm("\"clusters\":[1,16]"), "cluster-out-of-range"),
      (try stop("complete"), "push-backup-incomplete"),
      (try service.get("\(path)/data"), "range-invalid"),
      (
        try service.call("GET", "\(path)/data", nil, ["Range: bytes=0-16777216"]),
        "range-invalid"
      ),
      (try service.call("GET", "\(path)/data", nil, ["Range: bytes=0-0"]), "cluster-released"),
    ] {
      #expect(reply.code == code, "\(reply.text)")
    }
    let device = try service.get("/v1/devices/vm").json["maintenance"] as? [String: Any]
    #expect(device?["kind"] as? String == "push_backup" && device?["id"] as? String == "b")
    let byte = try service.call("GET", "\(path)/data", nil, ["Range: bytes=1048576-1048576"])
    #expect(byte.status == 206 && byte.text == "\u{1}")
    #expect(try confirm("\"clusters\":[1]").json["remaining"] as? Int == 1)
    let aborted = try stop("abort")
    #expect(aborted.json["state"] as? String == "aborted", "\(aborted.text)")
    #expect(aborted.json["confirmed"] as? Int == 1)
    #expect(try service.delete("/v1/devices/vm").status == 204)
    for (body, code) in [
      ("{\"clusters\":{\"bitmap\":\"AAAB\"}}", "cluster-out-of-range"),
      (
        "{\"on_deadline\":\"spill\",\"spill\":{\"path\":\"vm/root.hds\",\"max_bytes\":16777216}}",
        "image-exists"
      ),
      (
        "{\"on_deadline\":\"spill\",\"spill\":{\"path\":\"../x\",\"max_bytes\":16777216}}",
        "path-outside-root"
      ),
      (
        "{\"on_deadline\":\"spill\",\"spill\":{\"path\":\"x\",\"max_bytes\":9}}", "value-impossible"
      ),
    ] {
      if body.contains("bitmap") { try service.attach("vm", ["vm/root.hds"]) }
      let reply = try service.post(path, body)
      #expect(reply.code == code, "\(reply.text)")
    }
    #expect(try service.get("/v1/devices/vm").json["maintenance"] is [String: Any] == false)
  }

  @Test("F5, F6: past its deadline it is over, and still has the device until it is stopped")
  func expired() throws {
    _ = try start("{\"uuid\":\"b\",\"deadline_seconds\":1}")
    // It waits for a copier that does nothing, then goes on.
    try write(7, "3M 64k")
    let over = try service.post("\(path)/read", "{\"uuid\":\"b\"}")
    #expect(over.status == 410 && over.code == "push-backup-expired", "\(over.text)")
    #expect(try confirm("\"clusters\":[9]").code == "push-backup-expired")
    let state = try service.get(path)
    #expect(state.json["state"] as? String == "failed", "\(state.text)")
    #expect(try #require(state.json["guest_wait_ms_max"] as? Int) >= 1000)
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").code == "device-busy")
    #expect(try stop("complete").code == "push-backup-expired")
    let frozen = try Tool.shell(
      "nbdcopy '\(service.uri("vm@backup"))' '\(folder.path)/copy'", check: false)
    #expect(frozen.status != 0)
    #expect(try stop("abort").status == 200)
    let events = try service.get("/v1/events?types=push_backup.failed").json["items"] as? [Any]
    #expect(events?.count == 1, "told once")
    try Tool.shell("qemu-io -r -f raw -c 'read -P 7 3M 64k' '\(service.uri("vm"))'")
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
  }

  @Test("F10: kill -9 costs the backup, and the guest nothing")
  func killed() throws {
    _ = try start(
      "{\"uuid\":\"b\",\"on_deadline\":\"spill\",\"spill\":{\"path\":\"spill\",\"max_bytes\":2097152}}"
    )
    try Tool.shell(
      "qemu-io -f raw -c 'write -P 8 0 2M' -c flush '\(service.uri("vm"))'")
    // One more, which waits for room.
    let waiting = try ChildProcess(
      [
        "/bin/sh", "-c",
        "exec qemu-io -f raw -c 'write -P 9 2M 1M' '\(service.uri("vm"))'",
      ], output: "/dev/null", errors: "/dev/null")
    let work = try service.post("\(path)/read", "{\"uuid\":\"b\",\"wait_seconds\":60}")
    #expect(
      ((work.json["pending"] as? [[String: Any]])?.first)?["cluster"] as? Int == 2,
      "\(work.text)")
    service.kill()
    waiting.end()
    try service.start()
    try Tool.shell(
      "qemu-io -r -f raw -c 'read -P 8 0 2M' -c 'read -P 1 2M 3M' -c 'read -P 2 9M 1M' '\(service.uri("vm"))'"
    )
    #expect(try Tool.shell("ls '\(service.images)'").output == "vm\n")
    #expect(try service.get(path).code == "push-backup-not-active")
    let events = try service.get("/v1/events?types=push_backup.failed").json["items"]
    let failed = (events as? [[String: Any]])?.first
    #expect(failed?["subject"] as? String == "b")
    // The end of the service by itself, and of the device by force, do the same; each is told once.
    _ = try start("{\"uuid\":\"c\",\"on_deadline\":\"wait\"}")
    #expect(try service.end() == 0)
    try service.start()
    _ = try start("{\"uuid\":\"d\",\"on_deadline\":\"wait\"}")
    #expect(try service.delete("/v1/devices/vm?mode=hard").status == 204)
    let all = try service.get("/v1/events?types=push_backup.failed").json["items"]
    let subjects = (all as? [[String: Any]])?.compactMap { $0["subject"] as? String }
    #expect(subjects == ["b", "c", "d"])
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
  }
}
