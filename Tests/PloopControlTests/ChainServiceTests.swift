import Logging
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Chains as the service changes them")
struct ChainServiceTests {
  private final class Bench {
    let folder: TemporaryFolder
    let service: Service

    init() async throws {
      folder = try TemporaryFolder()
      try Tool.shell("mkdir '\(folder.path)/images' '\(folder.path)/state'")
      service = try Service(
        roots: Roots([("main", "\(folder.path)/images")]),
        store: Store(path: "\(folder.path)/state"), engine: IOEngine(threadLimit: 4),
        log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
      try service.recover()
      try await create("vm")
    }

    func create(_ id: String) async throws {
      var create = AttachRequest.CreateRequest(directory: id, sizeBytes: 4 << 20)
      create.clusterBytes = 1 << 16
      _ = try await service.attach(AttachRequest(id: id, source: .create(create)), keeping: nil)
    }

    var disk: Device { get throws { try service.controller("vm").device() } }

    func snapshot(_ change: (inout SnapshotRequest) -> Void = { _ in }) async throws -> GUID {
      var request = SnapshotRequest()
      change(&request)
      return try await service.addSnapshot("vm", request, ifRevision: nil, keeping: nil).snapshot
        .guid
    }

    /// A cluster of its own above each of two snapshots.
    func write(_ cluster: Int) throws {
      try disk.put(
        [UInt8](repeating: UInt8(cluster + 1), count: 1 << 16), at: UInt64(cluster << 16))
    }

    func delete(
      _ guid: GUID, _ change: (inout JobRequest) -> Void = { _ in }
    ) async throws -> String {
      var request = JobRequest(type: "delete_snapshot", device: "vm")
      request.parameters = ["snapshot": .text(guid.description)]
      change(&request)
      return try await service.addJob(request, keeping: nil).record.id
    }

    func job(
      _ id: String, until isWanted: (JobRecord) -> Bool = { $0.state.isFinal }
    ) async throws -> JobRecord {
      let deadline = Deadline.after(seconds: 600)
      while true {
        let changes = service.changes
        let job = try await service.job(id).record
        if isWanted(job) { return job }
        guard !deadline.hasPassed else {
          throw Tool.Failure(description: "the job stays \(job.state)")
        }
        _ = await service.change(of: .job(id), since: changes, milliseconds: 100)
      }
    }

    var descriptor: Descriptor {
      get throws {
        let folder = try ImageFolder(path: "\(folder.path)/images/vm")
        return try DescriptorFile(in: folder).read()
      }
    }

    func attach(
      _ id: String, _ path: String, at guid: GUID? = nil
    ) async throws(ServiceError) -> DeviceInfo {
      let reference = AttachRequest.DescriptorReference(path: path, snapshot: guid)
      return try await service.attach(
        AttachRequest(id: id, source: .descriptor(reference)), keeping: nil)
    }

    func stop() { #expect(service.stop(until: .after(seconds: 20))) }
  }

  @Test("a size that a descriptor makes up costs nothing when snapshots are looked at")
  func hugeSize() async throws {
    let bench = try await Bench()
    try bench.write(0)
    _ = try await bench.snapshot()
    try bench.write(1)
    _ = try await bench.snapshot()
    try await bench.service.detach("vm", mode: .safe, ifRevision: nil)
    try Tool.shell(
      """
      cd '\(bench.folder.path)/images/vm' &&
      sed -i 's,<Disk_size>[0-9]*<,<Disk_size>9007199254740992<,' DiskDescriptor.xml
      """)
    _ = try await bench.attach("vm", "vm/DiskDescriptor.xml")
    let page = try await bench.service.snapshots("vm")
    #expect(page.items.map(\.clusters) == [1, 1])
    #expect(page.items.map(\.exclusiveBytes) == [0, 0])
    bench.stop()
  }

  @Test("a request with a key makes one snapshot also where its answer could not be kept")
  func answerNotKept() async throws {
    let bench = try await Bench()
    let key = RequestKey("once", route: "POST", fingerprint: "f")
    let keeper = AnswerKeeper<SnapshotMade>(key) { "\($0.snapshot.guid)" }
    let database = "\(bench.folder.path)/state/ploopd.db"
    try Tool.shell(
      """
      sqlite3 '\(database)' "CREATE TRIGGER full BEFORE INSERT ON devices
        BEGIN SELECT RAISE(ABORT, 'no room'); END"
      """)
    await #expect(throws: ServiceError.self) {
      _ = try await bench.service.addSnapshot(
        "vm", SnapshotRequest(), ifRevision: nil, keeping: keeper)
    }
    try Tool.shell("sqlite3 '\(database)' 'DROP TRIGGER full'")
    let made = try await bench.service.addSnapshot(
      "vm", SnapshotRequest(), ifRevision: nil, keeping: keeper)
    #expect(try bench.descriptor.shots.count == 2)
    #expect(made.snapshot.isCurrent)
    bench.stop()
  }

  @Test("what a change of a closed disk makes is left alone by others who come to its descriptor")
  func settledByOthers() async throws {
    let bench = try await Bench()
    let controller = try bench.service.controller("vm")
    let device = try bench.disk
    let folder = try ImageFolder(path: "\(bench.folder.path)/images/vm")
    let file = DescriptorFile(in: folder)
    // As while a disk goes back to a snapshot.
    try device.close()
    controller.enter(.attaching)
    try folder.replace("new", with: [1])
    try IntentFile(beside: file).begin(
      ChainIntent(.switchTop, device: "vm", snapshot: .random(), files: ["new"]))
    let refusal = await #expect(throws: ServiceError.self) {
      _ = try await bench.attach("other", "vm/DiskDescriptor.xml")
    }
    #expect(refusal?.code == .imageInUse)
    #expect(folder.contains("new"))
    controller.enter(.failed(ServiceError(.ioError, "the end of a test")))
    bench.stop()
  }

  /// The disk goes back to its first snapshot; a branch of two more and a kept state stays.
  private func branch(
    _ bench: Bench
  ) async throws -> (base: GUID, one: GUID, two: GUID, kept: GUID) {
    var guids: [GUID] = []
    for cluster in 0..<3 {
      try bench.write(cluster)
      guids.append(try await bench.snapshot())
    }
    try bench.write(3)
    let kept = GUID.random()
    _ = try await bench.service.switchTop(
      "vm", to: guids[0], keepingTopAs: kept.description, ifRevision: nil, keeping: nil)
    return (guids[0], guids[1], guids[2], kept)
  }

  @Test("a branch whose merge was cancelled can be attached")
  func cancelledBranch() async throws {
    let bench = try await Bench()
    let (_, _, two, kept) = try await branch(bench)
    let id = try await bench.delete(two) { $0.limits.bytesPerSecond = 1 }
    _ = try await bench.job(id) { $0.phase == "copying" || $0.state.isFinal }
    _ = try await bench.service.cancelJob(id, ifRevision: nil)
    #expect(try await bench.job(id).state == .cancelled)
    let look = try await bench.attach("look", "vm/DiskDescriptor.xml", at: kept)
    #expect(look.deltas.count == 4)
    bench.stop()
  }

  @Test("a snapshot of a branch is merged into one that others build on")
  func middleOfABranch() async throws {
    let bench = try await Bench()
    let (_, one, two, kept) = try await branch(bench)
    let job = try await bench.job(try await bench.delete(one))
    #expect(job.state == .succeeded, "\(job.error?.detail ?? "")")
    #expect(try bench.descriptor.chain(to: kept).map(\.guid).contains(two))
    _ = try await bench.attach("look", "vm/DiskDescriptor.xml", at: kept)
    let look = try bench.service.controller("look").device()
    for cluster in 0..<4 {
      #expect(try look.bytes(UInt64(cluster << 16), 1) == [UInt8(cluster + 1)])
    }
    bench.stop()
  }

  @Test("what is protected while it is merged away stays")
  func protectedMeanwhile() async throws {
    let bench = try await Bench()
    for cluster in 0..<40 { try bench.write(cluster) }
    let guid = try await bench.snapshot()
    let id = try await bench.delete(guid) { $0.limits.bytesPerSecond = 1 }
    _ = try await bench.job(id) { $0.phase == "copying" || $0.state.isFinal }
    var change = SnapshotChange()
    change.isProtected = true
    _ = try await bench.service.changeSnapshot("vm", guid, change, ifRevision: nil)
    var faster = JobChange()
    faster.limits.bytesPerSecond = 0
    _ = try await bench.service.changeJob(id, faster, ifRevision: nil)
    let job = try await bench.job(id)
    #expect(job.state == .failed && job.error?.code == "snapshot-protected")
    #expect(try bench.descriptor.shot(guid) != nil)
    for cluster in 0..<40 {
      #expect(try bench.disk.bytes(UInt64(cluster << 16), 1) == [UInt8(cluster + 1)])
    }
    bench.stop()
  }

  @Test(
    "a merge that was made, and could not be written down, is over when it is tried again",
    arguments: ["merge", "delete_snapshot"])
  func endNotKept(type: String) async throws {
    let bench = try await Bench()
    try bench.write(0)
    let guid = try await bench.snapshot()
    try bench.write(1)
    let database = "\(bench.folder.path)/state/ploopd.db"
    try Tool.shell(
      """
      sqlite3 '\(database)' "CREATE TRIGGER full BEFORE INSERT ON devices
        BEGIN SELECT RAISE(ABORT, 'no room'); END"
      """)
    let id = try await bench.delete(guid) { $0.type = type }
    let failed = try await bench.job(id)
    #expect(failed.state == .failed && failed.error?.code == "io-error")
    #expect(try bench.descriptor.shots.count == 1)
    try Tool.shell("sqlite3 '\(database)' 'DROP TRIGGER full'")
    _ = try await bench.service.retryJob(id, ifRevision: nil)
    let job = try await bench.job(id)
    #expect(job.state == .succeeded && job.result?["completed_earlier"] == .flag(true))
    #expect(try (0..<2).map { try bench.disk.bytes(UInt64($0 << 16), 1) } == [[1], [2]])
    #expect(try await bench.service.device("vm").deltas.count == 1)
    _ = try await bench.snapshot()
    bench.stop()
  }

  @Test("a snapshot is not deleted by who has seen the disk as it was before")
  func seenBefore() async throws {
    let bench = try await Bench()
    let guid = try await bench.snapshot()
    let seen = try await bench.service.device("vm").revision
    _ = try await bench.snapshot()
    for isPlan in [true, false] {
      let refusal = await #expect(throws: ServiceError.self) {
        var request = JobRequest(type: "delete_snapshot", device: "vm")
        request.parameters = ["snapshot": .text(guid.description)]
        request.ifRevision = seen
        if isPlan {
          _ = try await bench.service.planJob(request)
        } else {
          _ = try await bench.service.addJob(request, keeping: nil)
        }
      }
      #expect(refusal?.code == .preconditionFailed)
    }
    let now = try await bench.service.device("vm").revision
    let id = try await bench.delete(guid) { $0.ifRevision = now }
    #expect(try await bench.job(id).state == .succeeded)
    bench.stop()
  }

  @Test("an image that was to become the top is free again when it does not")
  func refusedTop() async throws {
    let bench = try await Bench()
    let folder = "\(bench.folder.path)/images"
    try await bench.create("spare")
    try await bench.service.detach("spare", mode: .safe, ifRevision: nil)
    try Tool.shell("cd '\(folder)/spare' && rm DiskDescriptor.xml* && mv root.hds top.hds")
    let clean = try await bench.service.attach(
      AttachRequest(id: "clean", source: .deltas([.init(path: "spare/top.hds")])), keeping: nil)
    #expect(clean.deltas.count == 1)
    try await bench.service.detach("clean", mode: .safe, ifRevision: nil)
    try Tool.shell("echo damaged > '\(folder)/vm/DiskDescriptor.xml.notes'")
    await #expect(throws: ServiceError.self) {
      _ = try await bench.snapshot { request in
        request.deltaPath = "spare/top.hds"
        request.note.name = "a name that cannot be written down"
      }
    }
    _ = try await bench.service.attach(
      AttachRequest(id: "clean", source: .deltas([.init(path: "spare/top.hds")])), keeping: nil)
    bench.stop()
  }

  @Test("the image of another disk does not become a top")
  func foreignTop() async throws {
    let bench = try await Bench()
    try await bench.create("other")
    try await bench.service.detach("other", mode: .safe, ifRevision: nil)
    let refusal = await #expect(throws: ServiceError.self) {
      _ = try await bench.snapshot { $0.deltaPath = "other/root.hds" }
    }
    #expect(refusal?.code == .imageInvalid)
    #expect(try bench.descriptor.shots.count == 1)
    bench.stop()
  }

  @Test("a chain is not changed through a descriptor that describes another one")
  func replacedDescriptor() async throws {
    let bench = try await Bench()
    let folder = "\(bench.folder.path)/images/vm"
    try Tool.shell("cp '\(folder)/DiskDescriptor.xml' '\(folder)/saved'")
    try bench.write(0)
    _ = try await bench.snapshot()
    try bench.write(1)
    try Tool.shell("cp '\(folder)/saved' '\(folder)/DiskDescriptor.xml'")
    let refusal = await #expect(throws: ServiceError.self) { _ = try await bench.snapshot() }
    #expect(refusal?.code == .descriptorExists)
    #expect(try bench.descriptor.shots.count == 1)
    #expect(try bench.disk.bytes(1 << 16, 1) == [2])
    bench.stop()
  }

  @Test("nor is a delta's file replaced through one, unless it says just that already")
  func replacedUnderneath() async throws {
    let bench = try await Bench()
    let folder = "\(bench.folder.path)/images/vm"
    try bench.write(0)
    let first = try await bench.snapshot()
    try Tool.shell("cp '\(folder)/DiskDescriptor.xml' '\(folder)/saved'")
    try bench.write(1)
    _ = try await bench.snapshot()
    try bench.write(2)
    try Tool.shell("cd '\(folder)' && cp root.hds copy.hds")
    func replace() async throws(ServiceError) -> DeltaChanged {
      try await bench.service.changeDelta(
        "vm", .level(0), .path("vm/copy.hds", isContentChecked: true), ifRevision: nil)
    }
    // Somebody has put an older one back: the chain would lose its top with it.
    try Tool.shell("cd '\(folder)' && cp DiskDescriptor.xml good && cp saved DiskDescriptor.xml")
    let refusal = await #expect(throws: ServiceError.self) { _ = try await replace() }
    #expect(refusal?.code == .descriptorExists)
    #expect(try bench.disk.levels().map(\.path).first?.hasSuffix("root.hds") == true)
    #expect(try await bench.service.device("vm").deltas.count == 3)
    #expect(try bench.descriptor.shots.count == 2)
    // The program that has copied the file may have said so in the descriptor as well.
    try Tool.shell("cd '\(folder)' && sed 's,>root.hds<,>copy.hds<,' good > DiskDescriptor.xml")
    #expect(try await replace().delta.path == "main:vm/copy.hds")
    #expect(try bench.descriptor.shot(first)?.file == "copy.hds")
    #expect(try (0..<3).map { try bench.disk.bytes(UInt64($0 << 16), 1) } == [[1], [2], [3]])
    #expect(try await bench.service.device("vm").deltas.count == 3)
    bench.stop()
  }
}
