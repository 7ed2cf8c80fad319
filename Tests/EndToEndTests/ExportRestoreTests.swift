import Foundation
import PloopBackup
import PloopIO
import TestSupport
import Testing

@Suite("Disks that are restored from an NBD server's export")
struct ExportRestoreTests {
  private let fixture: ExportFixture
  private var service: RunningService { fixture.service }

  /// Stores the disk as `b1`, and detaches it.
  init() throws {
    fixture = try ExportFixture()
    try fixture.write("write -P 17 0 20M", "write -P 18 22M 20M")
    try fixture.save("b1")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let records = try ImageFolder(path: "\(service.folder)/state")
      .makeFolder(beneath: "exports/\(SHA256.hexDigest(Array(fixture.server.uri.utf8)))")
    try StoredBackup.store(
      image: "\(service.images)/vm/root.hds",
      in: NBDTarget(fixture.server.uri, records: records), device: "vm", id: "b1")
  }

  private func doneBytes(_ id: String) throws -> Int {
    let job = try service.get("/v1/jobs/\(id)").json
    try #require(!(job["finished_at"] is String), "\(job)")
    return (job["progress"] as? [String: Any])?["done_bytes"] as? Int ?? 0
  }

  private func awaitWaiting(_ id: String) throws {
    while true {
      let job = try service.get("/v1/jobs/\(id)").json
      try #require(!(job["finished_at"] is String), "\(job)")
      let waits = job["waiting_for"] as? [[String: Any]] ?? []
      if waits.contains(where: { $0["kind"] as? String == "target" }) { return }
    }
  }

  @Test(
    "wait while the server is away, and go on where they were", arguments: [false, true],
    [false, true])
  func away(isInPlace: Bool, isServiceKilled: Bool) throws {
    let to =
      isInPlace
      ? #""into":"vm/DiskDescriptor.xml""#
      : #""to":{"id":"vm","directory":"other","export":"vm"}"#
    let id = try fixture.begin(
      "restore", ",\"backup\":\"b1\",\(to)", ",\"limits\":{\"bps\":8388608}")
    while try doneBytes(id) < 12 << 20 {}
    fixture.server.kill()
    try awaitWaiting(id)
    if isServiceKilled {
      service.kill()
      try service.start()
      try awaitWaiting(id)
    }
    try fixture.server.restart()
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}").status == 200)
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect((done["progress"] as? [String: Any])?["done_bytes"] as? Int == 40 << 20)
    let log = try service.get("/v1/jobs/\(id)/log").text
    #expect(log.contains("goes on at cluster "), "\(log)")
    if isInPlace {
      let attached = try service.post(
        "/v1/devices",
        #"{"id":"vm","descriptor":"vm/DiskDescriptor.xml","export":{"name":"vm"}}"#)
      #expect(attached.status == 201, "\(attached.text)")
    }
    try fixture.expect("vm", holds: "b1")
  }
}
