import Foundation
import PloopIO
import TestSupport
import Testing

@Suite("Disks that are compacted")
struct CompactTests {
  private let fixture: CopyFixture
  private var service: RunningService { fixture.service }
  private var image: String { "\(service.images)/vm/root.hds" }

  init() throws { fixture = try CopyFixture() }

  private func compact(_ what: String? = nil, _ more: String = "") throws -> String {
    let parameters = what.map { ",\"params\":{\"what\":[\($0)]}" } ?? ""
    return try fixture.job("{\"type\":\"compact\",\"device\":\"vm\"\(parameters)\(more)}")
  }

  private func result(_ job: [String: Any]) throws -> [String: Int] {
    #expect(job["state"] as? String == "succeeded", "\(job)")
    return (job["result"] as? [String: Any] ?? [:]).compactMapValues { $0 as? Int }
  }

  /// Data at the beginning and at the end of the file, and zeroes that a guest has written between.
  private func waste() throws {
    try fixture.write("vm", 17, "0 4M")
    try fixture.write("vm", 0, "8M 24M")
    try fixture.write("vm", 18, "40M 4M")
  }

  private func judge() throws {
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try fixture.judge("vm")
  }

  @Test("have a file of what they hold, and hold the same")
  func whole() throws {
    try waste()
    let before = try fixture.save("vm", "before")
    let plan =
      try service.post(
        "/v1/jobs?dry_run=true", #"{"type":"compact","device":"vm"}"#
      ).json["plan"] as? [String: Any]
    let details = plan?["details"] as? [String: Any]
    #expect(details?["breaks"] is Int && details?["tail_bytes"] is Int, "\(plan ?? [:])")
    let done = try result(fixture.end(of: compact()))
    #expect(done["clusters_dropped"] == (24 << 20) >> 16)
    #expect(done["clusters_copied"] == (4 << 20) >> 16)
    #expect(done["file_bytes_after"] == 8 << 20 + 1 << 16)
    #expect((done["bytes_freed"] ?? 0) > 23 << 20)
    let size = try ImageFolder(path: "\(service.images)/vm").open("root.hds", writable: false)
      .size()
    #expect(size == 8 << 20 + 1 << 16)
    try fixture.expect("vm", is: before)
    try fixture.write("vm", 19, "12M 1M")
    let after = try fixture.save("vm", "after")
    try judge()
    try QEMU.convertToRaw(image, "\(fixture.folder.path)/qemu")
    try expectSameBytes("\(fixture.folder.path)/qemu", after)
  }

  @Test("are put in order, as QEMU sees it too")
  func order() throws {
    for place in (0..<40).map({ ($0 * 23) % 40 }) {
      try fixture.write("vm", place + 1, "\(place)M 1M")
    }
    let before = try fixture.save("vm", "before")
    let done = try result(fixture.end(of: compact("\"defragment\",\"shrink\"")))
    #expect((done["clusters_copied"] ?? 0) > 0)
    let plan =
      try service.post(
        "/v1/jobs?dry_run=true", #"{"type":"compact","device":"vm"}"#
      ).json["plan"] as? [String: Any]
    #expect((plan?["details"] as? [String: Any])?["breaks"] as? Int == 0)
    try fixture.expect("vm", is: before)
    try judge()
    let check = try Tool.shell("qemu-img check -f parallels --output=json '\(image)'").output
    let report = try JSONSerialization.jsonObject(with: Data(check.utf8)) as? [String: Any]
    #expect(report?["fragmented-clusters"] as? Int ?? 0 == 0, "\(check)")
  }

  @Test("while guests write, are slowed down, paused, killed and cancelled, and lose nothing")
  func underLoad() throws {
    try waste()
    let ended = Monitor(false)
    let load = try Thread(name: "fio") {
      do {
        try Tool.shell(
          """
          cd '\(fixture.folder.path)' && fio --name=load --ioengine=nbd --uri='\(service.uri("vm"))' --rw=randrw \
            --bs=16k --iodepth=8 --offset=32m --size=16m --time_based=1 --runtime=3 --verify=crc32c \
            --verify_backlog=64 --verify_fatal=1 --randseed=7 --output=fio.log >/dev/null 2>&1
          """, seconds: 120)
      } catch { Issue.record("the load: \(error)") }
      ended.update { $0 = true }
    }
    repeat {
      _ = try result(
        fixture.end(of: compact("\"zeroes\",\"defragment\",\"shrink\",\"holes\"")))
    } while !ended.withLock { $0 }
    load.join()
    try waste()
    let before = try fixture.save("vm", "before")
    let slow = try compact(nil, ",\"limits\":{\"iops\":20}")
    try fixture.await(slow) { fixture.doneBytes($0) > 0 }
    #expect(try service.patch("/v1/jobs/\(slow)", #"{"paused":true}"#).status == 200)
    try fixture.await(slow) { $0["state"] as? String == "paused" }
    service.kill()
    try service.start()
    #expect(
      try service.patch("/v1/jobs/\(slow)", #"{"paused":false,"limits":{"iops":0}}"#).status == 200)
    _ = try result(fixture.end(of: slow))
    try fixture.expect("vm", is: before)
    try waste()
    let given = try compact(nil, ",\"limits\":{\"iops\":20}")
    try fixture.await(given) { fixture.doneBytes($0) > 0 }
    let gone = try service.call("POST", "/v1/jobs/\(given)/cancel", nil, ["Prefer: wait=60"])
    #expect(gone.json["state"] as? String == "cancelled", "\(gone.text)")
    try fixture.expect("vm", is: before)
    try judge()
  }

  @Test("are refused what means nothing, and what cannot be written")
  func refusals() throws {
    func code(_ parameters: String, _ device: String = "vm") throws -> String? {
      try service.post(
        "/v1/jobs", "{\"type\":\"compact\",\"device\":\"\(device)\",\"params\":{\(parameters)}}"
      ).code
    }
    #expect(try code(#""what":["all"]"#) == "invalid-value")
    #expect(try code(#""what":[]"#) == "invalid-value")
    #expect(try code(#""what":["holes","holes"]"#) == "invalid-value")
    #expect(try code(#""what":"holes""#) == "invalid-value")
    #expect(try code(#""x":1"#) == "unknown-field")
    #expect(try code("", "none") == "device-not-found")
  }
}
