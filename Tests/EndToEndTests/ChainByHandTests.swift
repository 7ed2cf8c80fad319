import Foundation
import PloopIO
import TestSupport
import Testing

@Suite("Chains put together by hand")
struct ChainByHandTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    let images = service.images
    // A raw base of 6 MiB below images of 8 MiB, as QEMU makes them and writes them.
    try Tool.shell("head -c 6M /dev/urandom > '\(images)/base.raw'")
    for name in ["middle", "newest", "top"] {
      try QEMU.create("\(images)/\(name).hds", "size=8M,cluster_size=65536")
    }
    for (number, name) in ["middle", "newest"].enumerated() {
      try Tool.shell(
        "qemu-io -f parallels -c 'write -P \(number + 1) \(number + 2)M 2M' '\(images)/\(name).hds'"
      )
    }
    try Tool.shell(
      "qemu-img convert -O raw '\(QEMU.stack(files, rawBase: true))' '\(folder.path)/wanted'")
  }

  private var files: [String] {
    ["base.raw", "middle.hds", "newest.hds", "top.hds"].map { "\(service.images)/\($0)" }
  }

  private func add(_ body: String, _ headers: [String] = []) throws -> RunningService.Reply {
    try service.post("/v1/devices/vm/deltas", body, headers)
  }

  private func expectContent(_ note: String) throws {
    try Tool.shell(
      "rm -f '\(folder.path)/now'; nbdcopy '\(service.uri("vm"))' '\(folder.path)/now'")
    try expectSameBytes("\(folder.path)/now", "\(folder.path)/wanted", note)
  }

  @Test("a suspended top alone, deltas below it, and resume: the disk is the whole chain")
  func seedsWay() throws {
    #expect(try service.attach("vm", ["top.hds"], ",\"suspended\":true").status == 201)
    let base = try add(#"{"path":"base.raw","format":"raw"}"#)
    #expect(base.status == 201, "\(base.text)")
    #expect(base.json["level"] as? Int == 0 && base.json["format"] as? String == "raw")
    for (level, name) in [(1, "middle"), (2, "newest")] {
      let key = ["Idempotency-Key: \(name)"]
      let body = "{\"path\":\"main:\(name).hds\",\"at\":\"newest\"}"
      let first = try add(body, key)
      #expect(first.status == 201 && first.json["level"] as? Int == level, "\(first.text)")
      // The same request again adds nothing.
      #expect(try add(body, key).text == first.text)
    }
    let device = try service.get("/v1/devices/vm")
    #expect((device.json["deltas"] as? [Any])?.count == 4)
    #expect(device.json["suspended"] as? Bool == true)
    #expect(try service.get("/v1/devices/vm/deltas/top").json["level"] as? Int == 3)
    #expect(try service.get("/v1/devices/vm/deltas/2").json["readonly"] as? Bool == true)
    #expect(try service.patch("/v1/devices/vm", "{\"suspended\":false}").status == 200)
    try expectContent("resumed")
    // What is written goes into the top, and all of it is there again after a kill.
    let write = "write -P 9 3M 1M"
    try Tool.shell("qemu-io -f raw -c '\(write)' -c flush '\(service.uri("vm"))'")
    try Tool.shell("qemu-io -f raw -c '\(write)' '\(folder.path)/wanted'")
    service.kill()
    try service.start()
    try expectContent("after a kill")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try Tool.shell(
      "qemu-img convert -O raw '\(QEMU.stack(files, rawBase: true))' '\(folder.path)/theirs'")
    try expectSameBytes("\(folder.path)/theirs", "\(folder.path)/wanted")
    for name in ["middle", "newest", "top"] {
      try OpenVZ.expectSound("\(service.images)/\(name).hds")
    }
  }

  @Test("each refusal has its code, and changes nothing")
  func refusals() throws {
    #expect(try service.attach("vm", ["top.hds"]).status == 201)
    #expect(try service.attach("writer", ["newest.hds"]).status == 201)
    func expect(_ body: String, _ status: Int, _ code: String, _ pointer: String? = nil) throws {
      let reply = try add(body)
      #expect(reply.status == status && reply.code == code, "\(body): \(reply.text)")
      let errors = reply.json["errors"] as? [[String: Any]]
      #expect(errors?.first?["pointer"] as? String == pointer, "\(reply.text)")
    }
    try expect(#"{"path":"none.hds"}"#, 404, "image-not-found", "/path")
    try expect(#"{"path":"../x"}"#, 403, "path-outside-root", "/path")
    try expect(#"{"path":"newest.hds"}"#, 409, "image-in-use", "/path")
    try expect(#"{"path":"top.hds"}"#, 422, "value-impossible", "/path")
    try expect(#"{"path":"middle.hds","format":"qcow2"}"#, 400, "invalid-value", "/format")
    try expect(#"{"path":"middle.hds","level":0}"#, 400, "unknown-field", "/level")
    try Tool.shell("truncate -s 70000 '\(service.images)/odd.raw'")
    try expect(#"{"path":"odd.raw","format":"raw"}"#, 422, "image-raw-size-misaligned")
    #expect(try add(#"{"path":"middle.hds"}"#).status == 201)
    try expect(#"{"path":"base.raw","format":"raw"}"#, 422, "raw-not-base", "/path")
    try QEMU.create("\(service.images)/large.hds", "size=16M,cluster_size=65536")
    try expect(#"{"path":"large.hds"}"#, 422, "geometry-mismatch")
    try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(folder.path)/now'")
    #expect(try service.delete("/v1/devices/writer").status == 204)
    try expect(#"{"path":"newest.hds"}"#, 409, "device-running")
    // What lies below a top now is kept from those who would write it.
    let taken = try service.attach("thief", ["middle.hds"])
    #expect(taken.code == "image-has-children", "\(taken.text)")
    let stale = try service.call(
      "POST", "/v1/devices/vm/deltas", #"{"path":"newest.hds"}"#, ["If-Match: \"1\""])
    #expect(stale.code == "precondition-failed")
    #expect((try service.get("/v1/devices/vm").json["deltas"] as? [Any])?.count == 2)
    #expect(try service.patch("/v1/devices/vm", "{\"suspended\":true}").status == 200)
    #expect(try add(#"{"path":"newest.hds"}"#).status == 201)
    #expect(
      try service.post("/v1/devices/none/deltas", #"{"path":"a"}"#).code == "device-not-found")
    #expect(try service.create("own", sizeBytes: 8 << 20, clusterBytes: 1 << 16).status == 201)
    let described = try service.post("/v1/devices/own/deltas", #"{"path":"odd.raw"}"#)
    #expect(described.status == 409 && described.code == "descriptor-exists", "\(described.text)")
    #expect((described.json["holder"] as? [String: Any])?["kind"] as? String == "descriptor")
  }
}
