import Foundation
import TestSupport
import Testing

@Suite("Linked clones")
struct LinkedCloneTests {
  private let fixture: CopyFixture
  private var service: RunningService { fixture.service }

  init() throws { fixture = try CopyFixture() }

  /// Two snapshots, and a clone over the newer one.
  private func link() throws -> (older: String, newer: String, content: String) {
    try fixture.write("vm", 17, "0 8M")
    let older = try fixture.snapshot("vm")
    try fixture.write("vm", 18, "4M 8M")
    let newer = try fixture.snapshot("vm")
    let content = try fixture.save("vm", "content")
    try fixture.write("vm", 19, "6M 8M")
    let id = try fixture.clone(
      "vm", "\"snapshot\":\"\(newer)\",\"mode\":\"linked\"", to: "copy")
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect((done["result"] as? [String: Any])?["clusters_copied"] as? Int == 0)
    return (older, newer, content)
  }

  private func isProtected(_ guid: String, of device: String = "vm") throws -> Bool? {
    try service.get("/v1/devices/\(device)/snapshots/\(guid)").json["protected"] as? Bool
  }

  /// What deleting a snapshot is refused with.
  private func refusal(_ guid: String, of device: String = "vm") throws -> String? {
    try service.delete("/v1/devices/\(device)/snapshots/\(guid)").code
  }

  private func sums() throws -> String {
    try Tool.shell("cd '\(service.images)/vm' && sha256sum root.hds*").output
  }

  @Test("share the base's files, and neither disk sees what is written to the other")
  func apart() throws {
    let (older, newer, content) = try link()
    try fixture.expect("copy", is: content)
    #expect(
      try fixture.names(in: "copy").sorted() == [
        "DiskDescriptor.xml", "DiskDescriptor.xml.lck", "DiskDescriptor.xml.notes", "root.hds",
      ])
    let vm = try fixture.save("vm", "vm.raw")
    try fixture.write("copy", 40, "0 2M", "30M 1M")
    try fixture.expect("vm", is: vm)
    try fixture.write("vm", 41, "1M 1M")
    let copy = try fixture.save("copy", "copy.raw")
    try Tool.shell(
      "qemu-img compare -f raw -F raw '\(service.uri("vm"))' '\(copy)' && exit 1 || exit 0")
    #expect(try isProtected(newer) == true && isProtected(older) == true)
    // OpenVZ's tools take the disk as well.
    #expect(try service.delete("/v1/devices/copy").status == 204)
    try OpenVZ.run("cd '\(service.images)/copy' && ploop check DiskDescriptor.xml")
    try QEMU.expectSound("\(service.images)/copy/root.hds")
    let again = try service.post(
      "/v1/devices",
      #"{"id":"copy","descriptor":"copy/DiskDescriptor.xml","export":{"name":"copy"}}"#)
    #expect(again.status == 201, "\(again.text)")
    try fixture.expect("copy", is: copy)
  }

  @Test("keep their base from being merged or deleted, whoever asks, after kill -9 as well")
  func base() throws {
    let (older, newer, content) = try link()
    for round in 0..<2 {
      for guid in [older, newer] {
        #expect(try refusal(guid) == "snapshot-protected", "round \(round)")
      }
      #expect(try refusal(older, of: "copy") == "snapshot-protected")
      try fixture.expect("copy", is: content)
      service.kill()
      try service.start()
    }
    // Without its protection the device that has the files keeps them.
    for guid in [older, newer] {
      let path = "/v1/devices/vm/snapshots/\(guid)"
      #expect(try service.patch(path, #"{"protected":false}"#).status == 200)
      #expect(try refusal(guid) == "image-in-use")
    }
    // Where no device has the clone only people know of it.
    for guid in [older, newer] {
      _ = try service.patch("/v1/devices/vm/snapshots/\(guid)", #"{"protected":true}"#)
    }
    #expect(try service.delete("/v1/devices/copy").status == 204)
    #expect(try refusal(newer) == "snapshot-protected")
    #expect(
      try service.post("/v1/jobs", #"{"type":"merge","device":"vm"}"#).code == "snapshot-protected")
  }

  @Test("become full ones when what they share is merged into what is theirs")
  func flatten() throws {
    let (older, newer, _) = try link()
    try fixture.write("copy", 40, "0 2M", "30M 1M")
    let copy = try fixture.save("copy", "copy.raw")
    let before = try sums()
    for guid in [newer, older] {
      _ = try service.patch("/v1/devices/copy/snapshots/\(guid)", #"{"protected":false}"#)
      let merged = try service.call(
        "DELETE", "/v1/devices/copy/snapshots/\(guid)", nil, ["Prefer: wait=60"])
      #expect(merged.json["state"] as? String == "succeeded", "\(merged.text)")
    }
    try fixture.expect("copy", is: copy)
    #expect(try sums() == before)
    #expect(try service.delete("/v1/devices/copy").status == 204)
    try fixture.judge("copy")
    try QEMU.convertToRaw("\(service.images)/copy/root.hds", "\(fixture.folder.path)/qemu")
    try expectSameBytes("\(fixture.folder.path)/qemu", copy)
  }

  private func tree(_ device: String) throws -> Set<String> {
    let items = try service.get("/v1/devices/\(device)/snapshots").json["items"]
    return Set((items as? [[String: Any]] ?? []).compactMap { $0["uuid"] as? String })
  }

  /// Of the files that both disks have; the base's own top is repaired where it was not closed.
  private func sharedSums() throws -> String {
    let deltas = try service.get("/v1/devices/vm").json["deltas"] as? [[String: Any]] ?? []
    let names = deltas.dropLast().compactMap {
      ($0["path"] as? String)?.split(separator: "/").last
    }
    #expect(names.count == 2)
    return try Tool.shell(
      "cd '\(service.images)/vm' && sha256sum \(names.joined(separator: " "))"
    ).output
  }

  @Test("are made full ones by one job, at its own rate, through kill -9; what was shared stays")
  func copyUp() throws {
    let (older, newer, _) = try link()
    try fixture.write("copy", 40, "0 2M", "30M 1M")
    let own = try fixture.snapshot("copy")
    let state = try fixture.save("copy", "own.raw")
    try fixture.write("copy", 50, "1M 2M")
    let copy = try fixture.save("copy", "copy.raw")
    let (vm, before) = (try fixture.save("vm", "vm.raw"), try sharedSums())
    let plan = try service.post("/v1/jobs?dry_run=true", #"{"type":"copy_up","device":"copy"}"#)
    let planned = plan.json["plan"] as? [String: Any]
    #expect(plan.status == 200 && planned?["clusters_to_copy"] as? Int ?? 0 > 0, "\(plan.text)")
    // So slow that it is met in the middle.
    let id = try fixture.job(#"{"type":"copy_up","device":"copy","limits":{"bps":1048576}}"#)
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    try fixture.expect("copy", is: copy)
    service.kill()
    try service.start()
    let done = try fixture.end(of: id, limit: 0)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    let result = try #require(done["result"] as? [String: Any])
    #expect(result["clusters_copied"] as? Int ?? 0 > 0, "\(result)")
    #expect((result["removed"] as? [String])?.last == older, "\(result)")
    // The clone has its own snapshot, and nothing of the base; the base is as it was.
    #expect(try !tree("copy").contains(older) && !tree("copy").contains(newer))
    #expect(try tree("copy").contains(own))
    try fixture.expect("copy", is: copy)
    try fixture.expect("vm", is: vm)
    #expect(try sharedSums() == before)
    #expect(try isProtected(newer) == true && isProtected(older) == true)
    let again = try service.post("/v1/jobs", #"{"type":"copy_up","device":"copy"}"#)
    #expect(again.code == "nothing-to-merge", "\(again.text)")
    #expect(
      try service.post("/v1/jobs", #"{"type":"copy_up","device":"vm"}"#).code == "nothing-to-merge")
    // It needs the base no longer.
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try Tool.shell("mv '\(service.images)/vm' '\(fixture.folder.path)/elsewhere'")
    let guid = own.filter { !"{}".contains($0) }
    let back = try service.post(
      "/v1/devices/copy/snapshots/\(guid)/switch", #"{"discard_top":true}"#)
    #expect(back.status == 200, "\(back.text)")
    try fixture.expect("copy", is: state)
    #expect(try service.delete("/v1/devices/copy").status == 204)
    try OpenVZ.run("cd '\(service.images)/copy' && ploop check DiskDescriptor.xml")
  }
}
