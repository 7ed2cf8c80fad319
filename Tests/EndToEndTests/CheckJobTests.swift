import Foundation
import TestSupport
import Testing

@Suite("The job check")
struct CheckJobTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 64 << 20, clusterBytes: 1 << 16).status == 201)
    try Tool.shell(
      "qemu-io -f raw -c 'write -P 17 0 5M' -c 'write -P 18 9M 3M' '\(service.uri("vm"))'")
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
  }

  private func check(_ members: String) throws -> RunningService.Reply {
    try service.post("/v1/jobs", "{\"type\":\"check\",\(members)}", ["Prefer: wait=60"])
  }

  private func result(_ members: String) throws -> [String: Any] {
    let reply = try check(members)
    #expect(reply.status == 200, "\(reply.text)")
    #expect(reply.json["state"] as? String == "succeeded", "\(reply.text)")
    return try #require(reply.json["result"] as? [String: Any])
  }

  private func codes(_ result: [String: Any], level: Int) throws -> [String] {
    let levels = try #require(result["levels"] as? [[String: Any]])
    let errors = try #require(levels[level]["errors"] as? [[String: Any]])
    return errors.compactMap { $0["code"] as? String }
  }

  @Test("looks at a device's whole chain while a guest writes, and finds nothing")
  func online() throws {
    let guest = try ChildProcess(
      [
        "/bin/bash", "-c",
        "while qemu-io -f raw -c 'write -P 3 2M 9M' -c 'discard 1M 8M' -c flush "
          + "'\(service.uri("vm"))'; do :; done",
      ], output: "\(folder.path)/guest.out", errors: "\(folder.path)/guest.err")
    defer { guest.end() }
    for _ in 0..<10 {
      let found = try result("\"device\":\"vm\"")
      #expect(found["verdict"] as? String == "clean", "\(found)")
      let levels = try #require(found["levels"] as? [[String: Any]])
      #expect(levels.map { $0["level"] as? Int } == [0, 1])
      #expect(levels.map { $0["in_use"] as? Bool } == [false, true])
      #expect((levels[0]["file"] as? String)?.hasPrefix("main:vm/") == true)
    }
  }

  @Test("says of images that no device has what `ploopd image check` says")
  func detached() throws {
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let found = try result("\"params\":{\"descriptor\":\"vm/DiskDescriptor.xml\"}")
    #expect(found["verdict"] as? String == "clean")
    let levels = try #require(found["levels"] as? [[String: Any]])
    let files = levels.compactMap { $0["file"] as? String }
    #expect(files.count == 2)
    let top = try #require(files.last?.dropFirst("main:".count))
    // Two entries name the same cluster, and the file goes on behind it.
    try Tool.shell(
      """
      cd '\(service.images)' && printf '\\1\\0\\0\\0\\1\\0\\0\\0' \
        | dd of='\(top)' bs=1 seek=64 conv=notrunc status=none && truncate -s +128K '\(top)'
      """)
    let damaged = try result("\"params\":{\"deltas\":[\"\(files[0])\",\"\(files[1])\"]}")
    #expect(damaged["verdict"] as? String == "corrupt")
    #expect(try codes(damaged, level: 0) == [])
    #expect(try codes(damaged, level: 1) == ["duplicate-entry", "tail"])
    let alone = try result("\"params\":{\"image\":\"\(files[1])\"}")
    let command = try Tool.shell(
      "cd '\(service.images)' && '\(RunningService.program)' image check --json '\(top)'",
      check: false)
    #expect(command.status == 2)
    let offline = try #require(
      try JSONSerialization.jsonObject(with: Data(command.output.utf8)) as? [String: Any])
    // But for what the file is called.
    func nameless(_ report: [String: Any]) -> [String: Any] {
      var report = report
      report["levels"] = (report["levels"] as? [[String: Any]])?.map { level in
        level.filter { $0.key != "file" }
      }
      report["forced_repair"] = (report["forced_repair"] as? [String: Any])?.filter {
        $0.key != "backups"
      }
      return report
    }
    #expect(nameless(offline) as NSDictionary == nameless(alone) as NSDictionary)
    let log = try service.get("/v1/jobs?type=check").text
    #expect(log.contains("corrupt: "), "it is among the warnings")
  }

  @Test("is refused for what is in use, outside, missing or said twice")
  func refusals() throws {
    let device = try service.get("/v1/devices/vm").json
    let deltas = try #require(device["deltas"] as? [[String: Any]])
    let top = try #require(deltas.last?["path"] as? String)
    let inUse = try check("\"params\":{\"image\":\"\(top)\"}")
    #expect(inUse.json["state"] as? String == "failed", "\(inUse.text)")
    #expect((inUse.json["error"] as? [String: Any])?["code"] as? String == "image-in-use")
    // Lower deltas are only read.
    let lower = try #require(deltas.first?["path"] as? String)
    #expect(try result("\"params\":{\"image\":\"\(lower)\"}")["verdict"] as? String == "clean")

    #expect(try check("\"params\":{}").code == "invalid-value")
    #expect(try check("\"params\":{\"image\":\"main:none\"}").code == "image-not-found")
    #expect(try check("\"params\":{\"image\":\"main:../x\"}").code == "path-outside-root")
    #expect(
      try check("\"params\":{\"image\":\"main:a\",\"deltas\":[\"main:b\"]}").code == "invalid-value"
    )
    #expect(
      try check("\"device\":\"vm\",\"params\":{\"image\":\"\(lower)\"}").code == "invalid-value")
    #expect(try check("\"device\":\"vm\",\"params\":{\"x\":1}").code == "unknown-field")
    #expect(try check("\"params\":{\"deltas\":[1]}").code == "invalid-value")
  }
}
