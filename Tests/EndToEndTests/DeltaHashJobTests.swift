import Foundation
import TestSupport
import Testing

@Suite("Hashes of a disk's deltas")
struct DeltaHashJobTests {
  private let folder: TemporaryFolder
  private let service: RunningService

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(try service.create("vm", sizeBytes: 16 << 20, clusterBytes: 1 << 16).status == 201)
    try write(17, "0 4M")
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
    try write(18, "2M 4M")
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
  }

  private func write(_ pattern: Int, _ range: String) throws {
    try Tool.shell("qemu-io -f raw -c 'write -P \(pattern) \(range)' '\(service.uri("vm"))'")
  }

  private func job(_ body: String) throws -> [String: Any] {
    let reply = try service.post("/v1/jobs", body, ["Prefer: wait=60"])
    #expect(reply.status == 200, "\(reply.text)")
    return reply.json
  }

  private func hash() throws -> [String: Any] {
    try job("{\"type\":\"hash\",\"device\":\"vm\",\"params\":{\"what\":\"deltas\"}}")
  }

  private func paths() throws -> [String] {
    let deltas = try #require(try service.get("/v1/devices/vm").json["deltas"] as? [[String: Any]])
    return deltas.compactMap { ($0["path"] as? String).map { String($0.dropFirst("main:".count)) } }
  }

  /// Oldest first.
  private func snapshots() throws -> [String] {
    let deltas = try #require(try service.get("/v1/devices/vm").json["deltas"] as? [[String: Any]])
    return deltas.compactMap { $0["uuid"] as? String }
  }

  private func error(_ job: [String: Any]) -> (code: String?, detail: String) {
    let error = job["error"] as? [String: Any]
    return (error?["code"] as? String, error?["detail"] as? String ?? "")
  }

  @Test("find bit rot before it is merged or backed up; the disk goes on, and knows where it is")
  func rot() throws {
    let files = try paths()
    let made = try hash()
    #expect(made["state"] as? String == "succeeded", "\(made)")
    let result = try #require(made["result"] as? [String: Any])
    let deltas = try #require(result["deltas"] as? [[String: Any]])
    #expect(deltas.map { $0["file"] as? String } == files.dropLast().map { "main:\($0)" })
    #expect(deltas.map { $0["state"] as? String } == ["hashed", "hashed"])
    #expect(deltas.map { $0["clusters"] as? Int } == [64, 64])
    #expect(result["bytes_read"] as? Int == 8 << 20)
    #expect((try hash()["result"] as? [String: Any])?["bytes_read"] as? Int == 8 << 20)

    // A byte of the oldest delta changes by itself: the first cluster of it lies behind the header.
    let base = files[0]
    try Tool.shell(
      """
      cd '\(service.images)' && touch -r '\(base)' ref
      printf '\\1' | dd of='\(base)' bs=1 seek=65636 conv=notrunc status=none
      touch -r ref '\(base)' && rm ref
      """)
    let found = try hash()
    #expect(found["state"] as? String == "failed", "\(found)")
    #expect(error(found).code == "delta-damaged")
    #expect(error(found).detail.contains("main:\(base): cluster 0 "), "\(found)")
    let log = try service.get("/v1/jobs/\(try #require(found["id"] as? String))/log").text
    #expect(log.contains("damaged clusters: 0"), "\(log)")

    #expect(
      try service.post(
        "/v1/targets", "{\"name\":\"nas\",\"type\":\"directory\",\"path\":\"main:points\"}"
      ).status == 201)
    let backup = try job(
      "{\"type\":\"backup\",\"device\":\"vm\",\"params\":{\"target\":\"nas\"}}")
    #expect(backup["state"] as? String == "failed", "\(backup)")
    #expect(error(backup).code == "delta-damaged", "\(backup)")
    #expect(error(backup).detail.contains("main:\(base): cluster 0 "), "\(backup)")

    // What copies the live disk, and what copies a snapshot.
    for snapshot in ["", "\"snapshot\":\"\(try snapshots()[0])\","] {
      let clone = try job(
        "{\"type\":\"clone\",\"device\":\"vm\",\"params\":{\(snapshot)\"to\":{\"id\":\"copy\",\"directory\":\"copy\"}}}"
      )
      #expect(error(clone).code == "delta-damaged", "\(clone)")
      #expect(error(clone).detail.contains("main:\(base): cluster 0 "), "\(clone)")
      #expect(try service.get("/v1/devices/copy").status == 404)
    }

    let merge = try job(
      "{\"type\":\"merge\",\"device\":\"vm\",\"params\":{\"level\":0,\"direction\":\"forward\"}}")
    #expect(merge["state"] as? String == "failed", "\(merge)")
    #expect(error(merge).code == "delta-damaged")
    #expect(error(merge).detail.contains("main:\(base): cluster 0 "), "\(merge)")
    #expect(try paths() == files)
    try write(3, "0 64k")
    try Tool.shell("qemu-io -f raw -c 'read -P 3 0 64k' '\(service.uri("vm"))' | grep -v pattern")
    #expect(try service.get("/v1/devices/vm").json["state"] as? String == "online")
  }

  @Test("go with their delta")
  func removed() throws {
    #expect(try hash()["state"] as? String == "succeeded")
    func sums() throws -> Int {
      try Tool.shell("find '\(service.images)' -name '*.hashes' | wc -l").output
        .filter(\.isNumber).reduce(0) { $0 * 10 + ($1.wholeNumberValue ?? 0) }
    }
    #expect(try sums() == 2)
    let merge = try job(
      "{\"type\":\"merge\",\"device\":\"vm\",\"params\":{\"direction\":\"forward\"}}")
    #expect(merge["state"] as? String == "succeeded", "\(merge)")
    #expect(try sums() == 1)
  }
}
