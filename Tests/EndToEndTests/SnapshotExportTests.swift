import Foundation
import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("Snapshots as people know them, and read beside the disk")
struct SnapshotExportTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
  }

  private func write(_ pattern: Int, _ place: String) throws {
    try Tool.shell("qemu-io -f raw -c 'write -P \(pattern) \(place)' '\(service.uri("vm"))'")
  }

  private func save(_ export: String, _ name: String) throws {
    try Tool.shell("nbdcopy '\(service.uri(export))' '\(folder.path)/\(name)'")
  }

  private func snapshot(_ body: String = "{}") throws -> String {
    let reply = try service.post("/v1/devices/vm/snapshots", body)
    return try #require(reply.json["uuid"] as? String, "\(reply.text)")
  }

  private func path(_ guid: String) -> String {
    "/v1/devices/vm/snapshots/\(guid.filter { !"{}".contains($0) })"
  }

  @Test("names, labels and protection are set, kept by the disk itself, and obeyed")
  func notes() throws {
    try write(1, "0 4M")
    let one = try snapshot(
      "{\"name\":\"before the upgrade\",\"labels\":{\"why\":\"upgrade\"},\"protected\":true}")
    try write(2, "1M 1M")
    let two = try snapshot()
    #expect(try service.post("/v1/devices/vm/snapshots", "{\"name\":\"\"}").code == "invalid-value")
    let first = try service.get(path(one)).json
    #expect(first["name"] as? String == "before the upgrade")
    #expect(first["deletable"] as? Bool == false)
    #expect(first["deletable_reason"] as? String == "snapshot-protected")
    #expect(first["created_at"] is String)
    // One MiB of it is shadowed by the next delta.
    #expect(first["exclusive_bytes"] as? Int == 1 << 20)
    #expect(first["clusters"] as? Int == 64)
    #expect(try service.delete(path(one)).code == "snapshot-protected")
    let merge = try service.post(
      "/v1/jobs", "{\"type\":\"merge\",\"device\":\"vm\",\"params\":{\"level\":0}}")
    #expect(merge.code == "snapshot-protected", "\(merge.text)")
    let changed = try service.patch(
      path(two), "{\"name\":\"second\",\"description\":\"by hand\",\"labels\":{\"a\":\"b\"}}")
    #expect(changed.json["name"] as? String == "second", "\(changed.text)")
    // With the state lost, the disk is attached anew under another id.
    #expect(try service.end() == 0)
    try Tool.shell("rm -rf '\(service.folder)/state'/*")
    try service.start()
    let again = try service.post(
      "/v1/devices",
      "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"export\":{\"name\":\"vm\"}}")
    #expect(again.status == 201, "\(again.text)")
    #expect(try service.get(path(two)).json["description"] as? String == "by hand")
    #expect(try service.delete(path(one)).code == "snapshot-protected")
    let tree =
      try service.get("/v1/devices/vm/snapshots?view=tree").json["items"] as? [[String: Any]]
    #expect(tree?.count == 1)
    let inner = tree?.first?["children"] as? [[String: Any]]
    #expect(inner?.first?["name"] as? String == "second")
    #expect(try service.patch(path(one), "{\"protected\":false,\"name\":null}").status == 200)
    let gone = try service.call("DELETE", path(one), nil, ["Prefer: wait=60"])
    #expect(gone.json["state"] as? String == "succeeded", "\(gone.text)")
    #expect(try service.patch(path(one), "{}").code == "snapshot-not-found")
    // Notes that nobody can read are none.
    try Tool.shell("echo nonsense > '\(service.images)/vm/DiskDescriptor.xml.notes'")
    #expect(try service.get(path(two)).json["name"] is String == false)
    #expect(try service.delete(path(two)).code == "snapshot-protected")
    #expect(try service.get(path(two)).json["deletable"] as? Bool == false)
    // Another snapshot does not lift that, and cannot be named meanwhile.
    _ = try snapshot()
    #expect(
      try service.post("/v1/devices/vm/snapshots", "{\"name\":\"x\"}").code == "snapshot-protected")
    #expect(try service.delete(path(two)).code == "snapshot-protected")
    #expect(try service.patch(path(two), "{\"name\":\"new\"}").json["name"] as? String == "new")
  }

  @Test("those that `ploop` made are annotated, protected and exported as our own")
  func foreign() throws {
    let guids = (1...2).map {
      "{\(String(repeating: "\($0)", count: 8))-0000-4000-8000-000000000000}"
    }
    for (round, guid) in guids.enumerated() {
      try write(round + 1, "\(round)M 2M")
      try save("vm", "copy\(round)")
      #expect(try service.delete("/v1/devices/vm").status == 204)
      try OpenVZ.run("cd '\(service.images)/vm' && ploop snapshot -u '\(guid)' DiskDescriptor.xml")
      let back = try service.post(
        "/v1/devices",
        "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"export\":{\"name\":\"vm\"}}")
      #expect(back.status == 201, "\(back.text)")
    }
    let bare = try service.get(path(guids[0])).json
    #expect(bare["name"] is NSNull && bare["created_at"] is NSNull)
    #expect(bare["protected"] as? Bool == false && bare["deletable"] as? Bool == true)
    let named = try service.patch(
      path(guids[0]),
      "{\"name\":\"by ploop\",\"description\":\"x\",\"labels\":{\"a\":\"b\"},\"protected\":true}")
    #expect(named.status == 200 && named.json["name"] as? String == "by ploop", "\(named.text)")
    #expect(try service.delete(path(guids[0])).code == "snapshot-protected")
    for (round, guid) in guids.enumerated() {
      let reply = try service.post(
        "/v1/exports", "{\"name\":\"s\(round)\",\"device\":\"vm\",\"snapshot\":\"\(guid)\"}")
      #expect(reply.status == 201, "\(reply.text)")
    }
    try write(9, "0 16M")
    for round in 0...1 {
      try save("s\(round)", "look")
      try expectSameBytes("\(folder.path)/look", "\(folder.path)/copy\(round)", "\(round)")
      #expect(try service.delete("/v1/exports/s\(round)").status == 204)
    }
    // `ploop` makes another one, and keeps what we noted.
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop snapshot DiskDescriptor.xml")
    let again = try service.post(
      "/v1/devices",
      "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\",\"export\":{\"name\":\"vm\"}}")
    #expect(again.status == 201, "\(again.text)")
    #expect(try service.get(path(guids[0])).json["protected"] as? Bool == true)
    let gone = try service.call("DELETE", path(guids[1]), nil, ["Prefer: wait=60"])
    #expect(gone.json["state"] as? String == "succeeded", "\(gone.text)")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
  }

  @Test(
    "an export of a snapshot holds the snapshot's bytes, whatever is written to the disk meanwhile")
  func besideWrites() throws {
    try write(1, "0 16M")
    try write(2, "3M 5M")
    try save("vm", "model")
    let guid = try snapshot()
    let reply = try service.post(
      "/v1/exports", "{\"name\":\"then\",\"device\":\"vm\",\"snapshot\":\"\(guid)\"}")
    #expect(reply.status == 201, "\(reply.text)")
    let seed = UInt32.random(in: 1...UInt32.max)
    print("seed \(seed)")
    // Writes, zeroes and trims all over the disk, flushed now and then, until the reader has seen enough;
    // each round of it says how many there were.
    let counts = try Tool.python(
      """
      import nbd, random, sys, threading
      live, then, model, seed = sys.argv[1:]
      chance = random.Random(int(seed))
      expected = open(model, "rb").read()
      done, writes, moved = threading.Event(), 0, threading.Condition()
      def write():
          global writes
          h = nbd.NBD(); h.connect_uri(live)
          while not done.is_set():
              offset, count = chance.randrange(0, 4096) * 4096, chance.randrange(1, 65) * 512
              count = min(count, (16 << 20) - offset)
              what = chance.randrange(8)
              if what == 0: h.trim(count, offset)
              elif what == 1: h.zero(count, offset)
              else: h.pwrite(bytes([chance.randrange(3, 256)]) * count, offset)
              if writes % 50 == 0: h.flush()
              with moved: writes += 1; moved.notify()
          h.shutdown()
      writer = threading.Thread(target=write); writer.start()
      try:
          h = nbd.NBD(); h.connect_uri(then)
          for round in range(6):
              before = writes
              with moved: assert moved.wait_for(lambda: writes >= before + 100, 250), "no writes"
              for place in range(0, 16 << 20, 1 << 20):
                  assert h.pread(1 << 20, place) == expected[place:place + (1 << 20)], (round, place)
          h.shutdown()
      finally:
          done.set(); writer.join()
      print(writes)
      """, [service.uri("vm"), service.uri("then"), "\(folder.path)/model", "\(seed)"],
      seconds: 300)
    let last = counts.output.split(separator: "\n").last.flatMap { Int($0) } ?? 0
    #expect(last >= 600, "\(counts.output)")
    try save("vm", "now")
    #expect(throws: (any Error).self) {
      try expectSameBytes("\(folder.path)/now", "\(folder.path)/model")
    }
  }

  @Test("each is read through an export of its own while the disk is written, and after a restart")
  func exports() throws {
    var snapshots: [String] = []
    for round in 1...3 {
      try write(round, "\(round)M 3M")
      try save("vm", "copy\(round)")
      snapshots.append(try snapshot())
    }
    for (index, guid) in snapshots.enumerated() {
      let reply = try service.post(
        "/v1/exports", "{\"name\":\"s\(index + 1)\",\"device\":\"vm\",\"snapshot\":\"\(guid)\"}")
      #expect(reply.status == 201, "\(reply.text)")
      #expect(reply.json["readonly"] as? Bool == true)
      #expect(reply.json["snapshot"] as? String == guid)
    }
    try write(9, "0 16M")
    func compare(_ note: String) throws {
      for round in 1...3 {
        try save("s\(round)", "look")
        try expectSameBytes("\(folder.path)/look", "\(folder.path)/copy\(round)", note)
      }
    }
    try compare("beside the disk")
    let refusedWrite = try Tool.shell(
      "qemu-io -f raw -c 'write 0 4k' '\(service.uri("s1"))'", check: false)
    #expect(refusedWrite.output.contains("read-only") || refusedWrite.status != 0)
    let held = try service.delete(path(snapshots[0]))
    #expect(held.code == "export-in-use", "\(held.text)")
    #expect((held.json["holder"] as? [String: Any])?["id"] as? String == "s1")
    service.kill()
    try service.start()
    try compare("after a kill")
    for (snapshot, more, code) in [
      ("99999999-0000-4000-8000-000000000000", "", "snapshot-not-found"),
      (snapshots[0], ",\"readonly\":false", "snapshot-not-possible"),
      ("5fbaabe3-6958-40ff-92a7-860e329aab41", "", "snapshot-not-possible"),
    ] {
      let reply = try service.post(
        "/v1/exports", "{\"name\":\"x\",\"device\":\"vm\",\"snapshot\":\"\(snapshot)\"\(more)}")
      #expect(reply.code == code, "\(reply.text)")
    }
    for round in 1...3 { #expect(try service.delete("/v1/exports/s\(round)").status == 204) }
    let gone = try service.call("DELETE", path(snapshots[0]), nil, ["Prefer: wait=60"])
    #expect(gone.json["state"] as? String == "succeeded", "\(gone.text)")
    let again = try service.post(
      "/v1/exports", "{\"name\":\"s2\",\"device\":\"vm\",\"snapshot\":\"\(snapshots[1])\"}")
    #expect(again.status == 201, "\(again.text)")
    try save("s2", "look")
    try expectSameBytes("\(folder.path)/look", "\(folder.path)/copy2", "after a merge")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
  }
}
