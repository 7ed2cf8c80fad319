import PloopIO
import TestSupport
import Testing

@Suite("A device is copied while it is used, by its tracking")
struct TrackingTests {
  private let folder: TemporaryFolder
  private let service: RunningService
  private let path = "/v1/devices/vm/tracking"

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
  }

  private func write(_ pattern: Int, _ place: String) throws {
    try Tool.shell("qemu-io -f raw -c 'write -P \(pattern) \(place)' '\(service.uri("vm"))'")
  }

  private func next(_ body: String = "{}") throws -> [Int] {
    let reply = try service.post("\(path)/next", body)
    return try #require(reply.json["clusters"] as? [Int], "\(reply.text)")
  }

  @Test("the file's clusters, copied as they are handed out and once more suspended, are the image")
  func image() throws {
    try write(1, "0 4M")
    let started = try service.post(path, "{\"space\":\"image\"}", ["Idempotency-Key: t1"])
    #expect(started.status == 201, "\(started.text)")
    #expect(
      try service.post(path, "{\"space\":\"image\"}", ["Idempotency-Key: t1"]).text
        == started.text)
    let total = try #require(started.json["dirty"] as? Int)
    #expect(try service.post(path, "{}").code == "tracking-active")
    let bits = try Tool.shell(
      "curl -sS --unix-socket '\(service.httpSocket)' -H 'Accept: application/octet-stream' 'http://localhost\(path)/bitmap' | od -An -tu1 -v"
    ).output.split(whereSeparator: \.isWhitespace).compactMap { UInt8($0) }
    #expect(bits.reduce(0) { $0 + $1.nonzeroBitCount } == total)
    let top = "\(service.images)/vm/root.hds"
    let copy = "\(service.images)/copy.hds"
    func copyAll() throws {
      while true {
        let clusters = try next("{\"max\":7}")
        guard !clusters.isEmpty else { return }
        for cluster in clusters {
          try Tool.shell(
            "dd status=none if='\(top)' of='\(copy)' bs=64k skip=\(cluster) seek=\(cluster) count=1 conv=notrunc"
          )
        }
      }
    }
    try copyAll()
    try write(2, "1M 1M")
    try write(3, "9M 100k")
    try copyAll()
    #expect(
      try service.patch("/v1/devices/vm", "{\"suspended\":true}").json["state"] as? String
        == "suspended")
    try copyAll()
    try Tool.shell("truncate -r '\(top)' '\(copy)'")
    #expect(try service.delete(path).status == 204)
    #expect(try service.delete(path).code == "tracking-not-active")
    #expect(try service.patch("/v1/devices/vm", "{\"suspended\":false}").status == 200)
    #expect(try service.attach("copy", ["copy.hds"], ",\"repair\":\"safe\"").status == 201)
    for export in ["vm", "copy"] {
      try Tool.shell("nbdcopy '\(service.uri(export))' '\(folder.path)/\(export)'")
    }
    try expectSameBytes("\(folder.path)/vm", "\(folder.path)/copy", "the copy")
  }

  @Test("while it goes on nothing changes the chain, a call waits for what is written, and it ends")
  func holder() throws {
    let started = try service.post(path, "{\"space\":\"virtual\"}")
    #expect(started.json["dirty"] as? Int == 0, "\(started.text)")
    #expect(try next() == [])
    let held = try service.get("/v1/devices/vm").json["maintenance"] as? [String: Any]
    #expect(held?["kind"] as? String == "tracking")
    for refused in [
      try service.post("/v1/devices/vm/snapshots", "{}"), try service.delete("/v1/devices/vm"),
    ] {
      #expect(refused.code == "device-busy", "\(refused.text)")
      #expect((refused.json["holder"] as? [String: Any])?["kind"] as? String == "tracking")
    }
    let job = try service.post("/v1/jobs", "{\"type\":\"hash\",\"device\":\"vm\"}")
    #expect(job.status == 202)
    let answer = "\(folder.path)/answer"
    let waiter = try ChildProcess(
      [
        "/usr/bin/curl", "-sS", "--max-time", "90", "--unix-socket", service.httpSocket, "-o",
        answer,
        "-H", "Content-Type: application/json", "-d", "{\"wait_seconds\":60}",
        "http://localhost\(path)/next",
      ], output: "/dev/null", errors: "/dev/null")
    try write(5, "3M 64k")
    #expect(try waiter.wait(seconds: 90) == 0)
    #expect(try Tool.shell("cat '\(answer)'").output.contains("\"clusters\":[48]"))
    let id = try #require(job.json["id"] as? String)
    let state = try service.get("/v1/jobs/\(id)")
    #expect(state.json["state"] as? String == "queued", "\(state.text)")
    #expect(state.text.contains("held by its tracking"), "\(state.text)")
    #expect(try service.delete(path).status == 204)
    let over = try service.post("/v1/devices/vm/snapshots", "{}", ["Prefer: wait=60"])
    #expect(over.status == 201, "\(over.text)")
    // The end of the service is the end of it.
    #expect(try service.post(path, "{}").status == 201)
    service.kill()
    try service.start()
    #expect(try service.get(path).code == "tracking-not-active")
    #expect(try service.post(path, "{}").status == 201)
    #expect(try service.delete("/v1/devices/vm?mode=hard").status == 204)
  }
}
