import Foundation
import PloopIO
import TestSupport
import Testing

/// Creating, detaching and coming back when something is in the way.
@Suite("Creating and coming back when something is in the way")
struct ReturnTests {
  private func state(_ service: RunningService, _ id: String) throws -> (String?, Int?) {
    let json = try service.get("/v1/devices/\(id)").json
    return (json["state"] as? String, json["revision"] as? Int)
  }

  private func intents(_ service: RunningService) throws -> String {
    try Tool.shell(
      "sqlite3 '\(service.folder)/state/ploopd.db' 'SELECT count(*) FROM intents'"
    ).output
  }

  private func insertIntent(_ service: RunningService, of id: String, creating: Bool) throws {
    let member = creating ? "\\\"creates\\\":\\\"main:vm1/root.hds\\\"," : ""
    let intent =
      "{\\\"id\\\":\\\"\(id)\\\",\\\"deltas\\\":[{\\\"path\\\":\\\"main:vm1/root.hds\\\",\\\"isRaw\\\":false}],\(member)\\\"wasClosed\\\":true}"
    try Tool.shell(
      """
      sqlite3 '\(service.folder)/state/ploopd.db' "INSERT INTO intents VALUES ('\(id)', 'attach', '\(intent)', 0)"
      """)
  }

  @Test("Of many that create a disk in one folder one does, and nobody loses it")
  func crowd() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    for round in 1...5 {
      let answers = try Tool.shell(
        """
        for id in $(seq 12); do
          curl -sS --max-time 60 --unix-socket '\(service.httpSocket)' http://localhost/v1/devices \
            -H 'Content-Type: application/json' -o /dev/null -w '%{http_code} ' \
            -d "{\\"id\\":\\"r\(round)-$id\\",\\"create\\":{\\"directory\\":\\"r\(round)\\",\\"size\\":8388608},\\"export\\":{\\"name\\":\\"r\(round)-$id\\"}}" &
        done
        wait
        """
      ).output.split(separator: " ")
      #expect(answers.filter { $0 == "201" }.count == 1, "\(answers)")
      #expect(answers.filter { $0 == "409" }.count == 11, "\(answers)")
      let devices = try service.get("/v1/devices").text
      let id = try #require((1...12).first { devices.contains("\"r\(round)-\($0)\"") })
      try Tool.shell(
        "qemu-io -f raw -c 'write -P 7 0 64k' -c flush '\(service.uri("r\(round)-\(id)"))'")
      #expect(try service.delete("/v1/devices/r\(round)-\(id)").status == 204)
      try Tool.shell(
        "qemu-io -f parallels -r -c 'read -P 7 0 64k' '\(service.images)/r\(round)/root.hds'")
    }
  }

  @Test("A create that is asked for again leaves an image alone that somebody has attached")
  func attachedByAnother() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(try service.create("first", sizeBytes: 8_388_608).status == 201)
    try Tool.shell("mv '\(service.images)/first' '\(service.images)/vm1'")
    service.kill()
    try Tool.shell("sqlite3 '\(service.folder)/state/ploopd.db' 'DELETE FROM devices'")
    try insertIntent(service, of: "vm1", creating: true)
    try service.start()
    // An operator comes first; nothing has been written to the image.
    let attached = try service.post(
      "/v1/devices",
      "{\"id\":\"mine\",\"descriptor\":\"vm1/DiskDescriptor.xml\",\"export\":{\"name\":\"mine\"}}")
    #expect(attached.status == 201, "\(attached.text)")
    #expect(try intents(service) == "0\n")
    let again = try service.create("vm1", sizeBytes: 8_388_608)
    #expect(again.status == 409 && again.code == "image-exists", "\(again.text)")
    try Tool.shell("qemu-io -f raw -c 'write -P 7 0 64k' -c flush '\(service.uri("mine"))'")
    #expect(try service.delete("/v1/devices/mine").status == 204)
    try Tool.shell(
      "qemu-io -f parallels -r -c 'read -P 7 0 64k' '\(service.images)/vm1/root.hds'")
  }

  @Test("A detach that could not be written down can be asked for again")
  func detachOnFullState() throws {
    let folder = try TemporaryFolder()
    let state = "\(folder.path)/state"
    try Tool.shell("mkdir '\(state)' && mount -t tmpfs -o size=1m none '\(state)'")
    defer { _ = try? Tool.shell("umount -l '\(state)'") }
    let service = try RunningService(in: folder.path)
    #expect(try service.create("vm1", sizeBytes: 8_388_608).status == 201)
    // Full to the last byte, and no room left in the log of the database either.
    try Tool.shell("dd if=/dev/zero of='\(state)/fill' bs=4k 2>/dev/null; true")
    var refused: RunningService.Reply?
    for _ in 1...200 {
      let reply = try service.patch("/v1/devices/vm1", "{\"labels\":{\"n\":\"\(UUID())\"}}")
      if reply.status != 200 {
        refused = reply
        break
      }
    }
    #expect(refused?.code == "insufficient-space", "\(refused?.text ?? "never full")")
    let first = try service.delete("/v1/devices/vm1")
    #expect(first.code == "insufficient-space", "\(first.text)")
    #expect(try self.state(service, "vm1").0 == "failed")
    try Tool.shell("rm '\(state)/fill'")
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    #expect(try service.get("/v1/devices/vm1").status == 404)
    try Tool.shell("qemu-img check -q -f parallels '\(service.images)/vm1/root.hds'")
    #expect(try service.end() == 0)
  }

  @Test("What a disk has become is a new revision, also when it does not come back")
  func revisions() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(try service.create("vm1", sizeBytes: 8_388_608).status == 201)
    let online = try state(service, "vm1")
    #expect(online.0 == "online")
    #expect(try service.end() == 0)
    try Tool.shell("mv '\(service.images)/vm1' '\(service.images)/away'")
    try service.start()
    let failed = try state(service, "vm1")
    #expect(failed.0 == "failed" && (failed.1 ?? 0) > (online.1 ?? 0), "\(failed)")
    try Tool.shell("mv '\(service.images)/away' '\(service.images)/vm1'")
    #expect(try service.end() == 0)
    try service.start()
    let back = try state(service, "vm1")
    #expect(back.0 == "online" && (back.1 ?? 0) > (failed.1 ?? 0), "\(back)")
    // Whoever waits from here on sees the next change, whatever it is, and not half of one.
    let seen = try service.get("/v1/devices/vm1?after_revision=\((back.1 ?? 1) - 1)&wait=5").json
    #expect(seen["state"] as? String == "online" && seen["revision"] as? Int == back.1)
  }

  @Test("A kill while a closed disk comes back leaves a mark that is known for our own")
  func killedInReturn() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(try service.create("vm1", sizeBytes: 8_388_608).status == 201)
    #expect(try service.end() == 0)
    let image = "\(service.images)/vm1/root.hds"
    // The in-use mark of the format, as an attach makes it: a u32 at byte 44.
    let mark =
      "printf '\\x59\\x6e\\x6f\\x74' | dd of='\(image)' bs=1 seek=44 conv=notrunc 2>/dev/null"
    try Tool.shell("cp '\(image)' '\(folder.path)/clean' && \(mark)")
    try service.start()
    #expect(try state(service, "vm1").0 == "failed", "the mark is somebody else's")
    // Nothing says so; what a return begins with does, and it is written before the image is marked.
    #expect(try intents(service) == "1\n")
    service.kill()
    try Tool.shell("sqlite3 '\(folder.path)/state/ploopd.db' 'DELETE FROM intents'")
    try insertIntent(service, of: "vm1", creating: false)
    try service.start()
    #expect(try state(service, "vm1").0 == "online")
    #expect(try intents(service) == "0\n")
    #expect(try service.end() == 0)
    try Tool.shell("qemu-img check -q -f parallels '\(image)'")
  }
}
