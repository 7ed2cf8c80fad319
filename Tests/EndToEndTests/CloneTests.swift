import Foundation
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Disks that are cloned")
struct CloneTests {
  private let fixture: CopyFixture
  private var service: RunningService { fixture.service }

  init() throws { fixture = try CopyFixture() }

  @Test("in full, while guests write, are the disk as it was at one instant")
  func live() throws {
    try fixture.write("vm", 17, "0 20M", "24M 20M")
    let before = try fixture.save("vm", "before")
    let id = try fixture.clone("vm", "", to: "copy", ",\"limits\":{\"bps\":8388608}")
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    // Behind the copy's cursor, and before it; a snapshot is in nobody's way.
    try fixture.write("vm", 99, "40M 2M", "0 2M", "46M 1M")
    _ = try fixture.snapshot("vm")
    try fixture.write("vm", 98, "42M 1M")
    #expect(
      try service.post("/v1/jobs", #"{"type":"hash","device":"vm"}"#).status == 202)
    #expect(try service.patch("/v1/jobs/\(id)", #"{"limits":{"bps":0}}"#).status == 200)
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(done["device"] as? String == "vm" && done["resumable"] as? Bool == false)
    let result = done["result"] as? [String: Any]
    #expect(result?["device"] as? String == "copy" && result?["mode"] as? String == "full")
    try fixture.expect("copy", is: before)
    try fixture.write("copy", 5, "1M 1M")
    #expect(try service.delete("/v1/devices/copy").status == 204)
    try fixture.judge("copy")
  }

  @Test("of a snapshot, in either version of the format", arguments: [1, 2])
  func snapshot(version: Int) throws {
    try fixture.write("vm", 17, "0 4M", "40M 4M")
    let before = try fixture.save("vm", "before")
    let snapshot = try fixture.snapshot("vm")
    try fixture.write("vm", 18, "2M 10M")
    let id = try fixture.clone(
      "vm", "\"snapshot\":\"\(snapshot)\"", to: "copy", directoryMore: ",\"version\":\(version)")
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect((done["result"] as? [String: Any])?["clusters_copied"] as? Int == (8 << 20) >> 16)
    try fixture.expect("copy", is: before)
    try fixture.write("copy", 5, "20M 1M")
    let after = try fixture.save("copy", "after")
    #expect(try service.delete("/v1/devices/copy").status == 204)
    try fixture.judge("copy")
    let header = try Tool.shell("head -c 16 '\(service.images)/copy/root.hds'").output
    #expect(header == (version == 1 ? "WithoutFreeSpace" : "WithouFreSpacExt"))
    try QEMU.convertToRaw("\(service.images)/copy/root.hds", "\(fixture.folder.path)/qemu")
    try expectSameBytes("\(fixture.folder.path)/qemu", after)
  }

  @Test("go on where they were after kill -9, of a snapshot; of a live disk they begin anew")
  func killed() throws {
    try fixture.write("vm", 17, "0 40M")
    let snapshot = try fixture.snapshot("vm")
    let before = try fixture.save("vm", "before")
    let still = try fixture.clone(
      "vm", "\"snapshot\":\"\(snapshot)\"", to: "still", ",\"limits\":{\"bps\":8388608}")
    try fixture.await(still) { fixture.doneBytes($0) >= 16 << 20 }
    service.kill()
    try service.start()
    let done = try fixture.end(of: still, limit: 0)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    let log = try fixture.log(of: still)
    #expect(log.contains { $0.contains("goes on at cluster ") }, "\(log)")
    try fixture.expect("still", is: before)

    let live = try fixture.clone("vm", "", to: "live", ",\"limits\":{\"bps\":8388608}")
    try fixture.await(live) { fixture.doneBytes($0) >= 16 << 20 }
    try fixture.write("vm", 50, "1M 1M")
    service.kill()
    #expect(try fixture.names(in: "live").contains("root.hds.sums"))
    try service.start()
    let again = try fixture.end(of: live, limit: 0)
    #expect(again["state"] as? String == "succeeded", "\(again)")
    #expect(try fixture.log(of: live).contains { $0.contains("begun anew, at a new instant") })
    try fixture.expect("live", is: try fixture.save("vm", "now"))
  }

  @Test("are cancelled without a trace", arguments: [false, true])
  func cancelled(isLive: Bool) throws {
    try fixture.write("vm", 17, "0 40M")
    let snapshot = try fixture.snapshot("vm")
    let id = try fixture.clone(
      "vm", isLive ? "" : "\"snapshot\":\"\(snapshot)\"", to: "copy",
      ",\"limits\":{\"bps\":4194304}")
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    #expect(
      try service.post(
        "/v1/devices", #"{"id":"copy","create":{"directory":"q","size":8388608}}"#
      ).code == "device-exists")
    let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    #expect(try fixture.names(in: "copy").isEmpty)
    #expect(try service.get("/v1/devices/copy").status == 404)
    // Nobody holds the disk any more.
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
    try fixture.write("vm", 18, "0 1M")
  }

  @Test("are refused where something is, and where they mean nothing")
  func refusals() throws {
    func code(_ device: String, _ members: String, _ to: String) throws -> String? {
      try service.post(
        "/v1/jobs",
        "{\"type\":\"clone\"\(device),\"params\":{\(members)\"to\":{\(to)}}}"
      ).code
    }
    let (vm, to) = (",\"device\":\"vm\"", "\"id\":\"copy\",\"directory\":\"copy\"")
    #expect(try code(vm, "", "\"id\":\"vm\",\"directory\":\"copy\"") == "device-exists")
    #expect(try code(vm, "", "\"id\":\"copy\",\"directory\":\"vm\"") == "image-exists")
    #expect(try code(vm, "", "\"id\":\"copy\"") == "invalid-value")
    #expect(try code(vm, "\"mode\":\"linked\",", to) == "invalid-value")
    #expect(try code(vm, "\"mode\":\"other\",", to) == "invalid-value")
    #expect(try code(vm, "", to + ",\"version\":3") == "invalid-value")
    #expect(try code(vm, "\"from\":{\"image\":\"x\"},", to) == "invalid-value")
    #expect(try code("", "", to) == "invalid-value")
    #expect(try code("", "\"from\":{\"image\":\"x\"},", to) == "image-not-found")
    #expect(try code("", "\"from\":{\"image\":\"../x\"},", to) == "path-outside-root")
    #expect(
      try code(vm, "\"snapshot\":\"6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01\",", to)
        == "snapshot-not-found")
    #expect(try code(vm, "\"x\":1,", to) == "unknown-field")
    #expect(try fixture.names(in: "copy").isEmpty)
  }

  @Test("of a backup's point are what a restore makes")
  func backup() throws {
    try fixture.write("vm", 17, "0 4M")
    let before = try fixture.save("vm", "before")
    #expect(
      try service.post(
        "/v1/targets", #"{"name":"nas","type":"directory","path":"backups"}"#
      ).status == 201)
    let stored = try service.post(
      "/v1/jobs", #"{"type":"backup","device":"vm","params":{"target":"nas"}}"#,
      ["Prefer: wait=60"])
    let point = try #require(
      (stored.json["result"] as? [String: Any])?["backup"] as? String, "\(stored.text)")
    let id = try fixture.job(
      #"{"type":"clone","params":{"from":{"target":"nas","backup":"\#(point)"},"to":{"id":"copy","directory":"copy","export":"copy"}}}"#
    )
    #expect(try fixture.end(of: id)["state"] as? String == "succeeded")
    try fixture.expect("copy", is: before)
  }

  @Test("of a snapshot that is a raw file alone are refused when they are asked for")
  func rawSnapshot() throws {
    #expect(try service.create("over", sizeBytes: 8 << 20, clusterBytes: 1 << 16).status == 201)
    #expect(try service.delete("/v1/devices/over").status == 204)
    try Tool.shell(
      "cd '\(service.images)' && head -c 4M /dev/urandom > base.raw && rm over/DiskDescriptor.xml*")
    let made = try service.post(
      "/v1/devices",
      #"{"id":"over","deltas":[{"path":"base.raw","format":"raw"},{"path":"over/root.hds"}]}"#)
    #expect(made.status == 201, "\(made.text)")
    let above = try fixture.snapshot("over")
    let deltas = try #require(
      try service.get("/v1/devices/over").json["deltas"] as? [[String: Any]])
    let raw = try #require(deltas.first?["uuid"] as? String)
    for type in ["clone", "export"] {
      for snapshot in [raw, above] {
        let to =
          type == "clone"
          ? #"{"id":"copy","directory":"copy"}"# : #"{"image":"copy.raw","format":"raw"}"#
        let reply = try service.post(
          "/v1/jobs?dry_run=true",
          "{\"type\":\"\(type)\",\"device\":\"over\",\"params\":{\"snapshot\":\"\(snapshot)\",\"to\":\(to)}}"
        )
        #expect(reply.code == (snapshot == raw ? "snapshot-not-possible" : nil), "\(reply.text)")
        guard snapshot == raw else { continue }
        #expect(reply.text.contains("base.raw"), "\(reply.text)")
      }
    }
  }
}
