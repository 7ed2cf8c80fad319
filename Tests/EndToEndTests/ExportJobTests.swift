import Foundation
import TestSupport
import Testing

@Suite("Disks that are exported to files and servers")
struct ExportJobTests {
  private let fixture: CopyFixture
  private var service: RunningService { fixture.service }

  init() throws { fixture = try CopyFixture() }

  private func export(
    _ to: String, _ members: String = "", _ more: String = ""
  ) throws -> String {
    try fixture.job(
      "{\"type\":\"export\",\"device\":\"vm\",\"params\":{\(members)\"to\":{\(to)}}\(more)}")
  }

  private func succeeded(_ id: String) throws {
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
  }

  @Test("as a raw file that has holes, of one instant while guests write")
  func raw() throws {
    try fixture.write("vm", 17, "0 12M", "40M 4M")
    let before = try fixture.save("vm", "before")
    let id = try export(
      #""image":"out/disk.raw","format":"raw""#, "", ",\"limits\":{\"bps\":8388608}")
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    try fixture.write("vm", 99, "42M 1M", "20M 1M")
    #expect(try service.patch("/v1/jobs/\(id)", #"{"limits":{"bps":0}}"#).status == 200)
    try succeeded(id)
    let file = "\(service.images)/out/disk.raw"
    try expectSameBytes(file, before)
    #expect(try fixture.names(in: "out") == ["disk.raw"])
    let disk = try Tool.shell("du -k '\(file)' | cut -f1").output
    #expect((Int(disk.dropLast()) ?? .max) < 18 << 10, "\(disk)")
  }

  @Test("as an image of either version", arguments: [1, 2])
  func image(version: Int) throws {
    try fixture.write("vm", 17, "0 4M", "40M 4M")
    let snapshot = try fixture.snapshot("vm")
    let before = try fixture.save("vm", "before")
    try fixture.write("vm", 18, "2M 10M")
    try succeeded(
      export(
        "\"image\":\"out.hds\",\"format\":\"ploop1\",\"version\":\(version)",
        "\"snapshot\":\"\(snapshot)\","))
    let file = "\(service.images)/out.hds"
    try QEMU.expectSound(file)
    try OpenVZ.expectSound(file)
    try QEMU.convertToRaw(file, "\(fixture.folder.path)/qemu")
    try expectSameBytes("\(fixture.folder.path)/qemu", before)
    #expect(
      try Tool.shell("head -c 16 '\(file)'").output
        == (version == 1 ? "WithoutFreeSpace" : "WithouFreSpacExt"))
    #expect(try !fixture.names(in: ".").contains("out.hds.sums"))
  }

  @Test("to an export of a server, over whatever it holds")
  func nbd() throws {
    try fixture.write("vm", 17, "0 4M", "40M 4M")
    let before = try fixture.save("vm", "before")
    let path = "\(fixture.folder.path)/garbage"
    try Tool.shell("tr '\\0' x < /dev/zero | head -c \(CopyFixture.sizeMiB << 20) > '\(path)'")
    let server = try ForeignServer.qemu(path, at: "\(service.images)/peer")
    try succeeded(export("\"nbd\":\"\(server.uri)\""))
    try expectSameBytes(path, before)
  }

  @Test("go on where they were after kill -9, of a snapshot; of a live disk they begin anew")
  func killed() throws {
    try fixture.write("vm", 17, "0 40M")
    let snapshot = try fixture.snapshot("vm")
    let before = try fixture.save("vm", "before")
    for (format, isLive) in [("raw", false), ("ploop1", false), ("raw", true)] {
      let name = "\(format)\(isLive)"
      let id = try export(
        "\"image\":\"\(name)\",\"format\":\"\(format)\"",
        isLive ? "" : "\"snapshot\":\"\(snapshot)\",", ",\"limits\":{\"bps\":8388608}")
      try fixture.await(id) { fixture.doneBytes($0) >= 16 << 20 }
      service.kill()
      try service.start()
      let done = try fixture.end(of: id, limit: 0)
      #expect(done["state"] as? String == "succeeded", "\(done)")
      let log = try fixture.log(of: id)
      #expect(
        log.contains {
          $0.contains(isLive ? "begun anew, at a new instant" : "goes on at cluster ")
        },
        "\(log)")
      let file = "\(service.images)/\(name)"
      guard format == "ploop1" else {
        try expectSameBytes(file, before)
        continue
      }
      try QEMU.convertToRaw(file, "\(fixture.folder.path)/qemu")
      try expectSameBytes("\(fixture.folder.path)/qemu", before)
    }
  }

  @Test("are cancelled without a trace, and made again", arguments: ["raw", "ploop1"])
  func cancelled(format: String) throws {
    try fixture.write("vm", 17, "0 40M")
    let to = "\"image\":\"out/disk\",\"format\":\"\(format)\""
    let id = try export(to, "", ",\"limits\":{\"bps\":4194304}")
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    #expect(
      try service.post(
        "/v1/jobs", "{\"type\":\"export\",\"device\":\"vm\",\"params\":{\"to\":{\(to)}}}"
      ).code == "image-exists")
    let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    #expect(try fixture.names(in: "out").isEmpty)
    try succeeded(export(to))
    #expect(try fixture.names(in: "out") == ["disk"])
  }

  @Test("are refused where something is, where backups are kept, and where they mean nothing")
  func refusals() throws {
    func code(_ to: String) throws -> String? {
      try service.post(
        "/v1/jobs", "{\"type\":\"export\",\"device\":\"vm\",\"params\":{\"to\":{\(to)}}}"
      ).code
    }
    #expect(
      try service.post(
        "/v1/targets", #"{"name":"file","type":"file","path":"kept.raw","format":"raw"}"#
      ).status == 201)
    #expect(try code(#""image":"kept.raw","format":"raw""#) == "target-exists")
    #expect(try code(#""image":"vm/root.hds","format":"ploop1""#) == "image-exists")
    #expect(try code(#""image":"out""#) == "invalid-value")
    #expect(try code(#""image":"out","format":"qcow3""#) == "invalid-value")
    #expect(try code(#""image":"out","format":"ploop1","version":3"#) == "invalid-value")
    #expect(try code(#""image":"/out","format":"raw""#) == "path-outside-root")
    #expect(try code(#""nbd":"nbd+unix:///?socket=/etc/x""#) == "path-outside-root")
    #expect(try code(#""nbd":"http://host/""#) == "invalid-value")
    #expect(try code(#""image":"out","format":"raw","x":1"#) == "unknown-field")
    #expect(try code("") == "invalid-value")
  }
}
