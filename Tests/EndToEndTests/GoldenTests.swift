import Foundation
import PloopFormat
import TestSupport
import Testing

/// What earlier versions have left, killed in the middle of their work, is read for ever: Tests/Golden has an archive of
/// each, which never changes, and the script that made it.
@Suite("Golden files of each version")
struct GoldenTests {
  private static let versions: [String] = {
    let package = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let found = try? Tool.shell("ls '\(package)'/Tests/Golden/*.tar.xz").output
    return (found ?? "").split(separator: "\n").map(String.init)
  }()

  /// The checkpoint of the disk `old`.
  private static let inImage = "6f1c2b1e-0d1f-4d7e-9a55-3c1d2e4f5a6b"

  private struct Expected: Decodable {
    /// SHA-256 of what each export has.
    let contents: [String: String]
    /// That of the disk `old`, which no device had any more.
    let old: String
    /// The merge that was running, the backup that waits for the year 2999.
    let merge: String
    let waiting: String
    let token: String
  }

  /// The life that an archive's service begins after the kill.
  private struct Life {
    let folder: TemporaryFolder
    let service: RunningService
    let expected: Expected

    init(of archive: String) throws {
      folder = try TemporaryFolder()
      try Tool.shell("tar -C '\(folder.path)' -xf '\(archive)'")
      expected = try JSONDecoder().decode(
        Expected.self, from: Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/expected.json")))
      service = try RunningService(in: folder.path, httpListen: "127.0.0.1:0")
    }

    func content(_ export: String) throws -> String {
      let sum = try Tool.shell("nbdcopy '\(service.uri(export))' - | sha256sum").output
      return String(sum.prefix { $0 != " " })
    }

    func names(_ path: String, _ key: String = "name") throws -> [String] {
      let items = try service.get(path).json["items"] as? [[String: Any]] ?? []
      return items.compactMap { $0[key] as? String }
    }

    func done(_ request: String) throws -> [String: Any] {
      let reply = try service.post("/v1/jobs", request)
      let id = try #require(reply.json["id"] as? String, "\(reply.text)")
      let job = try service.endOfJob(id)
      #expect(job["state"] as? String == "succeeded", "\(request): \(job["error"] ?? "")")
      return job
    }
  }

  @Test("Disks come back with every byte, and all that is known of them", arguments: versions)
  func disks(archive: String) throws {
    let life = try Life(of: archive)
    let service = life.service
    #expect(try life.names("/v1/devices", "id") == ["linked", "merging", "vm1"])
    #expect(life.expected.contents.count == 4)
    for (export, sum) in life.expected.contents {
      #expect(try life.content(export) == sum, "\(export)")
    }
    let vm1 = try service.get("/v1/devices/vm1").json
    #expect((vm1["labels"] as? [String: String]) == ["purpose": "golden"])
    #expect((vm1["throttle"] as? [String: Any])?["write_bps"] as? Int == 1 << 30)
    let snapshots =
      try service.get("/v1/devices/vm1/snapshots").json["items"] as? [[String: Any]] ?? []
    #expect(snapshots.compactMap { $0["name"] as? String } == ["first", "second"])
    #expect(snapshots.map { $0["protected"] as? Bool } == [true, false])
    #expect(snapshots.first?["description"] as? String == "is kept")
    // It is there, but no more believed: these files are copies of those that it was about.
    let checkpoint = try service.get("/v1/devices/vm1/checkpoints/since").json
    #expect(checkpoint["consistent"] as? Bool == false)
    // What was hashed then is what is held against it now.
    let hash = try life.done(#"{"type":"hash","device":"vm1","params":{"what":"deltas"}}"#)
    let deltas = (hash["result"] as? [String: Any])?["deltas"] as? [[String: Any]] ?? []
    #expect(
      deltas.count == 2 && deltas.allSatisfy { $0["clusters_compared"] as? Int != 0 }, "\(deltas)")
    #expect(try service.end() == 0)
  }

  @Test("Work goes on where it was killed, and what waits still waits", arguments: versions)
  func jobs(archive: String) throws {
    let life = try Life(of: archive)
    let (service, expected) = (life.service, life.expected)
    let waiting = try service.get("/v1/jobs/\(expected.waiting)").json
    #expect(waiting["state"] as? String == "queued" && waiting["type"] as? String == "backup")
    #expect((waiting["params"] as? [String: Any])?["target"] as? String == "nas")
    let faster = try service.patch("/v1/jobs/\(expected.merge)", #"{"limits":{"bps":0}}"#)
    #expect(faster.status == 200, "\(faster.text)")
    let merge = try service.endOfJob(expected.merge)
    #expect(merge["state"] as? String == "succeeded" && merge["interruptions"] as? Int == 1)
    #expect(try life.content("merging") == expected.contents["merging"])
    #expect(try life.names("/v1/devices/merging/deltas", "uuid").count == 1)
    let address = try service.httpAddress()
    let answer = try Tool.shell(
      "curl -sS -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer \(expected.token)' 'http://\(address)/v1/devices'"
    ).output
    #expect(answer == "200")
    #expect(try service.end() == 0)
    let audit = try Tool.shell(
      "'\(RunningService.program)' audit verify '\(life.folder.path)/state/audit.jsonl'",
      check: false)
    #expect(audit.status == 0, "\(audit.output)")
  }

  @Test("Backups are all there, are what was stored, and are restored", arguments: versions)
  func backups(archive: String) throws {
    let life = try Life(of: archive)
    let service = life.service
    #expect(try life.names("/v1/targets") == ["nas", "ploop1", "raw"])
    for (target, count) in [("nas", 2), ("raw", 1), ("ploop1", 1)] {
      let points = try life.names("/v1/targets/\(target)/backups", "id")
      #expect(points.count == count, "\(target)")
      _ = try life.done("{\"type\":\"verify\",\"params\":{\"target\":\"\(target)\"}}")
      let newest = try #require(points.max())
      _ = try life.done(
        "{\"type\":\"restore\",\"params\":{\"target\":\"\(target)\",\"backup\":\"\(newest)\",\"to\":{\"id\":\"\(target)\",\"directory\":\"restored-\(target)\",\"export\":\"\(target)\"}}}"
      )
      #expect(try life.content(target) == life.expected.contents["vm1"], "\(target)")
    }
    // The chain goes on, by a full backup where the checkpoint is not believed.
    _ = try life.done(#"{"type":"backup","device":"vm1","params":{"target":"nas"}}"#)
    #expect(try life.names("/v1/targets/nas/backups", "id").count == 3)
    // The disk that was closed, by its descriptor; its checkpoints lie in the image as well.
    try Tool.shell("rm '\(service.images)/old/root.hds.checkpoints'")
    let old = try service.post(
      "/v1/devices",
      #"{"id":"old","descriptor":"old/DiskDescriptor.xml","export":{"name":"old"}}"#)
    #expect(old.status == 201, "\(old.text)")
    #expect(try life.content("old") == life.expected.old)
    let closed = try service.get("/v1/devices/old/checkpoints/\(Self.inImage)").json
    #expect(
      closed["consistent"] as? Bool == true && closed["dirty_bytes"] as? Int == 2 << 16, "\(closed)"
    )
    #expect(try service.end() == 0)
  }

  /// The service believes a file of checkpoints only where the files it is about are the same ones.
  @Test("Checkpoints say which clusters were written", arguments: versions)
  func checkpoints(archive: String) throws {
    let folder = try TemporaryFolder()
    try Tool.shell(
      "tar -C '\(folder.path)' -xf '\(archive)' && cp '\(folder.path)'/images/vm1/*.checkpoints '\(folder.path)/file'"
    )
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/file")))
    let (file, isMarked) = try CheckpointFile.parse(bytes)
    #expect(file.state == .open && file.chain.count == 3)
    let judged = file.judged(isMarked: isMarked, now: file.chain, diskBytes: 4 << 20)
    let since = try #require(judged.first { $0.name == "since" })
    #expect(since.inconsistency == nil)
    // 256 KiB at 2 MiB, 192 KiB at 3 MiB, and 64 KiB at 128 KiB that were given back.
    #expect(since.granularityShift == 16)
    let written = (0..<8 * since.bits.count).filter { bit in
      since.bits[bit >> 3] & (1 << UInt8(bit & 7)) != 0
    }
    #expect(written == [2, 32, 33, 34, 35, 48, 49, 50])
  }

  @Test("There is an archive of some version")
  func isThere() { #expect(!Self.versions.isEmpty) }
}
