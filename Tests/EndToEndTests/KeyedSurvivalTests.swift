import Foundation
import TestSupport
import Testing

@Suite("Requests with a key, and kill -9")
struct KeyedSurvivalTests {
  /// What is asked for in one round, with a key or naturally repeatable.
  private struct Request {
    let method: String
    let path: String
    let body: String?
    /// The id of the device or the name of the export that it makes or ends.
    let name: String
  }

  @Test("A request that a kill interrupts is done once, and answered the same ever after")
  func rounds() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    let seed = UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    var random = SeededGenerator(seed: seed)
    var devices: Set<String> = []
    var exports: [String: String] = [:]
    var closed: [String: String] = [:]
    var answers: [(Request, String, String)] = []
    for round in 1...20 {
      let request = next(round, devices: devices, closed: closed, &random)
      let key = "round-\(round)"
      try interrupt(service, request, key, milliseconds: Int.random(in: 1...40, using: &random))
      try service.start()
      if request.method == "DELETE" {
        let again = try service.delete(request.path)
        #expect(again.status == 204 || again.status == 404, "\(again.text)")
        devices.remove(request.name)
        exports = exports.filter { $0.value != request.name }
        closed[request.name] = closed[request.name] ?? "\(request.name)/root.hds"
      } else {
        let heard = try Tool.shell("cat '\(folder.path)/heard'").output
        let answer = try service.post(request.path, request.body ?? "", ["Idempotency-Key: \(key)"])
        #expect(answer.status == 201, "round \(round): \(answer.text)")
        if heard.hasSuffix("\n201") { #expect(heard == answer.text + "201") }
        answers.append((request, key, answer.text))
        if request.path == "/v1/devices" {
          devices.insert(request.name)
          closed[request.name] = nil
          exports[request.name] = request.name
        } else {
          exports[request.name] = String(request.name.prefix { $0 != "." })
        }
      }
      try check(service, devices: devices, exports: Set(exports.keys))
    }
    for (request, key, text) in answers {
      let body = request.body ?? ""
      let again = try service.post(request.path, body, ["Idempotency-Key: \(key)"])
      #expect(again.status == 201 && again.text == text)
      let other = try service.post(request.path, body + " ", ["Idempotency-Key: \(key)"])
      #expect(other.code == "idempotency-key-reused")
    }
    try check(service, devices: devices, exports: Set(exports.keys))
    for id in devices { #expect(try service.delete("/v1/devices/\(id)").status == 204) }
    try Tool.shell(
      "for image in '\(service.images)'/*/root.hds; do qemu-img check -q -f parallels \"$image\" || exit; done"
    )
  }

  private func next(
    _ round: Int, devices: Set<String>, closed: [String: String],
    _ random: inout SeededGenerator
  ) -> Request {
    switch Int.random(in: 0..<4, using: &random) {
    case 0 where !devices.isEmpty:
      let id = devices.sorted()[Int.random(in: 0..<devices.count, using: &random)]
      return Request(method: "DELETE", path: "/v1/devices/\(id)", body: nil, name: id)
    case 1 where !devices.isEmpty:
      let id = devices.sorted()[Int.random(in: 0..<devices.count, using: &random)]
      let name = "\(id).\(round)"
      let body = "{\"name\":\"\(name)\",\"device\":\"\(id)\",\"readonly\":true}"
      return Request(method: "POST", path: "/v1/exports", body: body, name: name)
    case 2 where !closed.isEmpty:
      let image = closed.sorted { $0.key < $1.key }[
        Int.random(in: 0..<closed.count, using: &random)]
      let body =
        "{\"id\":\"\(image.key)\",\"deltas\":[{\"path\":\"\(image.value)\"}],\"export\":{\"name\":\"\(image.key)\"}}"
      return Request(method: "POST", path: "/v1/devices", body: body, name: image.key)
    default:
      let id = "vm\(round)"
      let body =
        "{\"id\":\"\(id)\",\"create\":{\"directory\":\"\(id)\",\"size\":8388608},\"export\":{\"name\":\"\(id)\"}}"
      return Request(method: "POST", path: "/v1/devices", body: body, name: id)
    }
  }

  /// Sends the request, and kills the service in the middle of it; what was heard is in `heard`.
  private func interrupt(
    _ service: RunningService, _ request: Request, _ key: String, milliseconds: Int
  ) throws {
    let body =
      request.body.map { "-H 'Content-Type: application/json' --data-binary '\($0)'" } ?? ""
    let pause = String(repeating: "0", count: 3 - String(milliseconds).count) + "\(milliseconds)"
    try Tool.shell(
      """
      cd '\(service.folder)' && curl -sS --unix-socket api.sock -X \(request.method) \(body) \
        -H 'Idempotency-Key: \(key)' -w '%{http_code}' 'http://localhost\(request.path)' > heard 2> errors &
      timeout 0.\(pause) tail -f /dev/null
      kill -KILL \(service.process)
      wait
      """)
    _ = try service.waitForExit()
  }

  private func check(
    _ service: RunningService, devices: Set<String>, exports: Set<String>
  ) throws {
    func names(_ path: String, _ member: String) throws -> [String] {
      let items = try service.get(path).json["items"] as? [[String: Any]]
      return (items ?? []).compactMap { $0[member] as? String }
    }
    let found = try service.get("/v1/devices").json["items"] as? [[String: Any]] ?? []
    #expect(found.compactMap { $0["id"] as? String } == devices.sorted())
    #expect(found.allSatisfy { $0["state"] as? String == "online" })
    #expect(try names("/v1/exports", "name") == exports.sorted())
  }

  @Test("A damaged database does not keep the service from starting, and readyz says so")
  func damaged() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(try service.create("vm1", sizeBytes: 8_388_608).status == 201)
    let before = try #require(try service.get("/v1").json["revision"] as? Int)
    #expect(try service.end() == 0)
    try Tool.shell("head -c 50000 /dev/urandom > '\(folder.path)/state/ploopd.db'")
    try service.start()
    #expect(try service.get("/readyz").text.contains("ploopd.db.damaged-1"))
    #expect(try service.get("/v1").json["revision"] as? Int ?? 0 > before)
    // Nothing of the disk is lost.
    #expect(try service.attach("vm1", ["vm1/root.hds"]).status == 201)
  }

  @Test("An attach that fails leaves nothing that a later one could mistake")
  func refused() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(try service.create("vm1", sizeBytes: 8_388_608).status == 201)
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    let image = "\(service.images)/vm1/root.hds"
    try Tool.shell(
      "printf '\\x59\\x6e\\x6f\\x74' | dd of='\(image)' bs=1 seek=44 conv=notrunc status=none")
    for _ in 1...2 {
      #expect(try service.attach("vm1", ["vm1/root.hds"]).code == "image-unclean")
      #expect(try service.create("vm1", sizeBytes: 8_388_608).code == "image-exists")
      service.kill()
      try service.start()
    }
  }

  /// The state as it is when the process is killed between touching the image and noting the device.
  private func rewind(_ service: RunningService, creates: Bool) throws {
    service.kill()
    let member = creates ? "\\\"creates\\\":\\\"main:vm1/root.hds\\\"," : ""
    let intent =
      "{\\\"id\\\":\\\"vm1\\\",\\\"deltas\\\":[{\\\"path\\\":\\\"main:vm1/root.hds\\\",\\\"isRaw\\\":false}],\(member)\\\"wasClosed\\\":true}"
    try Tool.shell(
      """
      sqlite3 '\(service.folder)/state/ploopd.db' "DELETE FROM devices;
      INSERT INTO intents VALUES ('vm1', 'attach', '\(intent)', 0)"
      """)
    try service.start()
    #expect(try service.get("/v1/devices/vm1").status == 404)
  }

  @Test("An image that a kill left begun is made anew, unless it holds anything")
  func begun() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    let image = "\(service.images)/vm1/root.hds"
    #expect(try service.create("vm1", sizeBytes: 8_388_608).status == 201)
    try rewind(service, creates: true)
    #expect(try service.create("vm1", sizeBytes: 4_194_304).status == 201)
    #expect(try service.get("/v1/devices/vm1").json["size"] as? Int == 4_194_304)
    // Only reserved when the power failed.
    try rewind(service, creates: true)
    try Tool.shell("rm '\(image)' && truncate -s 1M '\(image)'")
    #expect(try service.create("vm1", sizeBytes: 8_388_608).status == 201)
    try Tool.shell("qemu-io -f raw -c 'write -P 7 0 64k' -c flush '\(service.uri("vm1"))'")
    try rewind(service, creates: true)
    #expect(try service.create("vm1", sizeBytes: 8_388_608).code == "image-exists")
    #expect(try service.attach("vm1", ["vm1/root.hds"], ",\"repair\":\"safe\"").status == 201)
    try Tool.shell("qemu-io -f raw -r -c 'read -P 7 0 64k' '\(service.uri("vm1"))'")
  }

  @Test("An image that a kill left marked is attached by the same request")
  func marked() throws {
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(try service.create("vm1", sizeBytes: 8_388_608).status == 201)
    try rewind(service, creates: false)
    // Not by one that begins with other files, and that one changes nothing.
    #expect(try service.attach("other", ["vm1/none.hds"]).code == "image-not-found")
    #expect(try service.attach("vm1", ["vm1/root.hds"]).status == 201)
    #expect(try service.delete("/v1/devices/vm1").status == 204)
    let left = try Tool.shell(
      "sqlite3 '\(folder.path)/state/ploopd.db' 'SELECT count(*) FROM intents'"
    ).output
    #expect(left == "0\n")
  }
}
