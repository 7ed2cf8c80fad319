import Foundation
import PloopIO
import TestSupport
import Testing

@Suite("Checkpoints, and backups of what was written since one")
struct CheckpointTests {
  private let folder: TemporaryFolder
  private let service: RunningService
  private let path = "/v1/devices/vm/checkpoints"
  private let backup = "/v1/devices/vm/push-backup"
  private static let kibibyte = 1 << 10
  private static let diskBytes = 64 << 20

  init() throws {
    folder = try TemporaryFolder()
    service = try RunningService(in: folder.path)
    #expect(
      try service.create("vm", sizeBytes: Self.diskBytes, clusterBytes: 1 << 18).status == 201)
    try write(1, "0 5M")
  }

  private func write(_ pattern: Int, _ place: String) throws {
    try Tool.shell("qemu-io -f raw -c 'write -P \(pattern) \(place)' '\(service.uri("vm"))'")
  }

  private func make(_ name: String, _ more: String = "") throws {
    let reply = try service.post(path, "{\"name\":\"\(name)\"\(more)}")
    #expect(reply.status == 201, "\(reply.text)")
    #expect(reply.json["dirty_bytes"] as? Int == 0)
  }

  /// Runs of KiB that may have been written since.
  private func extents(_ name: String) throws -> [Range<Int>] {
    let reply = try service.get("\(path)/\(name)/bitmap")
    let found = try #require(reply.json["extents"] as? [[String: Int]], "\(reply.text)")
    return try found.map { extent in
      let start = try #require(extent["start"]) / Self.kibibyte
      return start..<start + (try #require(extent["length"])) / Self.kibibyte
    }
  }

  /// The same as NBD clients see it.
  private func mapped(_ name: String, _ uri: String) throws -> [Range<Int>] {
    let map = try Tool.shell("nbdinfo --map='qemu:dirty-bitmap:\(name)' '\(uri)'").output
    return try map.split(separator: "\n").compactMap { line in
      let words = line.split(whereSeparator: \.isWhitespace)
      guard words.count > 2, words[2] != "0" else { return nil }
      let start = try #require(Int(words[0])) / Self.kibibyte
      return start..<start + (try #require(Int(words[1]))) / Self.kibibyte
    }
  }

  /// The same as QEMU's clients see it: there what was written is what is no data.
  private func mappedByQEMU(_ name: String) throws -> [Range<Int>] {
    let options =
      "driver=nbd,server.type=unix,server.path=\(service.nbdSocket),export=vm,x-dirty-bitmap=qemu:dirty-bitmap:\(name)"
    let map = try Tool.shell("qemu-img map --output=json --image-opts '\(options)'").output
    let runs = try #require(
      try JSONSerialization.jsonObject(with: Data(map.utf8)) as? [[String: Any]])
    return try runs.compactMap { run in
      guard run["data"] as? Bool == false else { return nil }
      let start = try #require(run["start"] as? Int) / Self.kibibyte
      return start..<start + (try #require(run["length"] as? Int)) / Self.kibibyte
    }
  }

  private func reason(_ name: String) throws -> String? {
    let reply = try service.get("\(path)/\(name)")
    #expect((reply.json["consistent"] as? Bool) == (reply.json["reason"] as? String == nil))
    return reply.json["reason"] as? String
  }

  @Test("a bitmap that would be too large is refused, and a larger granularity is not")
  func tooLarge() throws {
    #expect(
      try service.create("huge", sizeBytes: 4 << 40, clusterBytes: 64 << 20).status == 201)
    let path = "/v1/devices/huge/checkpoints"
    let fine = try service.post(path, "{\"name\":\"fine\",\"granularity\":4096}")
    #expect(fine.status == 422 && fine.code == "checkpoint-unsupported", "\(fine.text)")
    #expect(try service.post(path, "{\"name\":\"coarse\",\"granularity\":1048576}").status == 201)
  }

  @Test("what was written is what nbdinfo sees, through snapshots, merges and restarts")
  func life() throws {
    try make("one", ",\"granularity\":65536")
    #expect(try service.post(path, "{\"name\":\"one\"}").code == "checkpoint-exists")
    #expect(try service.post(path, "{\"name\":\"x\",\"granularity\":5000}").code == "invalid-value")
    try write(2, "1M 64k")
    try write(3, "20M 4k")
    let first = [1024..<1088, 20_480..<20_544]
    #expect(try extents("one") == first)
    #expect(try mapped("one", service.uri("vm")) == first)
    #expect(try mappedByQEMU("one") == first)
    let snapshot = try service.post("/v1/devices/vm/snapshots", "{\"checkpoint\":\"two\"}")
    #expect(snapshot.status == 201, "\(snapshot.text)")
    #expect(try extents("two") == [])
    try write(4, "40M 128k")
    let second = [40_960..<41_216]
    #expect(try extents("two") == second)
    #expect(try extents("one") == first + [40_960..<41_088])
    #expect(try service.get("\(path)/two").json["parent"] as? String == "one")
    let guid = try #require(snapshot.json["uuid"] as? String)
    let merged = try service.call(
      "DELETE", "/v1/devices/vm/snapshots/\(guid.dropFirst().dropLast())", nil, ["Prefer: wait=60"])
    #expect(merged.status == 200, "\(merged.text)")
    #expect(try service.end() == 0)
    try service.start()
    #expect(try extents("one") == first + [40_960..<41_088])
    #expect(try mapped("two", service.uri("vm")) == second)
    #expect(try service.delete("\(path)/one").status == 204)
    #expect(try service.get("\(path)/one").code == "checkpoint-not-found")
    let device = try service.get("/v1/devices/vm")
    #expect(device.json["checkpoints"] as? [String] == ["two"])
    let events = try service.get("/v1/events?types=checkpoint.*").text
    #expect(events.contains("checkpoint.created") && events.contains("checkpoint.deleted"))
  }

  @Test("kill -9 costs at most the rest of each region that was written, and no bit")
  func killed() throws {
    try make("one", ",\"granularity\":4096")
    try write(2, "1M 4k")
    try write(3, "33M 4k")
    service.kill()
    try service.start()
    #expect(try reason("one") == nil)
    // Regions of 64 KiB.
    #expect(try extents("one") == [1024..<1088, 33_792..<33_856])
    try write(4, "50M 4k")
    #expect(try extents("one").last == 51_200..<51_204)
    #expect(try service.end() == 0)
    try service.start()
    #expect(try extents("one").last == 51_200..<51_204)
  }

  @Test("kill -9 under a writer: whatever differs from the copy of the instant is covered")
  func killedWhileWriting() throws {
    let (before, after) = ("\(folder.path)/before", "\(folder.path)/after")
    for round in 0..<5 {
      let name = "round-\(round)"
      try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(before)'")
      try make(name, ",\"granularity\":4096")
      if round % 2 == 1 {
        // Until then its bits are exact.
        #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
      }
      let writer = try ChildProcess(
        [
          "/bin/sh", "-c",
          "exec fio --name=w --ioengine=nbd --uri='\(service.uri("vm"))' --rw=randrw --bs=4k-64k --iodepth=8 --size=64M --time_based --runtime=600 --randseed=\(round) --fsync=32",
        ], output: "/dev/null", errors: "\(folder.path)/fio")
      while try service.get("\(path)/\(name)").json["dirty_bytes"] as? Int == 0 {}
      for _ in 0..<round { _ = try service.get("/v1/devices/vm") }
      service.kill()
      writer.end()
      try service.start()
      #expect(try reason(name) == nil)
      try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(after)'")
      let differing = try Tool.shell(
        """
        python3 -c '
        a, b = open("\(before)", "rb").read(), open("\(after)", "rb").read()
        print(*[i for i in range(0, len(a), 4096) if a[i:i + 4096] != b[i:i + 4096]])'
        """
      ).output.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
      let covered = try extents(name)
      for place in differing.map({ $0 / Self.kibibyte }) {
        #expect(covered.contains { $0.contains(place) }, "round \(round), KiB \(place)")
      }
      try Tool.shell("rm '\(before)' '\(after)'")
    }
  }

  @Test("the depth of deltas is what a client of QEMU's sees")
  func depth() throws {
    #expect(try service.post("/v1/devices/vm/snapshots", "{}").status == 201)
    try write(2, "1M 256k")
    let map = try Tool.shell(
      "nbdinfo --map=qemu:allocation-depth '\(service.uri("vm"))'"
    ).output.split(separator: "\n").map {
      $0.split(whereSeparator: \.isWhitespace).prefix(3).joined(separator: " ")
    }
    #expect(
      map == [
        "0 1048576 2", "1048576 262144 1", "1310720 3932160 2", "5242880 61865984 0",
      ])
    let both = try Tool.shell(
      "nbdinfo --map=base:allocation '\(service.uri("vm"))'; nbdinfo --list --json '\(service.uri(""))'"
    ).output
    #expect(both.contains("qemu:allocation-depth"))
  }

  private func start(_ body: String) throws -> RunningService.Reply {
    let reply = try service.post(backup, "{\"uuid\":\"b\",\"on_deadline\":\"wait\",\(body)}")
    #expect(reply.status == 201, "\(reply.text)")
    return reply
  }

  private func stop(_ outcome: String) throws -> RunningService.Reply {
    try service.delete("\(backup)?uuid=b&outcome=\(outcome)")
  }

  @Test("a backup of what was written since makes the copy of before the disk of now")
  func incremental() throws {
    try make("one")
    let copy = "\(folder.path)/copy"
    try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(copy)'")
    try write(2, "1M 4k")
    try write(3, "30M 1M")
    let started = try start("\"clusters\":{\"since_checkpoint\":\"one\"},\"checkpoint\":\"two\"")
    #expect(started.json["mode"] as? String == "incremental")
    #expect(started.json["clusters_total"] as? Int == 5)
    #expect(try service.get("\(path)/one").json["used_by"] as? [String] == ["b"])
    #expect(try service.delete("\(path)/one").code == "checkpoint-in-use")
    #expect(try service.delete("\(path)/two").code == "checkpoint-in-use")
    try Tool.shell("nbdcopy '\(service.uri("vm"))' '\(folder.path)/now'")
    let frozen = try mapped("one", service.uri("vm@backup"))
    #expect(frozen == [1024..<1280, 30_720..<31_744])
    for run in frozen {
      try Tool.shell(
        """
        curl -sS -f --unix-socket '\(service.httpSocket)' -H 'Range: bytes=\(run.lowerBound << 10)-\(run.upperBound << 10 - 1)' \
          -o '\(folder.path)/part' 'http://localhost\(backup)/data?uuid=b'
        dd status=none if='\(folder.path)/part' of='\(copy)' bs=1k seek=\(run.lowerBound) conv=notrunc
        """)
    }
    let done = try service.post(
      "\(backup)/confirm", "{\"uuid\":\"b\",\"ranges\":[{\"cluster\":0,\"count\":256}]}")
    #expect(done.json["remaining"] as? Int == 0, "\(done.text)")
    try write(5, "60M 4k")
    #expect(try stop("complete").json["checkpoint"] as? String == "two")
    try expectSameBytes(copy, "\(folder.path)/now", "the copy")
    #expect(try extents("two") == [61_440..<61_696])
    // One that is aborted, and one that a crash ends, leave no checkpoint.
    _ = try start("\"clusters\":{\"since_checkpoint\":\"two\"},\"checkpoint\":\"three\"")
    #expect(try stop("abort").status == 200)
    _ = try start("\"clusters\":{\"since_checkpoint\":\"two\"},\"checkpoint\":\"four\"")
    service.kill()
    try service.start()
    let left = try service.get("/v1/devices/vm").json["checkpoints"] as? [String]
    #expect(left == ["one", "two"])
  }

  @Test("where a disk went back to a snapshot its checkpoints say why, and backups are full ones")
  func inconsistent() throws {
    let snapshot = try service.post("/v1/devices/vm/snapshots", "{}")
    let guid = try #require(snapshot.json["uuid"] as? String).dropFirst().dropLast()
    try make("one")
    try write(2, "1M 4k")
    let back = try service.post(
      "/v1/devices/vm/snapshots/\(guid)/switch", "{\"discard_top\":true}")
    #expect(back.status == 200, "\(back.text)")
    #expect(try reason("one")?.contains("went back to the snapshot") == true)
    #expect(try extents("one") == [0..<Self.diskBytes / Self.kibibyte])
    let started = try start("\"clusters\":{\"since_checkpoint\":\"one\"}")
    #expect(started.json["mode"] as? String == "full")
    #expect((started.json["full_reason"] as? String)?.contains("went back") == true)
    #expect(started.json["clusters_total"] as? Int == 256)
    #expect(try stop("abort").status == 200)
    // Another program writes the image while nobody has it open.
    try make("two")
    #expect(try service.end() == 0)
    let chain = try Tool.shell("ls -t '\(service.images)/vm'/*.hds | head -1").output
    let top = try #require(chain.split(separator: "\n").first)
    try Tool.shell("touch '\(top)'")
    try service.start()
    #expect(try reason("two")?.contains("not what they were") == true)
    try make("three")
    #expect(try reason("three") == nil)
  }

  @Test("bitmaps in the image are those that QEMU reads, and come back without the file beside it")
  func inImage() throws {
    let name = "6f2b1e0a-0a52-4d5f-9d2c-7a1f5d2b9c01"
    let other = try service.create(
      "other", sizeBytes: Self.diskBytes, clusterBytes: 1 << 16, ",\"bitmaps_in_image\":true")
    #expect(other.status == 201, "\(other.text)")
    let made = try service.post(
      "/v1/devices/other/checkpoints", "{\"name\":\"\(name)\",\"granularity\":65536}")
    #expect(made.status == 201, "\(made.text)")
    try Tool.shell(
      "qemu-io -f raw -c 'write -P 3 3M 100k' -c 'write -P 4 40M 1M' '\(service.uri("other"))'")
    let wanted = [3072..<3200, 40_960..<41_984]
    #expect(try mapped(name, service.uri("other")) == wanted)
    #expect(try service.delete("/v1/devices/other").status == 204)
    let image = "\(service.images)/other/root.hds"
    let socket = "\(folder.path)/qemu.sock"
    let qemu = try ChildProcess(
      [
        "/usr/bin/qemu-nbd", "-r", "-f", "parallels", "--bitmap=\(name)", "-k", socket, image,
      ], output: "/dev/null", errors: "\(folder.path)/qemu.log")
    let deadline = Deadline.after(seconds: 60)
    while (try? Tool.shell("test -S '\(socket)'")) == nil, qemu.isRunning, !deadline.hasPassed {}
    #expect(try mapped(name, "nbd+unix://?socket=\(socket)") == wanted)
    qemu.end()
    try Tool.shell("rm '\(image).checkpoints'")
    #expect(try service.attach("other", ["other/root.hds"]).status == 201)
    #expect(try mapped(name, service.uri("other")) == wanted)
  }
}
