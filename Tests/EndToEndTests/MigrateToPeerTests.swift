import Foundation
import PloopIO
import TestSupport
import Testing

@Suite("Disks that are moved to another service")
struct MigrateToPeerTests {
  private static let crawl = ",\"limits\":{\"bps\":4096}"

  private let fixture: PeerFixture
  private var service: RunningService { fixture.service }
  private var there: RunningService { fixture.there }

  init() throws { fixture = try PeerFixture() }

  private func guest() throws -> MigrationGuest {
    try fixture.here.write("vm", 17, "0 12M", "40M 4M")
    return try MigrationGuest(
      service.uri("vm"), holding: try fixture.here.save("vm", "start"),
      in: "\(fixture.folder)/guest")
  }

  private func succeeded(_ id: String, limit: Int? = nil) throws -> [String: Any] {
    let done = try fixture.here.end(of: id, limit: limit)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    return try #require(done["result"] as? [String: Any], "\(done)")
  }

  @Test("while a guest writes: the disk is there, served, and nobody's here", arguments: [1, 2])
  func moves(version: Int) throws {
    if version == 1 {
      #expect(try service.delete("/v1/devices/vm").status == 204)
      try Tool.shell("rm -r '\(service.images)/vm'")
      let body =
        "{\"id\":\"vm\",\"create\":{\"directory\":\"vm\",\"size\":\(CopyFixture.sizeMiB << 20),\"cluster_size\":65536,\"version\":1},\"export\":{\"name\":\"vm\"}}"
      #expect(try service.post("/v1/devices", body).status == 201)
    }
    let guest = try guest()
    let result = try succeeded(fixture.migrate())
    #expect((result["downtime_ns"] as? Int ?? -1) > 0)
    try guest.leave()
    try guest.expect(in: fixture.saveThere("there"))
    let device = try there.get("/v1/devices/vm").json
    #expect(device["state"] as? String == "online", "\(device)")
    #expect(device["incoming"] is NSNull, "\(device)")
    #expect(device["version"] as? Int == version)
    #expect(device["cluster_size"] as? Int == 65536)
    let exports = try #require(device["exports"] as? [[String: Any]])
    #expect(exports.map { $0["name"] as? String } == ["vm"])
    #expect(try service.get("/v1/devices/vm").json["suspended"] as? Bool == true)
    // It is written there, and keeps its files when it is detached.
    try Tool.shell("qemu-io -f raw -c 'write -P 9 1M 1M' -c flush '\(there.uri("vm"))'")
    #expect(try there.delete("/v1/devices/vm").status == 204)
    try QEMU.expectSound("\(there.images)/vm/root.hds")
    try OpenVZ.run("cd '\(there.images)/vm' && ploop check DiskDescriptor.xml")
  }

  @Test("are cancelled without a trace there, go on here, and are moved after all")
  func cancelled() throws {
    let guest = try guest()
    let id = try fixture.migrate(more: Self.crawl)
    try fixture.here.await(id) { fixture.here.doneBytes($0) > 0 }
    let device = try there.get("/v1/devices/vm").json
    #expect(device["incoming"] as? String == id, "\(device)")
    let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    #expect(try there.get("/v1/devices/vm").status == 404)
    #expect(try fixture.namesThere(in: "vm").isEmpty)
    _ = try succeeded(fixture.migrate())
    try guest.leave()
    try guest.expect(in: fixture.saveThere("there"))
  }

  @Test("wait for the other service that was killed, and are copied again")
  func peerKilled() throws {
    let guest = try guest()
    let id = try fixture.migrate(more: Self.crawl)
    try fixture.here.await(id) { fixture.here.doneBytes($0) > 0 }
    there.kill()
    #expect(try service.patch("/v1/jobs/\(id)", #"{"limits":{"bps":0}}"#).status == 200)
    try fixture.here.await(id) { job in
      ((job["waiting_for"] as? [[String: Any]])?.first?["kind"] as? String) == "target"
    }
    try there.start()
    let result = try succeeded(id)
    #expect(result["restarted"] as? Bool == true, "\(result)")
    try guest.leave()
    try guest.expect(in: fixture.saveThere("there"))
  }

  @Test("begin anew with the same disk there when this service was killed")
  func killed() throws {
    try fixture.here.write("vm", 17, "0 12M", "40M 4M")
    let id = try fixture.migrate(more: Self.crawl)
    try fixture.here.await(id) { fixture.here.doneBytes($0) > 0 }
    service.kill()
    try service.start()
    // What the copy has by now, and the disk has not any more.
    try Tool.shell("qemu-io -f raw -c 'discard 0 6M' -c flush '\(service.uri("vm"))'")
    let before = try fixture.here.save("vm", "before")
    let result = try succeeded(id, limit: 0)
    #expect(result["restarted"] as? Bool == true, "\(result)")
    try expectSameBytes(fixture.saveThere("there"), before)
  }

  @Test(
    "are left to nobody else: what is there is not written, and refusals of the other service are told"
  )
  func refusals() throws {
    #expect(try there.create("vm", sizeBytes: 1 << 20).status == 201)
    let failed = try fixture.here.end(of: fixture.migrate())
    #expect(failed["state"] as? String == "failed", "\(failed)")
    #expect((failed["error"] as? [String: Any])?["code"] as? String == "peer-refused", "\(failed)")
    #expect(try there.get("/v1/devices/vm").json["size"] as? Int == 1 << 20)
    #expect(try service.get("/v1/devices/vm").json["suspended"] as? Bool == false)
    let taken = try fixture.here.end(of: fixture.migrate(",\"id\":\"other\""))
    let error = try #require(taken["error"] as? [String: Any], "\(taken)")
    #expect(error["cause"] as? String == "image-exists", "\(error)")

    func code(_ ploopd: String) throws -> String? {
      try service.post(
        "/v1/jobs",
        "{\"type\":\"migrate\",\"device\":\"vm\",\"params\":{\"to\":{\"ploopd\":{\(ploopd)}}}}"
      ).code
    }
    let nbd = #""nbd":"nbd://10.0.0.9""#
    #expect(try code("\(nbd),\"directory\":\"vm\"") == "invalid-value")
    #expect(try code("\(nbd),\"api\":\"ftp://x\",\"directory\":\"vm\"") == "invalid-value")
    #expect(
      try code("\(nbd),\"api\":\"http://10.0.0.9/x\",\"directory\":\"vm\"") == "value-impossible")
    #expect(
      try code("\(nbd),\"api\":\"http+unix:///?socket=/etc/x\",\"directory\":\"vm\"")
        == "path-outside-root")
    #expect(
      try code(#""nbd":"nbd://10.0.0.9/x","api":"http://10.0.0.9","directory":"vm""#)
        == "value-impossible")
    #expect(
      try code("\(nbd),\"api\":\"http://10.0.0.9\",\"directory\":\"vm\",\"id\":\"É\"")
        == "invalid-value")
  }

  @Test(
    "are there when their door is somebody else's, which the job tells, and can be taken back by force"
  )
  func doorTaken() throws {
    try fixture.here.write("vm", 17, "0 4M")
    let id = try fixture.migrate(more: Self.crawl)
    try fixture.here.await(id) { fixture.here.doneBytes($0) > 0 }
    #expect(try there.create("else", sizeBytes: 1 << 20).status == 201)
    #expect(
      try there.post("/v1/exports", #"{"name":"vm","device":"else","readonly":true}"#).status
        == 201)
    let failed = try fixture.here.end(of: id, limit: 0)
    #expect(failed["state"] as? String == "failed", "\(failed)")
    #expect((failed["error"] as? [String: Any])?["cause"] as? String == "export-exists")
    // Nobody has lost it: it is there, and can be taken back.
    #expect(try there.get("/v1/devices/vm").json["incoming"] is NSNull)
    #expect(
      try service.patch("/v1/devices/vm", #"{"suspended":false,"force":true}"#).status == 200)
    try fixture.here.write("vm", 18, "0 1M")
  }

  @Test(
    "and lost there before they could be told of it, are waited for until somebody takes them back")
  func peerGone() throws {
    let before = try {
      try fixture.here.write("vm", 17, "0 4M")
      return try fixture.here.save("vm", "before")
    }()
    let id = try fixture.migrate(more: Self.crawl)
    try fixture.here.await(id) { fixture.here.doneBytes($0) > 0 }
    // The copy goes on, and nobody can be told of its end.
    try Tool.shell("mv '\(there.httpSocket)' '\(there.httpSocket).away'")
    #expect(try service.patch("/v1/jobs/\(id)", #"{"limits":{"bps":0}}"#).status == 200)
    func waits(for words: String) throws {
      try fixture.here.await(id) { job in
        let blocker = (job["waiting_for"] as? [[String: Any]])?.first
        return job["phase"] as? String == "handing-over" && blocker?["kind"] as? String == "target"
          && (blocker?["detail"] as? String)?.contains(words) == true
      }
    }
    try waits(for: "api.sock")
    try Tool.shell(
      "mv '\(there.httpSocket).away' '\(there.httpSocket)'; kill -STOP \(service.process)")
    #expect(try there.delete("/v1/devices/vm?mode=hard").status == 204)
    service.signal(SIGCONT)
    try waits(for: "is gone, or another one")
    let device = try service.get("/v1/devices/vm").json
    let condition = (device["conditions"] as? [[String: Any]])?.first {
      $0["type"] as? String == "HandedOver"
    }
    #expect(condition?["reason"] as? String == "NotTold", "\(device)")
    #expect((condition?["message"] as? String)?.contains("is gone") == true, "\(device)")
    #expect(try service.delete("/v1/devices/vm").code == "device-busy")
    #expect(try service.post("/v1/jobs/\(id)/cancel", "{}").status != 200)
    #expect(
      try service.patch("/v1/devices/vm", #"{"suspended":false,"force":true}"#).status == 200)
    let failed = try fixture.here.end(of: id)
    #expect(failed["state"] as? String == "failed", "\(failed)")
    #expect((failed["error"] as? [String: Any])?["code"] as? String == "precondition-failed")
    try fixture.here.expect("vm", is: before)
    // It is moved once more, and is there then.
    _ = try succeeded(fixture.migrate())
    try expectSameBytes(fixture.saveThere("there"), before)
  }
}
