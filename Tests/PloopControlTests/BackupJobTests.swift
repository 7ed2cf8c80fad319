import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("The backup job")
struct BackupJobTests {
  @Test(
    "the first one copies all and says why, and the next ones copy what was written since, and nothing else"
  )
  func increments() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<20)
    let plan = try await bench.fixture.service.planJob(bench.request([:]))
    #expect(plan.mode == "full" && plan.clusters == 20)
    #expect(plan.reason == "the target has no backup of vm")
    let full = try await bench.backup()
    #expect(full["mode_used"] == .text("full"))
    #expect(full["degraded_reason"] == .text("the target has no backup of vm"))
    #expect(full["bytes_read"] == .number(20 << 16) && full["bytes_written"] == .number(20 << 16))
    #expect(full["zero_bytes"] == .number(44 << 16))
    #expect(full["restarted"] == .flag(false))
    #expect(try bench.disk.checkpoints.map(\.name) == ["backup-nas"])
    try bench.write([3, 4, 40])
    try bench.zero([5])
    let read = try bench.disk.statistics().operations[.read]?.bytes ?? 0
    let increment = try await bench.backup()
    #expect(increment["mode_used"] == .text("incremental"))
    #expect(increment["degraded_reason"] == nil)
    // No cluster whose bit is clear was read, and neither was the one that is gone.
    #expect(try bench.disk.statistics().operations[.read]?.bytes == read + 3 << 16)
    #expect(increment["bytes_read"] == .number(3 << 16))
    #expect(increment["bytes_written"] == .number(4 << 16))
    let id = try #require(bench.saved.last?.id)
    let job = try await bench.fixture.service.job(id).record
    #expect(job.progress.totalClusters == 4 && job.progress.doneClusters == 4)
    #expect(job.progress.totalBytes == 4 << 16 && job.progress.doneBytes == 4 << 16)
    let manifest = try bench.manifest(id)
    #expect(manifest.parent == bench.saved[0].id && manifest.checkpoint == "backup-nas")
    let checkpoint = try bench.disk.checkpoint("backup-nas")
    #expect(manifest.nextCheckpoint == "backup-nas")
    #expect(manifest.pointInTime == checkpoint.createdAt && checkpoint.dirtyBytes == 0)
    let nothing = try await bench.backup(["mode": .text("incremental")])
    #expect(nothing["bytes_read"] == .number(0) && nothing["bytes_written"] == .number(0))
    // A full one by its own name, and the checkpoint goes with it.
    try bench.write([60])
    let second = try await bench.backup(["mode": .text("full")])
    #expect(second["mode_used"] == .text("full") && second["degraded_reason"] == nil)
    try bench.write([61])
    #expect(try await bench.backup()["bytes_read"] == .number(1 << 16))
    #expect(try bench.chains.count == 2)
    try bench.expectSaved()
    let events = try await bench.fixture.service.events(
      after: 0, matching: EventFilter(types: [try #require(EventFilter.Pattern("backup.*"))]),
      limit: 1_000)
    #expect(events.items.map(\.subject) == bench.saved.map(\.id))
  }

  @Test(
    "without a checkpoint that belongs to the newest point, all is copied, or an increment refused")
  func distrust() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<4)
    func refused(_ parameters: [String: JobValue] = ["mode": .text("incremental")]) async throws
      -> String?
    {
      do { _ = try await bench.begin(parameters) } catch let error as ServiceError {
        #expect(error.code == .incrementNotPossible && error.remedy != nil)
        return error.detail
      }
      return nil
    }
    #expect(try await refused()?.contains("the target has no backup of vm") == true)
    #expect(
      try await refused([
        "mode": .text("incremental"), "base_checkpoint": .text("other"),
      ])?.contains("the target has no backup of vm") == true)
    try await bench.backup()
    let deadline = Deadline.after(seconds: 600)
    // Lost, and made again by somebody: it is not the one that began with the backup.
    try bench.disk.removeCheckpoint("backup-nas", until: deadline)
    #expect(
      try await refused()?.contains("the disk has no checkpoint backup-nas") == true)
    _ = try bench.disk.makeCheckpoint(
      NewCheckpoint("backup-nas", granularityShift: 16, createdAt: 1), until: deadline)
    #expect(try await refused()?.contains("no chain's newest backup") == true)
    let again = try await bench.backup()
    #expect(again["mode_used"] == .text("full"))
    #expect(
      again["degraded_reason"]
        == .text(
          "no chain's newest backup is the one with which the checkpoint backup-nas began"))
    // The newest point is gone: what the checkpoint misses is in no other.
    try bench.write([9])
    try await bench.backup()
    let (last, model) = bench.saved.removeLast()
    try bench.chain(of: last).remove(last)
    #expect(model == bench.model)
    #expect(try await bench.backup()["mode_used"] == .text("full"))
    // A point that it would build on is damaged.
    let basis = try #require(bench.saved.last?.id)
    let chain = try bench.chain(of: basis)
    try Tool.shell("rm '\(bench.fixture.images)/backups/vm/\(basis)/\(basis).sums'")
    #expect(try chain.points().last?.state != .whole)
    #expect(try await refused()?.contains("is damaged") == true)
    _ = bench.saved.popLast()
    #expect(try await bench.backup()["mode_used"] == .text("full"))
    try bench.expectSaved()
  }

  @Test("a chain that cannot be read when it is built on is left, and all is copied")
  func corrupted() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<4)
    try await bench.backup()
    let (id, _) = bench.saved.removeLast()
    // Its files are there, so it is only seen when they are read.
    try Tool.shell(
      "printf 'x' | dd of='\(bench.fixture.images)/backups/vm/\(id)/\(id).sums' bs=1 seek=40 conv=notrunc 2> /dev/null"
    )
    let result = try await bench.backup()
    #expect(result["mode_used"] == .text("full"))
    guard case .text(let reason)? = result["degraded_reason"] else {
      Issue.record("no reason")
      return
    }
    #expect(reason.contains("\(id).sums"), "\(reason)")
    #expect(try bench.disk.checkpoints.map(\.name) == ["backup-nas"])
    try bench.expectSaved()
  }

  @Test("checkpoints that somebody names are begun and kept, and increments build on them")
  func named() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<4)
    try await bench.backup(["new_checkpoint": .text("monday")])
    try bench.write([7])
    let result = try await bench.backup([
      "base_checkpoint": .text("monday"), "new_checkpoint": .text("tuesday"),
    ])
    #expect(result["mode_used"] == .text("incremental") && result["bytes_read"] == .number(1 << 16))
    #expect(try bench.disk.checkpoints.map(\.name) == ["monday", "tuesday"])
    #expect(
      try await bench.fixture.code { service in
        _ = try await service.addJob(
          bench.request(["new_checkpoint": .text("monday")]), keeping: nil)
      } == "checkpoint-exists")
    try bench.expectSaved()
  }

  @Test("after the disk has grown an increment has the larger disk")
  func grown() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<4)
    try await bench.backup()
    let larger = UInt64(80 << 16)
    if case .job(let job) = try await bench.fixture.service.resize(
      "vm", to: larger, ifRevision: nil)
    {
      #expect(try await bench.end(of: job.record.id).state == .succeeded)
    }
    bench.grown(to: 80)
    try bench.write([70, 79])
    let result = try await bench.backup()
    #expect(result["mode_used"] == .text("incremental") && result["bytes_read"] == .number(2 << 16))
    try bench.expectSaved()
  }

  @Test("a snapshot is copied as it is, the top is not touched, and nothing is begun on it")
  func snapshot() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<8)
    let state = bench.model
    let guid = try await bench.fixture.snapshot("vm")
    try bench.write(0..<3)
    let job = try await bench.end(
      of: bench.begin(["snapshot": .text(guid.description)]))
    #expect(job.state == .succeeded)
    #expect(job.result?["mode_used"] == .text("full"))
    #expect(job.result?["degraded_reason"] == .text("the target has no backup of vm"))
    #expect(try bench.content(job.id) == state)
    #expect(try bench.manifest(job.id).snapshot == guid.description)
    #expect(try bench.disk.checkpoints.isEmpty)
    #expect(try await bench.fixture.service.job(job.id).isResumable)
    // Until the backup is durable it has a longer one.
    let long = String(repeating: "x", count: Names.lengthLimit)
    for (parameters, code) in [
      (["snapshot": .text("00000000-0000-0000-0000-000000000001")], "snapshot-not-found"),
      (["snapshot": .text(guid.description), "new_checkpoint": .text("x")], "invalid-value"),
      (["target": .text("none")], "target-not-found"),
      (["mode": .text("some")], "invalid-value"),
      (["spill": .object(["max_bytes": .number(1)])], "value-impossible"),
      (["base_checkpoint": .text(long), "new_checkpoint": .text(long)], "value-impossible"),
      (["spill": .object(["path": .text("../x")])], "path-outside-root"),
      (["spill": .object(["bytes": .number(1)])], "unknown-field"),
    ] as [([String: JobValue], String)] {
      #expect(
        try await bench.fixture.code { _ in _ = try await bench.begin(parameters) } == code,
        "\(parameters)")
    }
    // Its files are free again.
    try await bench.backup()
    try bench.expectSaved()
  }

  @Test("a file is a whole copy each time, and no checkpoint is kept for it")
  func file() async throws {
    let bench = try await BackupServiceBench()
    try await bench.target("one", .file(path: "main:copies/vm.raw", format: .raw))
    try bench.write([0, 5, 63])
    let job = try await bench.end(of: bench.begin(["target": .text("one")]))
    #expect(job.state == .succeeded)
    #expect(job.result?["mode_used"] == .text("full") && job.result?["backup"] == .text(job.id))
    #expect(job.result?["bytes_read"] == .number(3 << 16))
    #expect(job.result?["bytes_written"] == .number(3 << 16))
    #expect(try bench.disk.checkpoints.isEmpty)
    let file = try ImageFolder(path: "\(bench.fixture.images)/copies").open(
      "vm.raw", writable: false)
    let buffer = AlignedBuffer(count: 64 << 16)
    try file.readOrZero(into: buffer.region, at: 0)
    #expect(buffer.region.bytes == (try bench.disk.bytes(0, 64 << 16)))
    // What is there is nobody's to write over.
    let again = try await bench.end(of: bench.begin(["target": .text("one")]))
    #expect(again.state == .failed && again.error?.code == "image-exists")
    #expect(
      try await bench.fixture.code { _ in
        _ = try await bench.begin(["target": .text("one"), "mode": .text("incremental")])
      } == "increment-not-possible")
  }

  @Test(
    "while it copies, snapshots are taken and guests write; another backup, and what moves clusters, waits or is refused"
  )
  func beside() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let state = bench.model
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    try bench.write(stride(from: 63, to: 0, by: -5))
    _ = try await bench.fixture.snapshot("vm")
    try bench.write(stride(from: 62, to: 0, by: -5))
    for (code, call) in [
      (
        "device-busy", { _ = try await $0.startPushBackup("vm", PushBackupRequest(), keeping: nil) }
      ),
      ("device-busy", { _ = try await $0.startTracking("vm", .virtual, keeping: nil) }),
      ("device-busy", { try await $0.detach("vm", mode: .safe, ifRevision: nil) }),
      ("checkpoint-in-use", { try await $0.removeCheckpoint("vm", "new-backup-nas") }),
    ] as [(String, (Service) async throws -> Void)] {
      #expect(try await bench.fixture.code(call) == code)
    }
    let second = try await bench.begin()
    let waiting = try await bench.await(second) { !$0.waitingFor.isEmpty }
    #expect(waiting.waitingFor.first?.id == id)
    try await bench.release(id)
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded)
    guard case .number(let spilled)? = job.result?["spilled_bytes"] else {
      Issue.record("no spilled_bytes")
      return
    }
    #expect(spilled > 0)
    #expect(try bench.content(id) == state)
    #expect(try await bench.end(of: second).result?["mode_used"] == .text("incremental"))
    #expect(try bench.content(second) == bench.model)
  }

  @Test(
    "paused it waits, with guests undisturbed; cancelled it leaves neither a point nor a checkpoint"
  )
  func cancelled() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    var change = JobChange()
    change.isPaused = true
    _ = try await bench.fixture.service.changeJob(id, change, ifRevision: nil)
    _ = try await bench.await(id) { $0.record.state == .paused }
    try bench.write(40..<64)
    #expect(try bench.disk.checkpoints.map(\.name) == ["new-backup-nas"])
    #expect(try bench.chain(of: id).points().map(\.state) == [.partial])
    _ = try await bench.fixture.service.cancelJob(id, ifRevision: nil)
    #expect(try await bench.end(of: id).state == .cancelled)
    #expect(try bench.disk.checkpoints.isEmpty)
    #expect(throws: Tool.Failure.self) { try bench.chain(of: id) }
    try await bench.backup()
    try bench.expectSaved()
  }

  @Test("a disk that is suspended is copied on when it is resumed, as it was at the same instant")
  func suspended() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let state = bench.model
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    var change = DeviceChange()
    change.suspended = true
    _ = try await bench.fixture.service.change("vm", change, ifRevision: nil)
    try await bench.release(id)
    let waiting = try await bench.await(id) { !$0.waitingFor.isEmpty }
    #expect(waiting.waitingFor.first?.detail == "vm is suspended")
    #expect(waiting.record.state == .running)
    change.suspended = false
    _ = try await bench.fixture.service.change("vm", change, ifRevision: nil)
    try bench.write(50..<64)
    let job = try await bench.end(of: id)
    #expect(job.interruptions == 0 && job.result?["restarted"] == .flag(false))
    #expect(job.state == .succeeded, "\(String(describing: job.error))")
    #expect(try bench.content(id) == state)
  }

  @Test("what was not there at the instant is not read, whatever guests do there meanwhile")
  func holes() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<8)
    let state = bench.model
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    try bench.write([40])
    try bench.zero([50, 60])
    try await bench.release(id)
    let job = try await bench.end(of: id)
    #expect(job.result?["bytes_read"] == .number(8 << 16))
    #expect(try bench.content(id) == state)
  }

  @Test("no target's checkpoint is called as one that another target's backup has begun")
  func names() {
    for name in ["nas", "nas.new", "new-nas"] {
      let working = BackupCheckpoints(keptFor: BackupDestination(target: name)).working ?? ""
      #expect(BackupCheckpoints.target(of: working) == nil, "\(working)")
    }
  }
}
