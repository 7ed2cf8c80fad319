import Foundation
import Glibc
import PloopIO
import TestSupport
import Testing

/// A folder with one file in it, `nbd`, on a file system that can stop answering.
private final class SilentFolder {
  private let process: ChildProcess
  private let path: String
  /// Removed when nothing is mounted in it any more.
  private let folder: TemporaryFolder

  init(at path: String, in folder: TemporaryFolder) throws {
    self.path = path
    self.folder = folder
    try Tool.shell("mkdir -p '\(path)'")
    process = try ChildProcess(
      ["/usr/bin/nbdfuse", path, "--command", "/usr/bin/nbdkit", "-s", "memory", "16M"],
      output: "\(folder.path)/fuse.log", errors: "\(folder.path)/fuse.log")
    let deadline = Deadline.after(seconds: 120)
    while access("\(path)/nbd", F_OK) != 0 {
      guard process.isRunning, !deadline.hasPassed else {
        throw Tool.Failure(description: try Tool.shell("cat '\(folder.path)/fuse.log'").output)
      }
      poll(nil, 0, 5)
    }
  }

  deinit {
    answer()
    process.end()
    _ = try? Tool.shell("umount -l '\(path)' 2> /dev/null || true")
  }

  func fallSilent() { process.signal(SIGSTOP) }
  func answer() { process.signal(SIGCONT) }
}

@Suite("A target that does not answer")
struct SilentTargetTests {
  private let folder: TemporaryFolder
  private let service: RunningService
  private let silent: SilentFolder

  init() throws {
    folder = try TemporaryFolder()
    silent = try SilentFolder(at: "\(folder.path)/images/silent", in: folder)
    service = try RunningService(in: folder.path)
    for target in [
      #"{"name":"nas","type":"directory","path":"backups"}"#,
      #"{"name":"silent","type":"file","path":"silent/nbd","format":"raw"}"#,
    ] {
      let made = try service.post("/v1/targets", target)
      #expect(made.status == 201, "\(made.text)")
    }
    #expect(try service.create("vm", sizeBytes: 8 << 20, clusterBytes: 1 << 16).status == 201)
  }

  private func end(of id: String) throws -> [String: Any] {
    while true {
      let job = try service.get("/v1/jobs/\(id)").json
      if job["finished_at"] is String { return job }
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(job["revision"] as? Int ?? 0)&wait=10")
    }
  }

  private static func backup(to target: String, _ mode: String = "auto") -> String {
    "{\"type\":\"backup\",\"device\":\"vm\",\"params\":{\"target\":\"\(target)\",\"mode\":\"\(mode)\"}}"
  }

  @Test("disturbs nobody but those who ask for it")
  func undisturbed() throws {
    // A job that is to be cancelled while it does not run, but has run.
    #expect(try service.patch("/v1/queue", #"{"paused":true}"#).status == 200)
    let queued = try service.post("/v1/jobs", Self.backup(to: "silent"))
    let id = try #require(queued.json["id"] as? String, "\(queued.text)")
    service.kill()
    try Tool.shell(
      """
      sqlite3 '\(folder.path)/state/ploopd.db' "UPDATE jobs SET
        job = json_set(job, '$.startedAt', 1.0) WHERE id = '\(id)'"
      """)
    try service.start()
    silent.fallSilent()
    // Whoever asks for it waits.
    let waiting = try [("?dry_run=true", "auto"), ("", "incremental")].map { query, mode in
      try ChildProcess(
        [
          "/usr/bin/curl", "-sS", "--unix-socket", service.httpSocket, "-H",
          "Content-Type: application/json", "-d", Self.backup(to: "silent", mode),
          "http://localhost/v1/jobs\(query)",
        ], output: "\(folder.path)/asked", errors: "\(folder.path)/asked")
    }
    #expect(
      try service.post("/v1/jobs/\(id)/cancel", "{}").json["state"] as? String == "cancelling")
    let listed = try service.get("/v1/targets").json["items"] as? [[String: Any]] ?? []
    let reachable = listed.map { target in
      (target["conditions"] as? [[String: Any]])?.first?["status"] as? String
    }
    #expect(reachable == ["True", "False"], "\(listed)")
    #expect(try service.get("/v1/targets/silent").text.contains("NotAnswering"))
    #expect(try service.get("/v1/targets/nas/backups").status == 200)
    #expect(try service.patch("/v1/devices/vm", #"{"labels":{"a":"b"}}"#).status == 200)
    #expect(
      try service.post("/v1/devices", #"{"id":"x","create":{"directory":"x","size":8388608}}"#)
        .status == 201)
    #expect(try service.post("/v1/jobs?dry_run=true", Self.backup(to: "nas")).status == 200)
    #expect(
      try service.post("/v1/targets", #"{"name":"b","type":"directory","path":"b"}"#).status == 201)
    let areWaiting = waiting.allSatisfy { $0.isRunning }
    #expect(areWaiting)
    silent.answer()
    #expect(try end(of: id)["state"] as? String == "cancelled")
    for client in waiting { #expect(try client.wait(seconds: 600) == 0) }
    let back = try service.get("/v1/targets/silent").text
    #expect(back.contains("\"Opened\""), "\(back)")
  }
}
