import Foundation
import TestSupport
import Testing

@Suite("Disks that are moved, and mishaps")
struct MigrateMishapTests {
  private func guest(_ fixture: PeerFixture) throws -> MigrationGuest {
    try fixture.here.write("vm", 17, "0 12M", "40M 4M")
    return try MigrationGuest(
      fixture.service.uri("vm"), holding: try fixture.here.save("vm", "start"),
      in: "\(fixture.folder)/guest")
  }

  @Test("wait for room at the other side, in use here all the while, and go on when there is some")
  func full() throws {
    let fixture = try PeerFixture(mebibytes: 8)
    let guest = try guest(fixture)
    let id = try fixture.migrate()
    let waiting = try fixture.here.await(id) { job in
      ((job["waiting_for"] as? [[String: Any]])?.first?["kind"] as? String) == "space"
    }
    #expect(waiting["state"] as? String == "running", "\(waiting)")
    let device = try fixture.service.get("/v1/devices/vm").json
    #expect(device["suspended"] as? Bool == false && device["state"] as? String == "online")
    // It is cancelled there, with what was begun gone, as anywhere else.
    let ended = try fixture.service.call(
      "POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    #expect(try fixture.namesThere(in: "vm").isEmpty)
    let again = try fixture.migrate()
    try fixture.here.await(again) { job in
      ((job["waiting_for"] as? [[String: Any]])?.first?["kind"] as? String) == "space"
    }
    try Tool.shell(#require(fixture.room).enlarging(byMebibytes: 80))
    let done = try fixture.here.end(of: again)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    try guest.leave()
    try guest.expect(in: fixture.saveThere("there"))
    #expect(try fixture.there.end() == 0)
  }

  @Test("are cancelled at whatever moment, or are moved: one side has them, with every byte")
  func cancelled() throws {
    let fixture = try PeerFixture()
    let (service, there) = (fixture.service, fixture.there)
    let guest = try guest(fixture)
    var outcomes: [String: Int] = [:]
    for moment in 0..<8 {
      let id = try fixture.migrate()
      // Each time it is further.
      for _ in 0..<(moment * moment)
      where try service.get("/v1/jobs/\(id)").json["finished_at"] is NSNull {}
      _ = try service.post("/v1/jobs/\(id)/cancel", "{}")
      let state = try fixture.here.end(of: id)["state"] as? String ?? ""
      outcomes[state, default: 0] += 1
      let device = try service.get("/v1/devices/vm").json
      if state == "cancelled" {
        #expect(device["suspended"] as? Bool == false && device["prohibition"] is NSNull)
        #expect(try there.get("/v1/devices/vm").status == 404)
        #expect(try fixture.namesThere(in: "vm").isEmpty)
      } else {
        #expect(state == "succeeded")
        #expect(device["suspended"] as? Bool == true)
        #expect(try there.get("/v1/devices/vm").json["incoming"] is NSNull)
        // It goes back: nobody has written it there.
        #expect(try there.delete("/v1/devices/vm").status == 204)
        try Tool.shell("rm -r '\(there.images)/vm'")
        let back = try service.patch("/v1/devices/vm", #"{"suspended":false,"force":true}"#)
        #expect(back.status == 200, "\(back.text)")
      }
    }
    #expect(outcomes["cancelled", default: 0] > 0, "\(outcomes)")
    try guest.leave()
    try guest.expect(in: fixture.here.save("vm", "here"))
  }
}
