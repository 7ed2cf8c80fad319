import Foundation
import PloopIO
import TestSupport
import Testing

@Suite("Slow operations and diagnostics")
struct SlowOperationTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path, ["--slow-operation-ms", "50"])
    #expect(try service.create("vm", sizeBytes: 64 << 20).status == 201)
  }

  @Test(
    "a write that waits for a copier is logged with what it has waited for, and in the diagnostics")
  func waitingWrite() throws {
    let path = "/v1/devices/vm/push-backup"
    try Tool.shell("qemu-io -f raw -c 'write 0 4M' '\(service.uri("vm"))'")
    let started = try service.post(path, "{\"uuid\":\"b\",\"on_deadline\":\"wait\"}")
    #expect(started.status == 201, "\(started.text)")
    try startClient(
      folder, service.uri("vm"),
      """
      open("in", "w").close()
      h.pwrite(b"x" * 4096, 65536)
      open("out", "w").close()
      """)
    let deadline = Deadline.after(seconds: 120)
    var waited = 0
    while waited < 100, !deadline.hasPassed {
      let work = try service.post("\(path)/read", "{\"uuid\":\"b\"}")
      waited = (work.json["pending"] as? [[String: Any]])?.first?["waiting_ms"] as? Int ?? 0
    }
    #expect(
      try service.post(
        "\(path)/confirm", "{\"uuid\":\"b\",\"ranges\":[{\"cluster\":0,\"count\":64}]}"
      )
      .json["remaining"] as? Int == 0)
    try Tool.awaitText("operation=write", in: service.logFile)
    let line = try #require(
      try Tool.shell("grep 'slow operation' '\(service.logFile)' | grep operation=write | head -1")
        .output.split(separator: "\n").first)
    func number(_ name: String) -> Int? {
      line.split(separator: " ").first { $0.hasPrefix("\(name)=") }
        .flatMap { Int($0.dropFirst(name.count + 1)) }
    }
    #expect(line.contains(" offset=65536 "), "\(line)")
    #expect(number("length") == 4096)
    let total = try #require(number("ms"))
    let recording = try #require(number("recording_ms"))
    #expect(recording >= 100 && recording <= total, "\(line)")
    let reply = try service.get("/v1/diagnostics")
    #expect(reply.status == 200)
    let slow = try #require(reply.json["slow_operations"] as? [[String: Any]])
    #expect(
      slow.contains { $0["offset"] as? Int == 65536 && $0["recording_ms"] as? Int == recording })
    #expect(try service.delete("\(path)?uuid=b&outcome=complete").status == 200)
  }

  @Test("the diagnostics have everything, and no token")
  func diagnostics() throws {
    let secret = "plp_aVerySecretOne"
    #expect(try service.call("GET", "/v1", nil, ["X-Request-Id: \(secret)"]).status == 200)
    try Tool.awaitText(secret, in: service.logFile)
    let job = try service.post(
      "/v1/jobs", "{\"type\":\"hash\",\"device\":\"vm\"}", ["Prefer: wait=60"])
    let id = try #require(job.json["id"] as? String, "\(job.text)")
    // A build for debugging hashes a megabyte in a second where the machine is busy.
    let deadline = Deadline.after(seconds: 600)
    var state: String?
    repeat {
      state = try service.call("GET", "/v1/jobs/\(id)").json["state"] as? String
    } while state == "running" && !deadline.hasPassed
    #expect(state == "succeeded")
    let reply = try service.get("/v1/diagnostics")
    #expect(reply.status == 200)
    #expect(!reply.text.contains(secret))
    let log = try #require(reply.json["log"] as? [String])
    #expect(log.contains { $0.contains("request_id=plp_…") })
    let devices = try #require(reply.json["devices"] as? [[String: Any]])
    #expect((devices.first?["device"] as? [String: Any])?["id"] as? String == "vm")
    #expect((devices.first?["statistics"] as? [String: Any])?["read"] is [String: Any])
    #expect((reply.json["jobs"] as? [[String: Any]])?.first?["type"] as? String == "hash")
    let settings = try #require(reply.json["settings"] as? [String: String])
    #expect(settings["slow-operation-ms"] == "50")
    #expect(settings["nbd-listen"] == "none")
    let events = try #require(reply.json["events"] as? [[String: Any]])
    #expect(events.contains { $0["type"] as? String == "device.created" })
    let threads = try #require(reply.json["threads"] as? [[String: Any]])
    #expect(threads.contains { $0["name"] as? String == "http-answers" })
    let process = try #require(reply.json["process"] as? [String: Any])
    #expect(process["resident_bytes"] as? Int ?? 0 > 1 << 20)
    #expect(process["open_files"] as? Int ?? 0 > 5)
  }
}
