import TestSupport
import Testing

@Suite("Cleaning")
struct CleanTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    for name in ["a", "b", "c"] { try make(name) }
  }

  private func make(_ name: String) throws {
    try shell("qemu-img create -q -f parallels -o cluster_size=64k \(name).hds 1M")
  }

  @discardableResult
  private func shell(_ command: String) throws -> String {
    try Tool.shell("cd '\(service.images)' && \(command)").output
  }

  private func clean(_ names: String..., dryRun: Bool = false) throws -> RunningService.Reply {
    let paths = names.map { "\"main:\($0)\"" }.joined(separator: ",")
    return try service.post(
      "/v1/jobs\(dryRun ? "?dry_run=true" : "")",
      "{\"type\":\"clean\",\"params\":{\"paths\":[\(paths)]}}", dryRun ? [] : ["Prefer: wait=60"])
  }

  private func left() throws -> [String] {
    try shell("ls").split(separator: "\n").map(String.init)
  }

  @Test("removes the orphans that are named, and says before what they take")
  func named() throws {
    try shell("touch a.hds.checkpoints")
    let plan = try #require(
      try clean("a.hds", "b.hds", dryRun: true).json["plan"] as? [String: Any])
    let removes = try #require(plan["removes"] as? [[String: Any]])
    #expect(removes.map { $0["path"] as? String } == ["main:a.hds", "main:b.hds"])
    let bytes = removes.compactMap { $0["disk_bytes"] as? Int }.reduce(0, +)
    #expect(bytes > 0 && plan["bytes_to_copy"] as? Int == bytes)
    #expect(try left() == ["a.hds", "a.hds.checkpoints", "b.hds", "c.hds"])

    let done = try clean("a.hds", "b.hds")
    #expect(done.json["state"] as? String == "succeeded", "\(done.text)")
    let result = try #require(done.json["result"] as? [String: Any])
    #expect(result["removed"] as? Int == 2 && result["bytes_freed"] as? Int == bytes)
    #expect(try left() == ["c.hds"])
  }

  @Test("is refused for what is used, not there, or no image")
  func refused() throws {
    #expect(try service.attach("vm", ["main:a.hds"]).status == 201)
    let used = try clean("b.hds", "a.hds")
    #expect(used.code == "image-not-orphaned")
    #expect((used.json["holder"] as? [String: Any])?["id"] as? String == "vm")
    let errors = used.json["errors"] as? [[String: Any]]
    #expect(errors?.first?["pointer"] as? String == "/params/paths/1")
    try shell("echo > text")
    #expect(try clean("text").code == "image-not-found")
    #expect(try clean("none").code == "image-not-found")
    #expect(try clean("../x").code == "path-outside-root")
    #expect(try clean().code == "invalid-value")
    #expect(try left() == ["a.hds", "b.hds", "c.hds", "text"])
  }

  /// A job that is asked for and does not begin yet.
  private func waiting(_ names: String...) throws -> String {
    #expect(try service.patch("/v1/queue", "{\"paused\":true}").status == 200)
    let paths = names.map { "\"main:\($0)\"" }.joined(separator: ",")
    let job = try service.post(
      "/v1/jobs", "{\"type\":\"clean\",\"params\":{\"paths\":[\(paths)]}}")
    return try #require(job.json["id"] as? String, "\(job.text)")
  }

  private func end(of id: String) throws -> [String: Any] {
    #expect(try service.patch("/v1/queue", "{\"paused\":false}").status == 200)
    while true {
      let job = try service.get("/v1/jobs/\(id)").json
      if job["finished_at"] is String { return job }
      let revision = try #require(job["revision"] as? Int)
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(revision)&wait=10")
    }
  }

  @Test("looks at each once more: what is needed by now, or is another file, stays")
  func again() throws {
    let id = try waiting("a.hds", "b.hds", "c.hds")
    #expect(try service.attach("vm", ["main:a.hds"]).status == 201)
    try shell("mv b.hds old && cp old b.hds && rm old")
    let job = try end(of: id)
    #expect(job["state"] as? String == "failed", "\(job)")
    let error = try #require(job["error"] as? [String: Any])
    #expect(["image-not-orphaned", "image-in-use"].contains(error["code"] as? String))
    #expect(try left() == ["a.hds", "b.hds"])
    let log = try service.get("/v1/jobs/\(id)/log").text
    #expect(log.contains("main:c.hds: removed") && log.contains("another file"), "\(log)")
    #expect(try service.delete("/v1/devices/vm").status == 204)
  }

  @Test("leaves what another program has open")
  func locked() throws {
    let id = try waiting("a.hds")
    let nbd = try ChildProcess(
      [
        "/usr/bin/qemu-nbd", "-f", "parallels", "-t", "-k", "\(folder.path)/q",
        "\(service.images)/a.hds",
      ],
      output: "\(folder.path)/out", errors: "\(folder.path)/err")
    defer { nbd.end() }
    try Tool.shell("until [ -S '\(folder.path)/q' ]; do sleep 0.02; done")
    let job = try end(of: id)
    #expect(job["state"] as? String == "failed", "\(job)")
    #expect((job["error"] as? [String: Any])?["code"] as? String == "image-in-use")
    #expect(try left() == ["a.hds", "b.hds", "c.hds"])
  }

  @Test("goes on after kill -9")
  func killed() throws {
    let id = try waiting("a.hds", "b.hds")
    service.kill()
    try service.start()
    let job = try end(of: id)
    #expect(job["state"] as? String == "succeeded", "\(job)")
    #expect(try left() == ["c.hds"])
  }
}
