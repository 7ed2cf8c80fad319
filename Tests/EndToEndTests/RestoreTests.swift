import Foundation
import PloopBackup
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Disks that are restored")
struct RestoreTests {
  private let fixture: BackupFixture
  private var service: RunningService { fixture.service }

  init() throws {
    fixture = try BackupFixture()
    try fixture.storeTwo()
  }

  private func names(in folder: String) throws -> [String] {
    try Tool.shell("ls -A '\(service.images)/\(folder)' 2> /dev/null || true").output
      .split(separator: "\n").map(String.init)
  }

  @Test("hold each point byte for byte, though the original is gone", arguments: ["b1", "b2"])
  func points(id: String) throws {
    try Tool.shell("rm -r '\(service.images)/vm'")
    let plan =
      try service.post(
        "/v1/jobs?dry_run=true",
        "{\"type\":\"restore\",\"params\":{\"target\":\"nas\",\"backup\":\"\(id)\",\"to\":{\"id\":\"r\",\"directory\":\"r\"}}}"
      ).json["plan"] as? [String: Any]
    let mebibytes = id == "b1" ? 40 : 41
    #expect(plan?["bytes_to_copy"] as? Int == mebibytes << 20)
    let done = try fixture.end(of: fixture.restore(id, to: "r"))
    #expect(done["state"] as? String == "succeeded", "\(done)")
    let progress = done["progress"] as? [String: Any]
    #expect(progress?["total_bytes"] as? Int == mebibytes << 20)
    #expect(progress?["done_bytes"] as? Int == mebibytes << 20)
    #expect((done["result"] as? [String: Any])?["device"] as? String == "r")
    #expect(done["device"] as? String == "r")
    try fixture.expect("r", holds: id)
    #expect(
      try names(in: "r").sorted() == [
        "DiskDescriptor.xml", "DiskDescriptor.xml.lck", "root.hds",
      ])
    // It is a disk like any other.
    try Tool.shell("qemu-io -f raw -c 'write -P 9 1M 1M' -c flush '\(service.uri("r"))'")
    #expect(try service.delete("/v1/devices/r").status == 204)
    try OpenVZ.run("cd '\(service.images)/r' && ploop check DiskDescriptor.xml")
    try QEMU.expectSound("\(service.images)/r/root.hds")
  }

  @Test("are not made two in one place, and the second leaves the first alone")
  func onePlace() throws {
    let first = try fixture.restore("b2", to: "r", ",\"limits\":{\"bps\":1}")
    try fixture.await(first) { $0["state"] as? String == "running" }
    let second = try service.post(
      "/v1/jobs",
      #"{"type":"restore","params":{"target":"nas","backup":"b1","to":{"id":"s","directory":"r"}}}"#
    )
    #expect(second.code == "image-exists", "\(second.text)")
    #expect((second.json["holder"] as? [String: Any])?["id"] as? String == first)
    #expect(
      try service.patch("/v1/jobs/\(first)", #"{"limits":{"bps":0}}"#).status == 200)
    #expect(try fixture.end(of: first)["state"] as? String == "succeeded")
    try fixture.expect("r", holds: "b2")
  }

  @Test("are not made where something is, or of what is not there, and leave no trace of a refusal")
  func refusals() throws {
    func code(_ backup: String, _ to: String) throws -> String? {
      try service.post(
        "/v1/jobs",
        "{\"type\":\"restore\",\"params\":{\"target\":\"nas\",\"backup\":\"\(backup)\",\"to\":{\(to)}}}"
      ).code
    }
    #expect(try code("b9", #""id":"r","directory":"r""#) == "backup-not-found")
    #expect(try code("b1", #""id":"r","directory":"vm""#) == "image-exists")
    #expect(try code("b1", #""id":"R","directory":"r""#) == "invalid-value")
    #expect(try code("b1", #""id":"r""#) == "invalid-value")
    #expect(try code("b1", #""id":"r","directory":"r","x":1"#) == "unknown-field")
    #expect(try code("b1", #""id":"r","directory":"/r""#) == "path-outside-root")
    try fixture.attach()
    #expect(try code("b1", #""id":"vm","directory":"r""#) == "device-exists")
    #expect(try code("b1", #""id":"r","directory":"r","export":"vm""#) == "export-exists")
    #expect(
      try service.post(
        "/v1/jobs",
        #"{"type":"restore","device":"vm","params":{"target":"nas","backup":"b1","to":{"id":"r","directory":"r"}}}"#
      ).code == "invalid-value")
    #expect(try names(in: "r").isEmpty)
  }

  @Test(
    "of a damaged point are refused where it is damaged; verify names it, and says when it looked")
  func damaged() throws {
    let sound = try fixture.end(of: fixture.job("verify", "\"backup\":\"b2\""))
    #expect(sound["state"] as? String == "succeeded", "\(sound)")
    #expect((sound["result"] as? [String: Any])?["bytes_read"] as? Int == 43 << 20)
    let before = try fixture.backup("b1")
    #expect(before["verified_at"] is String && before["state"] as? String == "complete")
    // One bit of a cluster behind the index, of which the newer point knows nothing.
    try Tool.shell(
      """
      printf '\\x01' | dd of='\(fixture.chain)/b1.hds' bs=1 seek=$((65536 * 37 + 5)) conv=notrunc 2>&1
      """)
    let failed = try fixture.end(of: fixture.restore("b1", to: "r"))
    #expect(failed["state"] as? String == "failed")
    let error = failed["error"] as? [String: Any]
    #expect(error?["code"] as? String == "backup-corrupt")
    let detail = error?["detail"] as? String ?? ""
    #expect(detail.contains("b1.hds") && detail.contains("clusters "), "\(detail)")
    #expect(try names(in: "r").isEmpty)
    #expect(try service.get("/v1/devices/r").status == 404)
    let verified = try fixture.end(of: fixture.job("verify", "\"device\":\"vm\""))
    #expect((verified["error"] as? [String: Any])?["code"] as? String == "backup-corrupt")
    let found = (verified["error"] as? [String: Any])?["detail"] as? String ?? ""
    let cluster = try #require(detail.split(separator: " ").last { $0.contains(")") })
    #expect(found.contains("b1.hds") && found.hasSuffix("\(cluster)"), "\(found) \(detail)")
    let log = try fixture.log(of: try #require(verified["id"] as? String))
    #expect(log.contains { $0.contains("wrong clusters: \(cluster.dropLast())") }, "\(log)")
    let after = try fixture.backup("b1")
    #expect(after["state"] as? String == "damaged" && after["reason"] is String, "\(after)")
    #expect(try fixture.backup("b2")["state"] as? String == "complete")
    // Sums that are not what they were: nothing of the point is believed.
    try Tool.shell("printf x >> '\(fixture.chain)/b2.sums'")
    let sums = try fixture.end(of: fixture.job("verify", "\"device\":\"vm\""))
    let words = (sums["error"] as? [String: Any])?["detail"] as? String ?? ""
    #expect(words.hasPrefix("2 of 2 backups are damaged"), "\(words)")
  }

  @Test(
    "are not made where something has come to lie since they were asked for, and leave it alone",
    arguments: ["root.hds", "root.hds.sums", "DiskDescriptor.xml"])
  func takenMeanwhile(name: String) throws {
    #expect(try service.patch("/v1/queue", #"{"paused":true}"#).status == 200)
    let id = try fixture.restore("b2", to: "r")
    try Tool.shell(
      "mkdir '\(service.images)/r' && echo mine > '\(service.images)/r/\(name)'")
    #expect(try service.patch("/v1/queue", #"{"paused":false}"#).status == 200)
    let done = try fixture.end(of: id)
    #expect((done["error"] as? [String: Any])?["code"] as? String == "image-exists", "\(done)")
    #expect(try names(in: "r") == [name])
    #expect(try Tool.shell("cat '\(service.images)/r/\(name)'").output == "mine\n")
  }

  @Test("go on where they were after kill -9, and are whole then")
  func killed() throws {
    let id = try fixture.restore("b2", to: "r", ",\"limits\":{\"bps\":8388608}")
    try fixture.await(id) { fixture.doneBytes($0) >= 20 << 20 }
    service.kill()
    // What is begun is nobody's disk.
    try service.start()
    try fixture.await(id) { $0["state"] as? String == "running" }
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}").status == 200)
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(done["interruptions"] as? Int == 1)
    let log = try fixture.log(of: id)
    #expect(log.contains { $0.contains("goes on at cluster ") }, "\(log)")
    try fixture.expect("r", holds: "b2")
  }

  /// When a restore is cancelled.
  enum Cancel: CaseIterable {
    case running
    /// It waits for its turn, since the service was killed.
    case killed
    /// The service is killed before it is over.
    case killedMeanwhile
  }

  @Test("are cancelled without a trace, also around kill -9", arguments: Cancel.allCases)
  func cancelled(cancel: Cancel) throws {
    let id = try fixture.restore("b2", to: "r", ",\"limits\":{\"bps\":4194304}")
    try fixture.await(id) { fixture.doneBytes($0) >= 8 << 20 }
    #expect(
      try service.post(
        "/v1/devices", #"{"id":"r","create":{"directory":"q","size":8388608}}"#
      ).code == "device-exists")
    #expect(try names(in: "r").contains("root.hds"))
    if cancel != .running {
      #expect(try service.patch("/v1/queue", "{\"paused\":true}").status == 200)
      service.kill()
      if cancel == .killedMeanwhile {
        try Tool.shell(
          """
          sqlite3 '\(fixture.folder.path)/state/ploopd.db' "UPDATE jobs SET state = 'cancelling',
            job = json_set(job, '$.state', 'cancelling')"
          """)
      }
      try service.start()
    }
    if cancel == .killedMeanwhile {
      #expect(try fixture.end(of: id)["state"] as? String == "cancelled")
    } else {
      #expect(try names(in: "r").contains("root.hds"))
      let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
      #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    }
    #expect(try names(in: "r").isEmpty)
    #expect(
      try service.post(
        "/v1/devices", #"{"id":"r","create":{"directory":"r","size":8388608}}"#
      ).status == 201)
  }

  @Test("take turns at a target, and have its limits together")
  func slots() throws {
    #expect(
      try service.patch("/v1/targets/nas", #"{"slots":1,"limits":{"bps":4194304}}"#).status == 200)
    let first = try fixture.restore("b1", to: "r1")
    try fixture.await(first) { fixture.doneBytes($0) > 0 }
    let second = try fixture.restore("b1", to: "r2")
    let waits = try fixture.await(second) {
      (($0["waiting_for"] as? [[String: Any]]) ?? []).contains { $0["kind"] as? String == "target" }
    }
    #expect(waits["state"] as? String == "queued")
    #expect(try service.delete("/v1/targets/nas?backups=keep").code == "target-in-use")
    #expect(
      try service.patch("/v1/targets/nas", #"{"slots":2,"limits":{"bps":0}}"#).status == 200)
    for id in [first, second] {
      #expect(try fixture.end(of: id)["state"] as? String == "succeeded")
    }
    try fixture.expect("r1", holds: "b1")
    try fixture.expect("r2", holds: "b1")
  }

  /// What lies there when the service is killed behind the job's commit.
  enum Moment: CaseIterable {
    case copied, closed, described, attached
  }

  /// - Parameter isCommitted: not, where it waited for room behind its commit.
  @Test(
    "come to their end after kill -9 at any moment of it", arguments: Moment.allCases,
    [true, false])
  func killedAtTheEnd(moment: Moment, isCommitted: Bool) throws {
    // A disk for which there is room but for its index.
    let id = try fixture.restore("b2", to: "r", ",\"limits\":{\"bps\":4194304}")
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    if moment == .attached {
      _ = try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}")
      #expect(try fixture.end(of: id)["state"] as? String == "succeeded")
    }
    service.kill()
    let folder = try ImageFolder(path: "\(service.images)/r")
    if moment != .attached { try finish(in: folder, moment) }
    // As the job's own record says behind its commit.
    try Tool.shell(
      """
      sqlite3 '\(fixture.folder.path)/state/ploopd.db' "UPDATE jobs SET state = 'running',
        finished_at = NULL, job = json_set(job, '$.state', 'running', '$.isCommitted',
        json('\(isCommitted)'), '$.ownsWhatItMakes', json('true'))
        WHERE id = '\(id)'; UPDATE jobs SET job = json_remove(job, '$.finishedAt', '$.result')"
      """)
    try service.start()
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    try fixture.expect("r", holds: "b2")
    #expect(!folder.contains(FileTarget.journal(of: "root.hds")))
    #expect(try service.delete("/v1/devices/r").status == 204)
    try QEMU.expectSound("\(service.images)/r/root.hds")
  }

  /// Does what the service would have done up to some moment.
  private func finish(in folder: ImageFolder, _ moment: Moment) throws {
    let engine = IOEngine(threadLimit: 2, rings: false)
    defer { engine.stop(until: .after(seconds: 20)) }
    let chain = try DirectoryTarget(in: ImageFolder(path: fixture.store)).chain("b1", of: "vm")
    let reader = try PointReader("b2", of: chain)
    let sink = try FileTarget.image("root.hds", in: folder, of: reader.geometry)
    let copy = BackupCopy(from: reader, to: sink, on: engine)
    while try copy.step(limitBytes: 8 << 20) {}
    try copy.commit()
    guard moment != .copied else { return copy.abandon() }
    try copy.finish()
    guard moment == .described else { return }
    try folder.replace(
      Descriptor.fileName, with: Descriptor(new: reader.geometry, file: "root.hds").file)
  }

  @Test("wait for room, also behind kill -9, and take it when it is there")
  func room() throws {
    let small = try SmallFilesystem(in: fixture.folder, "images/small", mebibytes: 20)
    let body =
      #"{"type":"restore","params":{"target":"nas","backup":"b2","to":{"id":"r","directory":"small/r","export":"r"}}}"#
    let refused = try service.post("/v1/jobs", body)
    #expect(refused.code == "insufficient-space", "\(refused.text)")
    try Tool.shell(small.enlarging(byMebibytes: 40))
    let id = try #require(
      try service.post(
        "/v1/jobs", body.dropLast() + ",\"limits\":{\"bps\":4194304}}"
      ).json["id"] as? String)
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    try small.fill()
    _ = try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}")
    try fixture.await(id) {
      (($0["waiting_for"] as? [[String: Any]]) ?? []).contains { $0["kind"] as? String == "space" }
    }
    service.kill()
    try service.start()
    try small.removeFiller()
    try Tool.shell(small.enlarging(byMebibytes: 60))
    #expect(try fixture.end(of: id)["state"] as? String == "succeeded")
    try fixture.expect("r", holds: "b2")
    service.kill()
  }

  @Test("and verify go on with the next point after kill -9")
  func verifyKilled() throws {
    let id = try fixture.job("verify", "\"device\":\"vm\"", ",\"limits\":{\"bps\":16777216}")
    // The first point is looked at, the second one not yet.
    try fixture.await(id) { fixture.doneBytes($0) >= 40 << 20 }
    while try !(fixture.backup("b1")["verified_at"] is String) {}
    service.kill()
    try service.start()
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect((done["progress"] as? [String: Any])?["done_bytes"] as? Int == 43 << 20)
    let log = try fixture.log(of: id)
    #expect(log.contains { $0.contains("1 backups were verified by an earlier attempt") }, "\(log)")
    #expect(try fixture.backup("b2")["verified_at"] is String)
  }
}
