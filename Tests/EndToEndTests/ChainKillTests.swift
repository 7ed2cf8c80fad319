import Foundation
import Glibc
import PloopIO
import TestSupport
import Testing

/// Changes of a chain, one after the other, with a kill somewhere in each.
@Suite("Changes of a chain, and kill -9")
struct ChainKillTests {
  /// Sectors that were flushed before a change: whatever comes, they read as this or as something newer.
  private static let sizeMiB = 24

  @Test("leave a disk that comes back with every flushed byte, whenever the kill comes")
  func rounds() throws {
    // PLOOPD_KILLS=200 is the long form (make kills).
    let rounds = ProcessInfo.processInfo.environment["PLOOPD_KILLS"].flatMap { Int($0) } ?? 20
    let seed =
      ProcessInfo.processInfo.environment["PLOOPD_SEED"].flatMap { UInt64($0) }
      ?? UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    var random = SeededGenerator(seed: seed)
    let folder = try TemporaryFolder()
    let service = try RunningService(in: folder.path)
    #expect(
      try service.create("vm", sizeBytes: Self.sizeMiB << 20, clusterBytes: 1 << 15).status == 201)
    /// The pattern of each MiB, as it was flushed.
    var model = [Int](repeating: 0, count: Self.sizeMiB)
    for round in 1...rounds {
      let pattern = round % 250 + 1
      let places = (0..<4).map { _ in Int.random(in: 0..<Self.sizeMiB, using: &random) }
      let writes = places.map { "-c 'write -P \(pattern) \($0)M 1M'" }.joined(separator: " ")
      try Tool.shell("qemu-io -f raw \(writes) -c flush '\(service.uri("vm"))'")
      for place in places { model[place] = pattern }
      let change = try change(service, &random)
      try interrupt(service, change, milliseconds: Int.random(in: 2...90, using: &random))
      try service.start()
      let device = try service.get("/v1/devices/vm")
      #expect(
        device.json["state"] as? String == "online", "round \(round), seed \(seed): \(device.text)")
      try check(service, model, "round \(round) after \(change.path), seed \(seed)")
      // What was in the queue goes on.
      try waitForJobs(service)
      try check(service, model, "round \(round) after its jobs, seed \(seed)")
      try expectNoOrphans(service, "round \(round) after \(change.path), seed \(seed)")
    }
    #expect(try service.delete("/v1/devices/vm").status == 204)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
    try stack(service, model)
  }

  private struct Change {
    let method: String
    let path: String
    let body: String
  }

  /// A snapshot, a merge of some level, or the deletion of some snapshot.
  private func change(
    _ service: RunningService, _ random: inout SeededGenerator
  ) throws -> Change {
    let items = try service.get("/v1/devices/vm/snapshots").json["items"] as? [[String: Any]] ?? []
    let snapshot = Change(method: "POST", path: "/v1/devices/vm/snapshots", body: "{}")
    guard items.count > 1, items.count > 5 || Int.random(in: 0..<5, using: &random) > 1 else {
      return snapshot
    }
    let index = Int.random(in: 0..<items.count, using: &random)
    let guid = (items[index]["uuid"] as? String ?? "").filter { !"{}".contains($0) }
    if Bool.random(using: &random) {
      return Change(method: "DELETE", path: "/v1/devices/vm/snapshots/\(guid)", body: "")
    }
    // What is not possible backward is refused, and nothing is interrupted then.
    let direction = ["auto", "forward", "backward"][Int.random(in: 0..<3, using: &random)]
    return Change(
      method: "POST", path: "/v1/jobs",
      body:
        "{\"type\":\"merge\",\"device\":\"vm\",\"params\":{\"snapshot\":\"\(guid)\",\"direction\":\"\(direction)\"}}"
    )
  }

  private func interrupt(
    _ service: RunningService, _ change: Change, milliseconds: Int
  ) throws {
    let body =
      change.body.isEmpty
      ? "" : "-H 'Content-Type: application/json' --data-binary '\(change.body)'"
    let pause = String(repeating: "0", count: 3 - String(milliseconds).count) + "\(milliseconds)"
    try Tool.shell(
      """
      cd '\(service.folder)' && curl -sS --unix-socket api.sock -X \(change.method) \(body) \
        'http://localhost\(change.path)' > heard 2> errors &
      timeout 0.\(pause) tail -f /dev/null
      kill -KILL \(service.process)
      wait
      """)
    _ = try service.waitForExit()
  }

  private func waitForJobs(_ service: RunningService) throws {
    let deadline = Deadline.after(seconds: 60)
    while !deadline.hasPassed {
      let jobs = try service.get("/v1/jobs").json["items"] as? [[String: Any]] ?? []
      guard let open = jobs.first(where: { !($0["finished_at"] is String) }) else {
        for job in jobs {
          #expect(job["state"] as? String == "succeeded", "\(job)")
        }
        return
      }
      let (id, revision) = (open["id"] as? String ?? "", open["revision"] as? Int ?? 0)
      _ = try service.get("/v1/jobs/\(id)?after_revision=\(revision)&wait=5")
    }
    throw Tool.Failure(description: "jobs do not end")
  }

  private func check(_ service: RunningService, _ model: [Int], _ note: String) throws {
    let reads = model.enumerated().map { "-c 'read -P \($1) \($0)M 1M'" }.joined(separator: " ")
    let output = try Tool.shell("qemu-io -r -f raw \(reads) '\(service.uri("vm"))'").output
    #expect(!output.contains("verification failed"), "\(note): \(output)")
  }

  /// As many images as the descriptor has names, and no intent.
  private func expectNoOrphans(_ service: RunningService, _ note: String) throws {
    let images = try Tool.shell(
      "cd '\(service.images)/vm' && ls | grep '^root.hds' | grep -vc index-backup"
    ).output
    let names = try Tool.shell("grep -c '<File>' '\(service.images)/vm/DiskDescriptor.xml'").output
    #expect(images == names, "\(note)")
    let left = try Tool.shell("ls '\(service.images)/vm' | grep -c intent", check: false).output
    #expect(left == "0\n", "\(note)")
  }

  /// QEMU's own reader of a stack of deltas sees the same disk.
  private func stack(_ service: RunningService, _ model: [Int]) throws {
    let again = try service.post(
      "/v1/devices", "{\"id\":\"vm\",\"descriptor\":\"vm/DiskDescriptor.xml\"}")
    let deltas = again.json["deltas"] as? [[String: Any]] ?? []
    let paths = deltas.compactMap { $0["path"] as? String }.map {
      "\(service.images)/\($0.dropFirst("main:".count))"
    }
    #expect(paths.count == deltas.count && !paths.isEmpty, "\(again.text)")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let reads = model.enumerated().map { "-c 'read -P \($1) \($0)M 1M'" }.joined(separator: " ")
    let output = try Tool.shell("qemu-io -r \(reads) '\(QEMU.stack(paths, rawBase: false))'").output
    #expect(!output.contains("verification failed"), "\(output)")
  }
}
