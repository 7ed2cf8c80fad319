import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("The top and the delta below it change places, over HTTP")
struct TopFlipTests {
  private let folder: TemporaryFolder
  private let service: RunningService
  private let path = "/v1/devices/vm"

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
  }

  private func write(_ places: (pattern: Int, place: String)...) throws {
    let words = places.map { "-c 'write -P \($0.pattern) \($0.place)'" }.joined(separator: " ")
    try Tool.shell("qemu-io -f raw \(words) -c flush '\(service.uri("vm"))'")
  }

  private func snapshot() throws -> String {
    let reply = try service.post("\(path)/snapshots", "{}")
    return try #require(reply.json["uuid"] as? String, "\(reply.text)").filter {
      !"{}".contains($0)
    }
  }

  /// A disk of three deltas: the middle one is large, the top small.
  private func make() throws -> (first: String, second: String) {
    #expect(try service.create("vm", sizeBytes: 32 << 20, clusterBytes: 1 << 15).status == 201)
    try write((1, "0 8M"))
    let first = try snapshot()
    try write((2, "4M 16M"))
    let second = try snapshot()
    try write((3, "6M 1M"), (4, "1M 64k"), (5, "28M 32k"))
    return (first, second)
  }

  private func set(_ body: String) throws {
    let reply = try service.patch(path, body)
    #expect(reply.status == 200, "\(reply.text)")
  }

  private func flip(_ headers: [String] = []) throws -> RunningService.Reply {
    try service.post("\(path)/flip-upper-deltas", "", headers)
  }

  private func names() throws -> [String] {
    let deltas = try service.get(path).json["deltas"] as? [[String: Any]] ?? []
    return deltas.compactMap { $0["path"] as? String }
  }

  private func save(_ name: String, of export: String = "vm") throws {
    try Tool.shell("nbdcopy '\(service.uri(export))' '\(folder.path)/\(name)'")
  }

  @Test("with a merge it is the merge in the other direction, and other tools read what is left")
  func merges() throws {
    let (first, second) = try make()
    try save("before")
    let files = try names()
    try set("{\"suspended\":true,\"noresume\":true}")
    let reply = try flip(["Idempotency-Key: flip-1"])
    #expect(reply.status == 200, "\(reply.text)")
    #expect(try names() == [files[0], files[2], files[1]])
    // The same request again is the same answer, and not another flip.
    let again = try flip(["Idempotency-Key: flip-1"])
    #expect(again.text == reply.text)
    #expect(try names() == [files[0], files[2], files[1]])
    try set("{\"noresume\":false}")
    try set("{\"suspended\":false}")
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
    // Given up: it can be merged or deleted, and nothing else.
    let given = try service.get("\(path)/snapshots/\(second)")
    #expect(given.json["temporary"] as? Bool == true, "\(given.text)")
    let merged = try service.post(
      "/v1/jobs", "{\"type\":\"merge\",\"device\":\"vm\",\"params\":{\"snapshot\":\"\(second)\"}}",
      ["Prefer: wait=60"])
    #expect(merged.json["state"] as? String == "succeeded", "\(merged.text)")
    // What the small one held, and not the sixteen megabytes of the other one.
    let result = merged.json["result"] as? [String: Any]
    #expect(result?["clusters_copied"] as? Int == 35, "\(merged.text)")
    #expect(try names() == [files[0], files[1]])
    try save("after")
    try expectSameBytes("\(folder.path)/after", "\(folder.path)/before")
    #expect(try service.get("\(path)/snapshots/\(first)").json["temporary"] as? Bool == false)

    #expect(try service.delete(path).status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
    let images = files.prefix(2).map { "\(service.images)/\($0.dropFirst("main:".count))" }
    for image in images { try QEMU.expectSound(image) }
    try Tool.shell(
      "qemu-img convert -O raw '\(QEMU.stack(Array(images), rawBase: false))' '\(folder.path)/judged'"
    )
    try expectSameBytes("\(folder.path)/judged", "\(folder.path)/before")
  }

  private func expect(
    _ reply: RunningService.Reply, _ code: String, _ location: SourceLocation = #_sourceLocation
  ) throws {
    #expect(reply.status == 409 && reply.code == code, "\(reply.text)", sourceLocation: location)
  }

  @Test("each refusal has its reason, and nothing changes")
  func refusals() throws {
    #expect(try service.create("vm", sizeBytes: 32 << 20, clusterBytes: 1 << 15).status == 201)
    try expect(try flip(), "not-suspended")
    try set("{\"suspended\":true}")
    try expect(try flip(), "resume-not-prohibited")
    try set("{\"noresume\":true}")
    try expect(try flip(), "nothing-below-top")
    try set("{\"suspended\":false,\"force\":true}")
    let first = try snapshot()
    try write((1, "0 1M"))
    _ = try service.patch("\(path)/snapshots/\(first)", "{\"protected\":true}")
    try set("{\"suspended\":true,\"noresume\":true}")
    try expect(try flip(), "snapshot-protected")
    _ = try service.patch("\(path)/snapshots/\(first)", "{\"protected\":false}")
    let wrong = try flip(["If-Match: \"1\""])
    #expect(wrong.status == 412, "\(wrong.text)")
    let body = try service.post("\(path)/flip-upper-deltas", "{\"top\":1}")
    #expect(body.status == 400 && body.code == "unknown-field", "\(body.text)")
    try set("{\"suspended\":false,\"force\":true}")
    _ = try service.post("\(path)/snapshots/\(first)/switch", "{\"keep_top_as\":\"a branch\"}")
    try set("{\"suspended\":true,\"noresume\":true}")
    try expect(try flip(), "snapshot-has-branches")
    let before = try names()
    #expect(before.count == 2)

    // Nobody knows what else builds on a file that is only in a list.
    for name in ["base", "top"] {
      try Tool.shell(
        "'\(RunningService.program)' image create '\(service.images)/\(name)' --size 8M")
    }
    #expect(try service.attach("list", ["main:base", "main:top"]).status == 201)
    _ = try service.patch("/v1/devices/list", "{\"suspended\":true,\"noresume\":true}")
    try expect(try service.post("/v1/devices/list/flip-upper-deltas", ""), "image-has-children")
    // Not even once it has a descriptor. What was its top has been nobody else's.
    _ = try service.patch("/v1/devices/list", "{\"suspended\":false,\"force\":true}")
    #expect(try service.post("/v1/devices/list/snapshots", "{}").status == 201)
    let merged = try service.post(
      "/v1/jobs", "{\"type\":\"merge\",\"device\":\"list\"}", ["Prefer: wait=60"])
    #expect(merged.json["state"] as? String == "succeeded", "\(merged.text)")
    _ = try service.patch("/v1/devices/list", "{\"suspended\":true,\"noresume\":true}")
    try expect(try service.post("/v1/devices/list/flip-upper-deltas", ""), "image-has-children")
  }

  @Test("a kill in the middle of it leaves the disk, and a snapshot or none")
  func kill() throws {
    var random = SeededGenerator(seed: 5)
    let (_, second) = try make()
    try save("before")
    for round in 1...8 {
      try set("{\"suspended\":true,\"noresume\":true}")
      let pause = String(repeating: "0", count: 2) + "\(Int.random(in: 10...60, using: &random))"
      try Tool.shell(
        """
        cd '\(service.folder)' && curl -sS --unix-socket api.sock -X POST \
          'http://localhost\(path)/flip-upper-deltas' > heard 2> errors &
        timeout 0.\(pause.suffix(3)) tail -f /dev/null
        kill -KILL \(service.process)
        wait
        """)
      _ = try service.waitForExit()
      try service.start()
      // It stays suspended, and nobody may resume it yet.
      let device = try service.get(path)
      #expect(device.json["state"] as? String == "suspended", "round \(round): \(device.text)")
      try set("{\"suspended\":false,\"force\":true}")
      try save("after")
      try expectSameBytes("\(folder.path)/after", "\(folder.path)/before", "round \(round)")
      let given = try service.get("\(path)/snapshots/\(second)")
      if given.json["temporary"] as? Bool == false {
        let look = try service.post(
          "/v1/exports", "{\"name\":\"look\",\"device\":\"vm\",\"snapshot\":\"\(second)\"}")
        #expect(look.status == 201, "\(look.text)")
        let output = try Tool.shell(
          "qemu-io -r -f raw -c 'read -P 2 4M 16M' '\(service.uri("look"))'"
        ).output
        #expect(!output.contains("verification failed"), "round \(round)")
        #expect(try service.delete("/v1/exports/look").status == 204)
      }
      let left = try Tool.shell(
        "ls '\(service.images)/vm' | grep -c -e intent -e 'xml.index'", check: false
      ).output
      #expect(left == "0\n", "round \(round)")
    }
  }
}
