import Foundation
import PloopIO
import TestSupport
import Testing

@Suite("Disks that are moved")
struct MigrateTests {
  /// Of a limit at which nothing comes to its end by itself.
  private static let crawl = 4_096

  private let fixture: CopyFixture
  private var service: RunningService { fixture.service }
  private var folder: String { fixture.folder.path }
  private static let sizeBytes = CopyFixture.sizeMiB << 20

  init() throws { fixture = try CopyFixture() }

  /// A file of a size that is not zero anywhere, and a server that exports it by a socket beneath the root.
  private func server() throws -> (raw: String, server: ForeignServer) {
    let raw = "\(folder)/elsewhere"
    try Tool.shell("tr '\\0' x < /dev/zero | head -c \(Self.sizeBytes) > '\(raw)'")
    return (raw, try ForeignServer.qemu(raw, at: "\(service.images)/peer"))
  }

  private func migrate(
    _ uri: String, _ members: String = ",\"max_downtime_ms\":60000", _ more: String = ""
  ) throws -> String {
    try fixture.job(
      "{\"type\":\"migrate\",\"device\":\"vm\",\"params\":{\"to\":{\"nbd\":\"\(uri)\"}\(members)}\(more)}"
    )
  }

  private func guest() throws -> MigrationGuest {
    try fixture.write("vm", 17, "0 12M", "40M 4M")
    return try MigrationGuest(
      service.uri("vm"), holding: try fixture.save("vm", "start"), in: "\(folder)/guest")
  }

  private func expectInUse() throws {
    let device = try service.get("/v1/devices/vm").json
    #expect(device["suspended"] as? Bool == false, "\(device)")
    #expect(device["prohibition"] is NSNull, "\(device)")
    try fixture.write("vm", 33, "20M 64k")
  }

  @Test(
    "while a guest writes: every byte that was answered is there, and nobody writes here any more")
  func moves() throws {
    let (raw, server) = try server()
    let guest = try guest()
    let id = try migrate(server.uri)
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    let result = try #require(done["result"] as? [String: Any])
    #expect((result["rounds"] as? Int ?? 0) >= 2, "\(result)")
    #expect((result["downtime_ms"] as? Int ?? -1) >= 0)
    #expect((result["downtime_ns"] as? Int ?? -1) > 0)
    #expect(result["restarted"] as? Bool == false)
    #expect(result["source"] as? String == "suspended")
    try guest.leave()
    try guest.expect(in: raw)

    let device = try service.get("/v1/devices/vm").json
    #expect(device["suspended"] as? Bool == true, "\(device)")
    let holder = (device["prohibition"] as? [String: Any])?["holder"] as? String
    #expect(holder == "job:\(id)", "\(device)")
    let resume = try service.patch("/v1/devices/vm", #"{"suspended":false}"#)
    #expect(resume.code == "resume-prohibited")
    service.kill()
    try service.start()
    #expect(try service.get("/v1/devices/vm").json["suspended"] as? Bool == true)
    // Not without that word: the other side has it.
    for body in [#"{"noresume":false}"#, #"{"noresume":false,"suspended":false}"#] {
      let refused = try service.patch("/v1/devices/vm", body)
      #expect(refused.code == "resume-prohibited", "\(refused.text)")
    }
    #expect(
      try service.patch("/v1/devices/vm", #"{"suspended":false,"force":true}"#).status == 200)
    try expectInUse()
  }

  @Test("and detached, where that is asked for, whatever clients have")
  func detached() throws {
    let (raw, server) = try server()
    let guest = try guest()
    let done = try fixture.end(
      of: migrate(server.uri, ",\"max_downtime_ms\":60000,\"source\":\"detached\""))
    #expect(done["state"] as? String == "succeeded", "\(done)")
    try guest.leave()
    try guest.expect(in: raw)
    #expect(try service.get("/v1/devices/vm").status == 404)
    try fixture.judge("vm")
    try QEMU.convertToRaw("\(service.images)/vm/root.hds", "\(folder)/here")
    try expectSameBytes("\(folder)/here", raw)
  }

  /// A job that has copied something, and does not come to its end by itself while anybody looks.
  private func beginSlowly(_ server: ForeignServer) throws -> String {
    let id = try migrate(
      server.uri, ",\"max_downtime_ms\":60000", ",\"limits\":{\"bps\":\(Self.crawl)}")
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    return id
  }

  @Test("are cancelled while they are copied, and go on here")
  func cancelled() throws {
    let (raw, server) = try server()
    let guest = try guest()
    let id = try beginSlowly(server)
    #expect(
      try service.post("/v1/devices/vm/snapshots", "{}").code == "device-busy")
    let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    try guest.leave()
    try guest.expect(in: fixture.save("vm", "here"))
    try expectInUse()
    // What was begun is no obstacle.
    let done = try fixture.end(of: migrate(server.uri))
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(try service.get("/v1/devices/vm").json["suspended"] as? Bool == true)
    #expect(
      try service.patch("/v1/devices/vm", #"{"suspended":false,"force":true}"#).status == 200)
    try fixture.expect("vm", is: raw)
  }

  @Test("wait while the job is paused, and while the disk is suspended")
  func paused() throws {
    let (raw, server) = try server()
    try fixture.write("vm", 17, "0 12M")
    let id = try beginSlowly(server)
    #expect(try service.patch("/v1/jobs/\(id)", #"{"paused":true}"#).status == 200)
    try fixture.await(id) { $0["state"] as? String == "paused" }
    #expect(try service.patch("/v1/devices/vm", #"{"suspended":true}"#).status == 200)
    #expect(
      try service.patch("/v1/jobs/\(id)", #"{"paused":false,"limits":{"bps":0}}"#).status == 200)
    // Not at the disk's gate, where nobody could cancel it.
    try fixture.await(id) { job in
      ((job["waiting_for"] as? [[String: Any]])?.first?["kind"] as? String) == "device"
    }
    #expect(try service.patch("/v1/devices/vm", #"{"suspended":false}"#).status == 200)
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(
      try service.patch("/v1/devices/vm", #"{"suspended":false,"force":true}"#).status == 200)
    try fixture.expect("vm", is: raw)
  }

  @Test("begin anew when the service was killed, and say so")
  func killed() throws {
    let (raw, server) = try server()
    try fixture.write("vm", 17, "0 12M", "40M 4M")
    let id = try beginSlowly(server)
    service.kill()
    try service.start()
    #expect(try service.get("/v1/devices/vm").json["suspended"] as? Bool == false)
    try fixture.write("vm", 44, "1M 1M")
    let done = try fixture.end(of: id, limit: 0)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect((done["result"] as? [String: Any])?["restarted"] as? Bool == true, "\(done)")
    #expect(
      try service.patch("/v1/devices/vm", #"{"suspended":false,"force":true}"#).status == 200)
    try fixture.expect("vm", is: raw)
  }

  @Test("wait for a server that has died, and copy everything again when it is back")
  func lost() throws {
    let (raw, server) = try server()
    let guest = try guest()
    let id = try beginSlowly(server)
    server.kill()
    #expect(try service.patch("/v1/jobs/\(id)", #"{"limits":{"bps":0}}"#).status == 200)
    try fixture.await(id) { job in
      ((job["waiting_for"] as? [[String: Any]])?.first?["kind"] as? String) == "target"
    }
    // It has forgotten everything.
    try Tool.shell("tr '\\0' y < /dev/zero | head -c \(Self.sizeBytes) > '\(raw)'")
    try server.restart()
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect((done["result"] as? [String: Any])?["restarted"] as? Bool == true, "\(done)")
    try guest.leave()
    try guest.expect(in: raw)
  }

  @Test("are not handed over where writers would wait too long: the job says so, and goes on")
  func endless() throws {
    let server = try ForeignServer.nbdkit(
      ["--filter=delay", "memory", "48M", "wdelay=100ms", "delay-zero=100ms"],
      at: "\(service.images)/slow")
    let guest = try guest()
    let id = try migrate(server.uri, ",\"max_downtime_ms\":10")
    try fixture.await(id) { !($0["warnings"] as? [Any] ?? []).isEmpty }
    try expectInUse()
    let wrong = try service.patch("/v1/jobs/\(id)", #"{"params":{"source":"detached"}}"#)
    #expect(wrong.code == "unknown-field", "\(wrong.text)")
    let other = try service.post("/v1/jobs", #"{"type":"hash","device":"vm"}"#)
    let path = "/v1/jobs/\(try #require(other.json["id"] as? String))"
    let without = try service.patch(path, #"{"params":{"max_downtime_ms":5}}"#)
    #expect(without.code == "value-impossible", "\(without.text)")
    #expect(try service.post("\(path)/cancel", "{}").status == 200)
    #expect(
      try service.patch("/v1/jobs/\(id)", #"{"params":{"max_downtime_ms":0}}"#).code
        == "invalid-value")
    // Whoever can wait longer says so.
    #expect(
      try service.patch("/v1/jobs/\(id)", #"{"params":{"max_downtime_ms":600000}}"#).status == 200)
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    try guest.leave()
    #expect(try service.get("/v1/devices/vm").json["suspended"] as? Bool == true)
  }

  @Test("are refused where they mean nothing, or somebody else is")
  func refusals() throws {
    func code(_ params: String) throws -> String? {
      try service.post(
        "/v1/jobs", "{\"type\":\"migrate\",\"device\":\"vm\",\"params\":{\(params)}}"
      ).code
    }
    #expect(try code("") == "invalid-value")
    #expect(try code(#""to":{}"#) == "invalid-value")
    #expect(try code(#""to":{"nbd":"http://x/"}"#) == "invalid-value")
    #expect(try code(#""to":{"nbd":"nbd+unix:///?socket=/etc/x"}"#) == "path-outside-root")
    #expect(try code(#""to":{"nbd":"nbd://10.0.0.9/","tls":{}}"#) == "value-impossible")
    #expect(try code(#""to":{"nbd":"nbd://10.0.0.9/","x":1}"#) == "unknown-field")
    #expect(try code(#""to":{"nbd":"nbd://10.0.0.9/"},"max_downtime_ms":0"#) == "invalid-value")
    #expect(try code(#""to":{"nbd":"nbd://10.0.0.9/"},"source":"x""#) == "invalid-value")
    let (_, server) = try server()
    #expect(
      try service.post(
        "/v1/targets", "{\"name\":\"peer\",\"type\":\"nbd\",\"uri\":\"\(server.uri)\"}"
      ).status == 201)
    #expect(try code("\"to\":{\"nbd\":\"\(server.uri)\"}") == "target-exists")
    #expect(try service.delete("/v1/targets/peer").status == 204)
    // With so much to copy it is under way for as long as it is wanted.
    try fixture.write("vm", 17, "0 12M")
    let id = try beginSlowly(server)
    #expect(
      try service.post(
        "/v1/jobs",
        "{\"type\":\"export\",\"device\":\"vm\",\"params\":{\"to\":{\"nbd\":\"\(server.uri)\"}}}"
      ).code == "image-exists")
    let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
  }
}
