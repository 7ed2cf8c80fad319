import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("Snapshots while a disk is used")
struct SnapshotTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
  }

  private func write(_ export: String, _ pattern: Int, _ place: String) throws {
    try Tool.shell("qemu-io -f raw -c 'write -P \(pattern) \(place)' '\(service.uri(export))'")
  }

  private func save(_ export: String, _ name: String) throws {
    try Tool.shell("nbdcopy '\(service.uri(export))' '\(folder.path)/\(name)'")
  }

  private func snapshot(
    _ id: String, _ body: String = "{}", _ headers: [String] = []
  ) throws -> String {
    let reply = try service.post("/v1/devices/\(id)/snapshots", body, headers)
    #expect(reply.status == 201, "\(reply.text)")
    return try #require(reply.json["uuid"] as? String, "\(reply.text)")
  }

  /// A snapshot's state, as an attach for reading gives it, is a copy that was made at the time.
  private func expect(_ guid: String, is copy: String) throws {
    let reply = try service.post(
      "/v1/devices",
      "{\"id\":\"look\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"at\":\"\(guid)\",\"export\":{\"name\":\"look\"}}"
    )
    #expect(reply.status == 201, "\(reply.text)")
    try save("look", "look")
    try expectSameBytes("\(folder.path)/look", "\(folder.path)/\(copy)", guid)
    #expect(try service.delete("/v1/devices/look").status == 204)
  }

  /// Threads that write through NBD, each its own region again and again, until told to stop; every
  /// request has to succeed, and what they wrote last has to be there.
  private func fio(_ export: String, seconds: Int) throws {
    try Tool.shell(
      """
      cd '\(folder.path)' && fio --name=load --ioengine=nbd --uri='\(service.uri(export))' --rw=randrw \
        --bs=16k --iodepth=8 --size=24m --time_based=1 --runtime=\(seconds) --verify=crc32c \
        --verify_backlog=64 --verify_fatal=1 --randseed=7 --output=fio.log >/dev/null 2>&1
      """, seconds: 120)
  }

  @Test("no request fails, every state can be gone back to, and OpenVZ's tools take the folder")
  func underLoad() throws {
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 16).status == 201)
    try write("vm", 17, "32M 8M")
    let ended = Monitor(false)
    let load = try Thread(name: "fio") {
      do { try self.fio("vm", seconds: 4) } catch { Issue.record("the load: \(error)") }
      ended.update { $0 = true }
    }
    var snapshots: [String] = []
    repeat {
      snapshots.append(try snapshot("vm"))
      poll(nil, 0, 200)
    } while !ended.withLock { $0 } && snapshots.count < 30
    load.join()
    #expect(snapshots.count >= 3)
    let device = try service.get("/v1/devices/vm").json
    #expect((device["deltas"] as? [Any])?.count == snapshots.count + 1)
    let statistics = try service.get("/v1/devices/vm/stats").json
    // One for each, and one more where somebody inside was slow and it was tried anew.
    #expect(statistics["pauses"] as? Int ?? 0 >= snapshots.count)
    #expect((statistics["write"] as? [String: Any])?["errors"] as? Int == 0)
    #expect((statistics["read"] as? [String: Any])?["errors"] as? Int == 0)
    try save("vm", "last")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let list = try OpenVZ.run(
      "cd '\(service.images)/vm' && ploop snapshot-list -H DiskDescriptor.xml && ploop check DiskDescriptor.xml"
    )
    for guid in snapshots { #expect(list.contains(guid)) }
    // All of them merged by OpenVZ's tool read as the disk did.
    try OpenVZ.run("cd '\(service.images)/vm' && ploop snapshot-merge -A DiskDescriptor.xml")
    let again = try service.post(
      "/v1/devices",
      "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"export\":{\"name\":\"vm\"}}")
    #expect(again.status == 201, "\(again.text)")
    #expect((again.json["deltas"] as? [Any])?.count == 1)
    try save("vm", "merged")
    try expectSameBytes("\(folder.path)/merged", "\(folder.path)/last")
  }

  @Test("going back needs a word about the state so far, and nobody connected")
  func switching() throws {
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
    try write("vm", 1, "0 4M")
    try save("vm", "one")
    let one = try snapshot("vm")
    try write("vm", 2, "2M 4M")
    try save("vm", "two")
    let path = "/v1/devices/vm/snapshots/\(one.filter { !"{}".contains($0) })/switch"
    #expect(try service.post(path, "{}").code == "value-impossible")
    #expect(
      try service.post(path, "{\"keep_top_as\":\"x\",\"discard_top\":true}").code
        == "value-impossible"
    )
    #expect(
      try service.post(
        "/v1/devices/vm/snapshots/99999999-0000-4000-8000-000000000000/switch",
        "{\"discard_top\":true}"
      ).code == "snapshot-not-found")
    try startClient(
      folder, service.uri("vm"),
      """
      os.mkfifo("leave")
      open("in", "w")
      open("leave").read()
      h.shutdown()
      """)
    let busy = try service.post(path, "{\"discard_top\":true}")
    #expect(busy.code == "device-in-use", "\(busy.text)")
    try Tool.shell("echo > '\(folder.path)/leave'")
    let kept = try service.post(
      path, "{\"keep_top_as\":\"{22222222-0000-4000-8000-000000000000}\"}")
    #expect(kept.status == 200, "\(kept.text)")
    try save("vm", "now")
    try expectSameBytes("\(folder.path)/now", "\(folder.path)/one")
    try write("vm", 3, "8M 2M")
    try expect("22222222-0000-4000-8000-000000000000", is: "two")
    let files = try Tool.shell("ls '\(service.images)/vm'").output
    let discarded = try service.post(path, "{\"discard_top\":true}", ["Idempotency-Key: back"])
    #expect(discarded.status == 200, "\(discarded.text)")
    // The discarded file is gone, another one is there.
    let left = try Tool.shell("ls '\(service.images)/vm'").output
    #expect(
      left != files && left.split(separator: "\n").count == files.split(separator: "\n").count)
    try save("vm", "now")
    try expectSameBytes("\(folder.path)/now", "\(folder.path)/one")
    let again = try service.post(path, "{\"discard_top\":true}", ["Idempotency-Key: back"])
    #expect(again.text == discarded.text)
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
  }

  @Test(
    "a disk that was attached by a list gets a descriptor, and a wrong delta_path changes nothing")
  func described() throws {
    try Tool.shell("mkdir -p '\(service.images)/a' '\(service.images)/b'")
    try QEMU.create("\(service.images)/a/base.hds", "size=16M,cluster_size=64k")
    try Tool.shell("cp '\(service.images)/a/base.hds' '\(service.images)/b/top.hds'")
    for name in ["empty.hds", "other.hds", "text"] {
      try Tool.shell("cp '\(service.images)/a/base.hds' '\(service.images)/b/\(name)'")
    }
    try QEMU.create("\(service.images)/b/large.hds", "size=32M,cluster_size=64k")
    try Tool.shell("echo text > '\(service.images)/b/text'")
    #expect(try service.attach("other", ["b/other.hds"]).status == 201)
    #expect(try service.attach("vm", ["a/base.hds", "b/top.hds"]).status == 201)
    try write("vm", 5, "0 1M")
    let before = try Tool.shell("cd '\(service.images)/b' && sha256sum text large.hds empty.hds")
      .output
    for (path, code) in [
      ("b/large.hds", "image-invalid"), ("b/text", "image-invalid"),
      ("b/missing", "image-invalid"), ("b/other.hds", "image-invalid"),
      ("b/top.hds", "image-invalid"), ("../b", "path-outside-root"),
    ] {
      let reply = try service.post("/v1/devices/vm/snapshots", "{\"delta_path\":\"\(path)\"}")
      #expect(reply.code == code, "\(path): \(reply.text)")
      #expect(reply.status == (code == "image-invalid" ? 422 : 403), "\(path): \(reply.text)")
    }
    #expect(
      try Tool.shell("cd '\(service.images)/b' && sha256sum text large.hds empty.hds").output
        == before)
    let guid = try snapshot("vm", "{\"delta_path\":\"b/empty.hds\"}")
    try write("vm", 6, "512k 1M")
    let device = try service.get("/v1/devices/vm").json
    #expect((device["source"] as? [String: Any])?["path"] as? String == "main:b/DiskDescriptor.xml")
    let paths = (device["deltas"] as? [[String: Any]])?.compactMap { $0["path"] as? String }
    #expect(paths == ["main:a/base.hds", "main:b/top.hds", "main:b/empty.hds"])
    try save("vm", "now")
    // After a kill it comes back by its descriptor.
    service.kill()
    try service.start()
    try save("vm", "again")
    try expectSameBytes("\(folder.path)/again", "\(folder.path)/now")
    let list = try service.get("/v1/devices/vm/snapshots").json["items"] as? [[String: Any]]
    #expect(list?.contains { $0["uuid"] as? String == guid } == true)
    for reply in [
      try service.post("/v1/devices/vm/snapshots", "{\"uuid\":\"\(guid)\"}"),
      try service.post(
        "/v1/devices/vm/snapshots", "{\"uuid\":\"5fbaabe3-6958-40ff-92a7-860e329aab41\"}"),
    ] { #expect(reply.status == 409, "\(reply.text)") }
  }

  @Test("a request with a key makes one snapshot, whenever a kill comes")
  func killed() throws {
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
    let seed = UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    var random = SeededGenerator(seed: seed)
    for round in 1...12 {
      try write("vm", round, "\(round)M 1M")
      try Tool.shell("qemu-io -f raw -c flush '\(service.uri("vm"))'")
      let pause = Int.random(in: 10...60, using: &random)
      try Tool.shell(
        """
        cd '\(folder.path)' && curl -sS --unix-socket api.sock -H 'Content-Type: application/json' -d '{}' \
          -H 'Idempotency-Key: round-\(round)' 'http://localhost/v1/devices/vm/snapshots' > heard 2>&1 &
        timeout 0.0\(pause) tail -f /dev/null
        kill -KILL \(service.process)
        wait
        """)
      _ = try service.waitForExit()
      try service.start()
      let device = try service.get("/v1/devices/vm").json
      #expect(device["state"] as? String == "online", "round \(round): \(device)")
      _ = try snapshot("vm", "{}", ["Idempotency-Key: round-\(round)"])
      let items = try service.get("/v1/devices/vm/snapshots").json["items"] as? [Any]
      #expect(items?.count == round, "round \(round), seed \(seed)")
      for old in 1...round {
        try Tool.shell(
          "qemu-io -r -f raw -c 'read -P \(old) \(old)M 1M' '\(service.uri("vm"))' | grep -v 'verification failed'"
        )
      }
    }
    let files = try Tool.shell("ls '\(service.images)/vm' | grep root.hds | grep -vc index-backup")
      .output
    #expect(files.contains("13"))
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
  }
}
