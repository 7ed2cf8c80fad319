import Foundation
import Glibc
import PloopIO
import TestSupport
import Testing

/// Backups one after the other, with a kill somewhere in each.
@Suite("The backup job, and kill -9")
struct BackupKillTests {
  private static let sizeMiB = 24

  private struct Point {
    let id: String
    let model: [Int]
  }

  @Test(
    "leaves a disk with every flushed byte, and after its restart every point is right, whenever the kill comes"
  )
  func rounds() throws {
    // PLOOPD_KILLS=200 is the long form (make kills).
    let rounds = ProcessInfo.processInfo.environment["PLOOPD_KILLS"].flatMap { Int($0) } ?? 16
    let seed =
      ProcessInfo.processInfo.environment["PLOOPD_SEED"].flatMap { UInt64($0) }
      ?? UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    var random = SeededGenerator(seed: seed)
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(
      try service.create("vm", sizeBytes: Self.sizeMiB << 20, clusterBytes: 1 << 15).status == 201)
    let target = try service.post(
      "/v1/targets", "{\"name\":\"nas\",\"type\":\"directory\",\"path\":\"backups\"}")
    #expect(target.status == 201, "\(target.text)")
    var model = [Int](repeating: 0, count: Self.sizeMiB)
    var points: [Point] = []
    for round in 1...rounds {
      let pattern = round % 250 + 1
      let places = (0..<3).map { _ in Int.random(in: 0..<Self.sizeMiB, using: &random) }
      let writes = places.map { "-c 'write -P \(pattern) \($0)M 1M'" }.joined(separator: " ")
      try Tool.shell("qemu-io -f raw \(writes) -c flush '\(service.uri("vm"))'")
      for place in places { model[place] = pattern }
      var parameters = "\"target\":\"nas\""
      if Int.random(in: 0..<4, using: &random) == 0 {
        let made = try service.post("/v1/devices/vm/snapshots", "{}")
        parameters += ",\"snapshot\":\"\(made.json["uuid"] as? String ?? "")\""
      }
      // Slow in half of the rounds, so that the kill comes while it copies.
      let limit = Bool.random(using: &random) ? 8 << 20 : 0
      let job = try service.post(
        "/v1/jobs",
        "{\"type\":\"backup\",\"device\":\"vm\",\"params\":{\(parameters)},\"limits\":{\"bps\":\(limit)}}"
      )
      let id = try #require(job.json["id"] as? String, "\(job.text)")
      try kill(service, afterMilliseconds: Int.random(in: 1...400, using: &random))
      try service.start()
      _ = try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}")
      let ended = try wait(for: id, service)
      #expect(
        ended["state"] as? String == "succeeded", "round \(round), seed \(seed): \(ended)")
      points.append(Point(id: id, model: model))
      try check(service, "vm", model, "round \(round), seed \(seed)")
      let found = try names(service)
      #expect(found.isEmpty || found == ["backup-nas"], "round \(round), seed \(seed)")
    }
    try expectPoints(service, points, "seed \(seed)")
    #expect(try service.delete("/v1/devices/vm").status == 204)
  }

  private func kill(_ service: RunningService, afterMilliseconds milliseconds: Int) throws {
    poll(nil, 0, Int32(milliseconds))
    service.kill()
  }

  private func names(_ service: RunningService) throws -> [String] {
    let items = try service.get("/v1/devices/vm/checkpoints").json["items"] as? [[String: Any]]
    return items?.compactMap { $0["name"] as? String } ?? []
  }

  private func wait(for id: String, _ service: RunningService) throws -> [String: Any] {
    let deadline = Deadline.after(seconds: 600)
    while !deadline.hasPassed {
      let job = try service.get("/v1/jobs/\(id)").json
      if job["finished_at"] is String { return job }
      _ = try service.get(
        "/v1/jobs/\(id)?after_revision=\(job["revision"] as? Int ?? 0)&wait=5")
    }
    throw Tool.Failure(description: "the job does not end")
  }

  private func check(
    _ service: RunningService, _ export: String, _ model: [Int], _ note: String
  ) throws {
    let reads = model.enumerated().map { "-c 'read -P \($1) \($0)M 1M'" }.joined(separator: " ")
    let output = try Tool.shell("qemu-io -r -f raw \(reads) '\(service.uri(export))'").output
    #expect(!output.contains("verification failed"), "\(note): \(output)")
  }

  /// Every point can be attached for reading, and reads as the disk was; its chain is one for `ploop`
  /// and for QEMU's reader of a stack too.
  private func expectPoints(
    _ service: RunningService, _ points: [Point], _ note: String
  ) throws {
    for point in points {
      let manifest = try Tool.shell("ls '\(service.images)'/backups/vm/*/\(point.id).json").output
        .split(separator: "\n").first.map(String.init)
      let file = try #require(manifest, "\(note): \(point.id) is missing")
      let chain = file.split(separator: "/").dropLast().last.map(String.init) ?? ""
      let text = try Tool.shell("cat '\(file)'").output
      let guid = text.components(separatedBy: "\"guid\":\"").last?.prefix(38) ?? ""
      let folder = "\(service.images)/backups/vm/\(chain)"
      // The newest one is the top, and has its own name only once another builds on it.
      let isTop =
        try Tool.shell(
          "grep -qF '\(guid)' '\(folder)/DiskDescriptor.xml'", check: false
        ).status != 0
      let place = isTop ? "\"readonly\":true" : "\"at\":\"\(guid)\""
      let attached = try service.post(
        "/v1/devices",
        "{\"id\":\"point\",\"descriptor\":\"backups/vm/\(chain)/DiskDescriptor.xml\",\(place),\"export\":{\"name\":\"point\"}}"
      )
      #expect(attached.status == 201, "\(note), \(point.id): \(attached.text)")
      try check(service, "point", point.model, "\(note), \(point.id)")
      let deltas = attached.json["deltas"] as? [[String: Any]] ?? []
      let paths = deltas.compactMap { $0["path"] as? String }.map {
        "\(service.images)/\($0.dropFirst("main:".count))"
      }
      #expect(try service.delete("/v1/devices/point").status == 204)
      let reads = point.model.enumerated().map { "-c 'read -P \($1) \($0)M 1M'" }
        .joined(separator: " ")
      let output = try Tool.shell("qemu-io -r \(reads) '\(QEMU.stack(paths, rawBase: false))'")
        .output
      #expect(!output.contains("verification failed"), "\(note), \(point.id): \(output)")
    }
    for chain in try Tool.shell("ls '\(service.images)/backups/vm'").output.split(separator: "\n") {
      try OpenVZ.run(
        "cd '\(service.images)/backups/vm/\(chain)' && ploop check DiskDescriptor.xml")
    }
  }
}
