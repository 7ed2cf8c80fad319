import Foundation
import PloopBackup
import PloopFormat
import PloopIO
import TestSupport
import Testing

@Suite("Disks that are restored in place")
struct RestoreIntoTests {
  private let fixture: BackupFixture
  private var service: RunningService { fixture.service }
  private let path = "main:vm/DiskDescriptor.xml"

  init() throws {
    fixture = try BackupFixture()
    try fixture.storeTwo()
  }

  private func names() throws -> [String] {
    try ImageFolder(path: "\(service.images)/vm").names().sorted()
  }

  /// The files that the disk's descriptor names, oldest first.
  private func files() throws -> [String] {
    let bytes = try ImageFolder(path: "\(service.images)/vm")
      .bytes(of: Descriptor.fileName, limit: 1 << 20)
    let descriptor = try Descriptor(parsing: bytes)
    return try descriptor.chain(to: descriptor.topGUID).map(\.file)
  }

  private func restore(_ backup: String, _ more: String = "") throws -> String {
    try fixture.job(
      "restore", "\"backup\":\"\(backup)\",\"into\":\"vm/DiskDescriptor.xml\"", more)
  }

  private func code(_ backup: String, into path: String = "vm/DiskDescriptor.xml") throws -> String?
  {
    try service.post(
      "/v1/jobs",
      "{\"type\":\"restore\",\"params\":{\"target\":\"nas\",\"backup\":\"\(backup)\",\"into\":\"\(path)\"}}"
    ).code
  }

  /// Has it a snapshot of what `b2` holds, and something else above.
  ///
  /// - Returns: the snapshot's name.
  private func takeSnapshot() throws -> String {
    try fixture.attach()
    let made = try service.post("/v1/devices/vm/snapshots", #"{"name":"s"}"#)
    let guid = try #require(made.json["uuid"] as? String)
    try Tool.shell(
      "qemu-io -f raw -c 'write -P 33 2M 2M' -c 'write -P 34 46M 1M' -c flush '\(service.uri("vm"))'"
    )
    #expect(try service.delete("/v1/devices/vm").status == 204)
    return guid
  }

  @Test("hold the point byte for byte, and nothing that was there before is left")
  func plain() throws {
    try fixture.attach()
    #expect(try service.post("/v1/devices/vm/checkpoints", #"{"name":"one"}"#).status == 201)
    #expect(try code("b1") == "image-in-use")
    #expect(try service.delete("/v1/devices/vm").status == 204)
    let id = try restore("b1")
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(done["device"] is NSNull)
    let result = done["result"] as? [String: Any]
    #expect(result?["descriptor"] as? String == path)
    #expect(result?["clusters_copied"] as? Int == 640)
    let top = try #require(try files().first)
    #expect(
      try names() == [
        "DiskDescriptor.xml", "DiskDescriptor.xml.lck", top, "\(top).checkpoints",
      ])
    try QEMU.expectSound("\(service.images)/vm/\(top)")
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
    try fixture.attach()
    try fixture.expect("vm", holds: "b1")
    let one = try service.get("/v1/devices/vm/checkpoints/one").json
    #expect(one["consistent"] as? Bool == false)
    #expect((one["reason"] as? String)?.contains("restored from the backup b1") == true, "\(one)")
    // It can be done again, and back.
    #expect(try service.delete("/v1/devices/vm").status == 204)
    #expect(try fixture.end(of: try restore("b2"))["state"] as? String == "succeeded")
    try fixture.attach()
    try fixture.expect("vm", holds: "b2")
  }

  @Test(
    "keep their snapshots, of which nothing shines through, whatever their top is",
    arguments: [false, true])
  func snapshots(isTopDamaged: Bool) throws {
    let guid = try takeSnapshot()
    let old = try #require(try files().last)
    if isTopDamaged {
      try Tool.shell(
        "dd if=/dev/zero of='\(service.images)/vm/\(old)' bs=4096 count=1 conv=notrunc 2>&1")
    }
    let done = try fixture.end(of: try restore("b1"))
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(try !names().contains(old))
    #expect(try files().count == 2)
    try OpenVZ.run("cd '\(service.images)/vm' && ploop check DiskDescriptor.xml")
    try fixture.attach()
    try fixture.expect("vm", holds: "b1")
    let snapshot = try service.post(
      "/v1/devices",
      "{\"id\":\"s\",\"descriptor\":\"\(path)\",\"at\":\"\(guid)\",\"export\":{\"name\":\"s\"}}")
    #expect(snapshot.status == 201, "\(snapshot.text)")
    try fixture.expect("s", holds: "b2")
    // It is a chain like any other.
    #expect(try service.delete("/v1/devices/s").status == 204)
    let merge = try service.call(
      "POST", "/v1/jobs", #"{"type":"merge","device":"vm"}"#, ["Prefer: wait=60"])
    #expect(merge.json["state"] as? String == "succeeded", "\(merge.text)")
    try fixture.expect("vm", holds: "b1")
  }

  @Test("are refused what they cannot hold, and what somebody has, and stay as they were")
  func refusals() throws {
    let before = try names()
    #expect(try code("b9") == "backup-not-found")
    #expect(try code("b1", into: "../vm/DiskDescriptor.xml") == "path-outside-root")
    #expect(try code("b1", into: "none/DiskDescriptor.xml") == "image-not-found")
    let both =
      #"{"type":"restore","params":{"target":"nas","backup":"b1","into":"vm/DiskDescriptor.xml","to":{"id":"r","directory":"r"}}}"#
    #expect(try service.post("/v1/jobs", both).code == "invalid-value")
    #expect(
      try service.create("wide", sizeBytes: 48 << 20, clusterBytes: 1 << 20).status == 201)
    #expect(try service.delete("/v1/devices/wide").status == 204)
    #expect(try code("b1", into: "wide/DiskDescriptor.xml") == "backup-mismatch")
    // A snapshot of a larger disk lies below.
    #expect(
      try service.create("large", sizeBytes: 64 << 20, clusterBytes: 1 << 16).status == 201)
    #expect(try service.post("/v1/devices/large/snapshots", "{}").status == 201)
    #expect(try service.delete("/v1/devices/large").status == 204)
    #expect(try code("b1", into: "large/DiskDescriptor.xml") == "geometry-mismatch")
    // Another program has it open.
    let image = "\(service.images)/vm/root.hds"
    let folder = try ImageFolder(path: "\(service.images)/vm")
    let file = try folder.open("root.hds", writable: true)
    try ImageLock.acquire(file, for: .write)
    let failed = try fixture.end(of: try restore("b1"))
    #expect((failed["error"] as? [String: Any])?["code"] as? String == "image-in-use", "\(failed)")
    ImageLock.release(file)
    #expect(try names() == before)
    // A damaged point: what was there stays.
    try Tool.shell(
      "printf '\\x01' | dd of='\(fixture.chain)/b1.hds' bs=1 seek=$((65536 * 37 + 5)) conv=notrunc 2>&1"
    )
    let corrupt = try fixture.end(of: try restore("b1"))
    #expect((corrupt["error"] as? [String: Any])?["code"] as? String == "backup-corrupt")
    #expect(try names() == before)
    try Tool.shell("qemu-img compare -f parallels -F raw '\(image)' '\(fixture.raw("b2"))'")
  }

  @Test("belong to their job from the request on, go on after kill -9, and are whole then")
  func killed() throws {
    _ = try takeSnapshot()
    let id = try restore("b1", ",\"limits\":{\"bps\":8388608}")
    try fixture.await(id) { fixture.doneBytes($0) >= 20 << 20 }
    // Not by its files either.
    let named = try service.attach("x", files().map { "vm/\($0)" })
    #expect(named.code == "image-in-use", "\(named.text)")
    #expect((named.json["holder"] as? [String: String])?["id"] == id)
    #expect(try service.patch("/v1/queue", "{\"paused\":true}").status == 200)
    service.kill()
    try service.start()
    let refused = try service.post("/v1/devices", "{\"id\":\"x\",\"descriptor\":\"\(path)\"}")
    #expect(refused.code == "image-in-use", "\(refused.text)")
    #expect((refused.json["holder"] as? [String: String])?["id"] == id)
    #expect(try code("b2") == "image-in-use")
    #expect(try service.patch("/v1/jobs/\(id)", "{\"limits\":{\"bps\":0}}").status == 200)
    #expect(try service.patch("/v1/queue", "{\"paused\":false}").status == 200)
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    let log = try fixture.log(of: id)
    #expect(log.contains { $0.contains("goes on at cluster ") }, "\(log)")
    try fixture.attach()
    try fixture.expect("vm", holds: "b1")
  }

  @Test("are as they were when the job is cancelled, also after kill -9", arguments: [false, true])
  func cancelled(isKilled: Bool) throws {
    let before = try names()
    let id = try restore("b1", ",\"limits\":{\"bps\":4194304}")
    try fixture.await(id) { fixture.doneBytes($0) >= 8 << 20 }
    #expect(try names().count > before.count)
    if isKilled {
      #expect(try service.patch("/v1/queue", "{\"paused\":true}").status == 200)
      service.kill()
      try service.start()
    }
    let ended = try service.call("POST", "/v1/jobs/\(id)/cancel", nil, ["Prefer: wait=60"])
    #expect(ended.json["state"] as? String == "cancelled", "\(ended.text)")
    #expect(try names() == before)
    try fixture.attach()
    try fixture.expect("vm", holds: "b2")
  }

  /// What lies there when the service is killed behind the last copied cluster.
  enum Moment: CaseIterable {
    case copied, closed, replaced
  }

  @Test("come to their end after kill -9 at any moment of it", arguments: Moment.allCases)
  func killedAtTheEnd(moment: Moment) throws {
    let id = try restore("b1", ",\"limits\":{\"bps\":4194304}")
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    let journal = try #require(try names().first { $0.hasSuffix(".sums") })
    let image = String(journal.dropLast(5))
    service.kill()
    try finish(image, moment)
    // As the job's own record says behind its commit.
    try Tool.shell(
      """
      sqlite3 '\(fixture.folder.path)/state/ploopd.db' "UPDATE jobs
        SET job = json_set(job, '$.isCommitted', json('true')) WHERE id = '\(id)'"
      """)
    try service.start()
    let done = try fixture.end(of: id)
    #expect(done["state"] as? String == "succeeded", "\(done)")
    #expect(try names() == ["DiskDescriptor.xml", "DiskDescriptor.xml.lck", image])
    try fixture.attach()
    try fixture.expect("vm", holds: "b1")
  }

  @Test("are left alone where what lies below them is not what was copied over")
  func otherChain() throws {
    let guid = try takeSnapshot()
    let before = try names()
    let id = try restore("b1", ",\"limits\":{\"bps\":4194304}")
    try fixture.await(id) { fixture.doneBytes($0) > 0 }
    let journal = try #require(try names().first { $0.hasSuffix(".sums") })
    service.kill()
    // Its image lies over nothing.
    try finish(String(journal.dropLast(5)), .closed)
    try service.start()
    let failed = try fixture.end(of: id)
    #expect(
      (failed["error"] as? [String: Any])?["code"] as? String == "geometry-mismatch", "\(failed)")
    #expect(try names() == before)
    let snapshot = try service.post(
      "/v1/devices",
      "{\"id\":\"s\",\"descriptor\":\"\(path)\",\"at\":\"\(guid)\",\"export\":{\"name\":\"s\"}}")
    #expect(snapshot.status == 201, "\(snapshot.text)")
    try fixture.expect("s", holds: "b2")
  }

  /// Does what the service would have done up to some moment.
  private func finish(_ image: String, _ moment: Moment) throws {
    let folder = try ImageFolder(path: "\(service.images)/vm")
    let engine = IOEngine(threadLimit: 2, rings: false)
    defer { engine.stop(until: .after(seconds: 20)) }
    let chain = try DirectoryTarget(in: ImageFolder(path: fixture.store)).chain("b1", of: "vm")
    let reader = try PointReader("b1", of: chain)
    let sink = try FileTarget.image(image, in: folder, of: reader.geometry)
    let copy = BackupCopy(from: reader, to: sink, on: engine)
    while try copy.step(limitBytes: 8 << 20) {}
    try copy.commit()
    guard moment != .copied else { return copy.abandon() }
    try copy.finish()
    guard moment == .replaced else { return }
    var descriptor = try Descriptor(parsing: folder.bytes(of: Descriptor.fileName, limit: 1 << 20))
    try folder.replace(
      "\(Descriptor.fileName).intent",
      with: Array(
        """
        {"device":"job","files":["root.hds"],"formerFile":"root.hds","operation":"restore",
        "snapshot":"\(descriptor.topGUID)"}
        """.utf8))
    try descriptor.replaceFile(of: descriptor.topGUID, by: image)
    try folder.replace(Descriptor.fileName, with: descriptor.file)
  }
}
