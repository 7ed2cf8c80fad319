import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("The backup job, interrupted")
struct BackupInterruptionTests {
  @Test("of a live disk it begins anew, at a new instant, and says so")
  func live() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    try bench.fixture.stop()
    try await bench.fixture.restart()
    try bench.write(3..<6)
    try await bench.release(id)
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded && job.interruptions == 1)
    #expect(job.result?["restarted"] == .flag(true))
    #expect(job.progress.doneBytes == 64 << 16)
    #expect(try bench.disk.checkpoints.map(\.name) == ["backup-nas"])
    let manifest = try bench.manifest(id)
    #expect(manifest.pointInTime == (try bench.disk.checkpoint("backup-nas").createdAt))
    // The instant is one of the second life, perhaps while those three were written.
    let content = try bench.content(id)
    #expect(Array(content[6...]) == Array(bench.model[6...]))
    try bench.write([0])
    #expect(try await bench.backup()["mode_used"] == .text("incremental"))
    try bench.expectSaved()
  }

  @Test("a checkpoint that was removed, or made anew, before the instant is no basis any more")
  func replacedBasis() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<8)
    try await bench.backup()
    let (service, disk) = (try bench.fixture.service, try bench.disk)
    let controller = try service.controller("vm")
    let basis = BaseCheckpoint(try disk.checkpoint("backup-nas"))
    let job = try BackupJob(["target": .text("nas")], device: "vm")
    for isMadeAnew in [false, true] {
      if isMadeAnew {
        _ = try disk.makeCheckpoint(
          NewCheckpoint("backup-nas", granularityShift: 16, createdAt: wallClockSeconds()),
          until: .after(seconds: 600))
      } else {
        try disk.removeCheckpoint("backup-nas", until: .after(seconds: 600))
      }
      let refusal = #expect(throws: ServiceError.self) {
        _ = try service.freeze(controller, for: "x", since: basis, job.checkpoints)
      }
      #expect(refusal?.code == .incrementNotPossible)
      #expect(service.frozen.withLock { $0.isEmpty })
    }
    #expect(try await bench.backup()["mode_used"] == .text("full"))
    try bench.expectSaved()
  }

  @Test("a point whose job is not over is not removed")
  func ofAnOpenJob() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    let code = try await bench.fixture.code {
      try await $0.removeBackup(id, on: "nas", cascading: true)
    }
    #expect(code == "image-in-use")
    try await bench.release(id)
    #expect(try await bench.end(of: id).state == .succeeded)
    try await bench.fixture.service.removeBackup(id, on: "nas", cascading: false)
  }

  @Test("a checkpoint with a name of its own is no obstacle to the job that has begun it before")
  func ownCheckpoint() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    try await bench.target("one", .file(path: "main:one.raw", format: .raw))
    let parameters: [String: JobValue] = ["target": .text("one"), "new_checkpoint": .text("mine")]
    let id = try await bench.begin(parameters, BackupServiceBench.halting)
    try await bench.halfway(id)
    // As kill -9 leaves it: nobody has taken the checkpoint back.
    let request = try bench.disk.checkpoint("mine").request
    try bench.fixture.stop()
    try await bench.fixture.restart()
    if try !bench.disk.checkpoints.contains(where: { $0.name == "mine" }) {
      _ = try bench.disk.makeCheckpoint(
        NewCheckpoint("mine", granularityShift: 16, createdAt: 1, request: request),
        until: .after(seconds: 600))
    }
    try await bench.release(id)
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded, "\(String(describing: job.error))")
    #expect(try bench.disk.checkpoint("mine").createdAt > 1)
  }

  @Test("an export that another backup has begun to use is left to that one")
  func takenOver() async throws {
    let bench = try await BackupServiceBench()
    let server = try ForeignServer.nbdkit(
      ["memory", "16M"], at: "\(bench.fixture.images)/nbdkit")
    try await bench.target("far", .nbd(uri: server.uri))
    let (service, geometry) = (try bench.fixture.service, try bench.disk.geometry)
    func place(_ id: String) -> SinglePlace {
      SinglePlace(
        service, BackupDestination(target: "far"),
        PointManifest(id, device: "vm", mode: .full, geometry: geometry, pointInTime: 1))
    }
    let (first, second) = (place("01A"), place("01B"))
    for place in [first, first, second] { try place.open().letGo() }
    let refusal = #expect(throws: ServiceError.self) { _ = try first.open() }
    #expect(refusal?.code == .backupMismatch)
    try second.open().letGo()
    #expect(service.targets.entry("far")?.target.jobsAtOnce == 1)
    #expect(service.targets.entry("nas")?.target.jobsAtOnce == 2)
  }

  @Test("where nothing is mounted nothing is copied, and the job waits until it is")
  func unmounted() async throws {
    let bench = try await BackupServiceBench()
    let images = bench.fixture.images
    try bench.write([1])
    try Tool.shell("mv '\(images)/backups' '\(images)/away' && mkdir '\(images)/backups'")
    let id = try await bench.begin()
    let waiting = try await bench.await(id) { !$0.waitingFor.isEmpty }
    #expect(waiting.waitingFor.first?.detail.contains("is not the folder") == true)
    #expect(try ImageFolder(path: "\(images)/backups").names().isEmpty)
    try Tool.shell("rmdir '\(images)/backups' && mv '\(images)/away' '\(images)/backups'")
    #expect(try await bench.end(of: id).state == .succeeded)
    // On purpose: it is made a target again.
    let service = try bench.fixture.service
    try Tool.shell("mv '\(images)/backups' '\(images)/away' && mkdir '\(images)/backups'")
    try await service.removeTarget("nas", leavingBackups: true, ifRevision: nil)
    try await bench.target("nas", .directory(path: "main:backups"))
    #expect(try await bench.backup()["mode_used"] == .text("full"))
    try bench.expectSaved()
  }

  @Test(
    "a target that goes as soon as the point is durable costs the job nothing, cancelled or not",
    arguments: [false, true])
  func goneBehindTheEnd(isCancelled: Bool) async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let state = bench.model
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    // Its checkpoint cannot advance until this thread is given back.
    let controller = try bench.fixture.service.controller("vm")
    let isHeld = Monitor(true)
    let holding = Task {
      try await controller.run { () throws(ServiceError) in
        _ = isHeld.wait { $0 ? nil : true }
      }
    }
    try await bench.release(id)
    while try !bench.chain(of: id).isWhole(id) { await Task.yield() }
    let images = bench.fixture.images
    try Tool.shell("mv '\(images)/backups' '\(images)/away' && touch '\(images)/backups'")
    if isCancelled { _ = try await bench.fixture.service.cancelJob(id, ifRevision: nil) }
    isHeld.update { $0 = false }
    try await holding.value
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded, "\(String(describing: job.error))")
    #expect(job.result?["bytes_written"] == .number(64 << 16))
    #expect(job.result?["completed_before_cancel"] == (isCancelled ? .flag(true) : nil))
    try Tool.shell("rm '\(images)/backups' && mv '\(images)/away' '\(images)/backups'")
    #expect(try bench.content(id) == state)
    #expect(try await bench.backup()["mode_used"] == .text("incremental"))
  }

  @Test("of a snapshot it goes on where it was")
  func snapshot() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let state = bench.model
    let guid = try await bench.fixture.snapshot("vm")
    let id = try await bench.begin(
      ["snapshot": .text(guid.description)], BackupServiceBench.halting)
    try await bench.halfway(id)
    // What it reads stays where it is.
    _ = try await bench.fixture.snapshot("vm")
    let done = try await bench.fixture.service.job(id).record.progress.doneBytes
    try bench.fixture.stop()
    try await bench.fixture.restart()
    try bench.write(3..<6)
    try await bench.release(id)
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded)
    #expect(job.result?["restarted"] == .flag(false))
    // No cluster was read twice: the service ended between two steps.
    #expect(job.result?["bytes_read"] == .number(64 << 16))
    let line = try #require(
      try await bench.log(of: id).first { $0.hasPrefix("goes on at cluster ") })
    let cluster = try #require(
      line.dropFirst("goes on at cluster ".count).split(separator: ":").first.flatMap {
        UInt64($0)
      })
    #expect(cluster << 16 >= done && cluster < 64)
    #expect(try bench.content(id) == state)
  }

  @Test(
    "whichever of its two checkpoints a crash leaves, the one of the newest point is built on")
  func checkpoints() async throws {
    let bench = try await BackupServiceBench()
    let deadline = Deadline.after(seconds: 600)
    try bench.write(0..<4)
    try await bench.backup()
    try bench.write([7])
    // Behind the point, before the checkpoint has got its name.
    try await bench.backup()
    try bench.disk.renameCheckpoint("backup-nas", to: "new-backup-nas", until: deadline)
    _ = try bench.disk.makeCheckpoint(
      NewCheckpoint("backup-nas", granularityShift: 16, createdAt: 1), until: deadline)
    try bench.write([9])
    let next = try await bench.backup()
    #expect(next["mode_used"] == .text("incremental") && next["bytes_read"] == .number(1 << 16))
    #expect(try bench.disk.checkpoints.map(\.name) == ["backup-nas"])
    // Before the point: what has begun since is of no use.
    _ = try bench.disk.makeCheckpoint(
      NewCheckpoint("new-backup-nas", granularityShift: 16, createdAt: 2), until: deadline)
    try bench.write([10])
    let last = try await bench.backup()
    #expect(last["mode_used"] == .text("incremental") && last["bytes_read"] == .number(1 << 16))
    #expect(try bench.disk.checkpoints.map(\.name) == ["backup-nas"])
    try bench.expectSaved()
  }

  @Test("a target that goes away and comes back costs no instant, and no guest anything")
  func gone() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let state = bench.model
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    let images = bench.fixture.images
    // What is written goes on into folders that are open: they are emptied.
    try Tool.shell("mv '\(images)/backups/vm' '\(images)/away'")
    try Tool.shell("mv '\(images)/away/\(id)/\(id).sums' '\(images)/away/sums'")
    try await bench.release(id)
    let waiting = try await bench.await(id) { !$0.waitingFor.isEmpty }
    #expect(waiting.waitingFor.first?.kind == .target)
    #expect(waiting.waitingFor.first?.id == "nas")
    try bench.write(30..<64)
    _ = try await bench.await(id) {
      $0.waitingFor.first?.detail.contains("is not there") == true
    }
    try Tool.shell(
      """
      cd '\(images)' && mv away/sums 'away/\(id)/\(id).sums' && rm -rf backups/vm && mv away backups/vm
      """)
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded, "\(String(describing: job.error))")
    #expect(job.result?["restarted"] == .flag(false))
    #expect(try await bench.log(of: id).contains { $0.hasPrefix("waits: ") })
    #expect(try bench.content(id) == state)
    #expect(try await bench.backup()["mode_used"] == .text("incremental"))
    try bench.expectSaved()
  }

  @Test("a target without room is waited for, and a step is all that is copied again")
  func full() async throws {
    let bench = try await BackupServiceBench(clusters: 256)
    try bench.write(0..<256)
    let state = bench.model
    let small = try SmallFilesystem(in: bench.fixture.folder, "images/small", mebibytes: 6)
    try await bench.target("small", .directory(path: "main:small/backups"))
    let id = try await bench.begin(["target": .text("small")])
    let waiting = try await bench.await(id) { !$0.waitingFor.isEmpty }
    #expect(waiting.waitingFor.first?.kind == .space)
    try bench.write(200..<256)
    try Tool.shell(small.enlarging(byMebibytes: 32))
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded, "\(String(describing: job.error))")
    let chain = try BackupChain(
      in: ImageFolder(path: "\(bench.fixture.images)/small/backups/vm/\(id)"))
    let reader = try PointReader(id, of: chain)
    let buffer = AlignedBuffer(count: 1 << 16)
    for (cluster, value) in state.enumerated() {
      try reader.read(into: buffer.region, from: UInt64(cluster))
      #expect(buffer.region.bytes.allSatisfy { $0 == value })
    }
    try bench.fixture.stop()
  }

  @Test(
    "where nothing more can be saved the guest waits for seconds, and the backup fails with its reason"
  )
  func spilled() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let id = try await bench.begin(["spill": .object(["max_bytes": .number(2 << 16)])]) {
      $0.limits.bytesPerSecond = 1 << 14
    }
    _ = try await bench.await(id) { $0.record.phase == "copying" }
    var change = JobChange()
    change.isPaused = true
    _ = try await bench.fixture.service.changeJob(id, change, ifRevision: nil)
    _ = try await bench.await(id) { $0.record.state == .paused }
    let start = monotonicNanoseconds()
    try bench.write(58..<64)
    #expect(monotonicNanoseconds() - start >= 5_000_000_000)
    change.isPaused = false
    _ = try await bench.fixture.service.changeJob(id, change, ifRevision: nil)
    let job = try await bench.end(of: id)
    #expect(job.state == .failed && job.error?.code == "push-backup-expired")
    #expect(job.error?.remedy?.contains("spill") == true)
    #expect(try bench.disk.checkpoints.isEmpty)
    #expect(throws: Tool.Failure.self) { try bench.chain(of: id) }
    try await bench.backup()
    try bench.expectSaved()
  }
}
