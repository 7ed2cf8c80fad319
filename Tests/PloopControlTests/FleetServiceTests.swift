import Glibc
import Logging
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Services that have disks together")
struct FleetServiceTests {
  /// Services in this process that see the same images.
  final class Hosts {
    let folder: TemporaryFolder
    let leases = MemoryLeases()
    private(set) var services: [String: Service] = [:]
    private var settings: [String: FleetSettings] = [:]

    var images: String { "\(folder.path)/images" }

    init(
      _ names: [String] = ["a", "b"], hasSharedLocks: Bool = false, leaseSeconds: Int = 60,
      _ change: (String, inout FleetSettings) -> Void = { _, _ in }
    ) throws {
      folder = try TemporaryFolder()
      try Tool.shell("mkdir -p '\(images)'")
      for name in names {
        var settings = FleetSettings(node: FleetPlanTests.node(name))
        settings.leaseSeconds = leaseSeconds
        settings.hasSharedLocks = hasSharedLocks
        change(name, &settings)
        self.settings[name] = settings
        try start(name)
      }
      for service in services.values {
        let fleet = try #require(service.fleet)
        try Self.becomes("all nodes are known") { fleet.view.nodes.count == names.count }
      }
    }

    deinit { for service in services.values { _ = service.stop(until: .after(seconds: 20)) } }

    func stop(_ name: String) throws {
      #expect(try self[name].stop(until: .after(seconds: 60)))
      services[name] = nil
    }

    /// The state of a service that was stopped, once it has let go of it.
    func freedStore(of name: String) throws -> Store {
      var store: Store?
      try Self.becomes("the state is free") {
        store = try? Store(path: "\(folder.path)/\(name)")
        return store != nil
      }
      return try #require(store)
    }

    /// With the state of its life before, if there was one; whoever had that lets go of it in his own time.
    func start(_ name: String) throws {
      let settings = try #require(settings[name])
      let deadline = Deadline.after(seconds: 60)
      while true {
        do { return try begin(name, settings) } catch let error as ServiceError {
          guard error.code == .imageInUse, !deadline.hasPassed else { throw error }
          poll(nil, 0, 20)
        }
      }
    }

    private func begin(_ name: String, _ settings: FleetSettings) throws {
      let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
      var configuration = Service.Configuration()
      if let bytes = IndexBudget.bytes { configuration.indexCacheBytes = bytes }
      configuration.fleet = Fleet(settings, in: leases.store(of: name), log: log)
      try Tool.shell("mkdir -p '\(folder.path)/\(name)'")
      let service = try Service(
        roots: Roots([("main", images)]), store: Store(path: "\(folder.path)/\(name)"),
        engine: IOEngine(threadLimit: 4), log: log, configuration: configuration)
      try service.recover()
      services[name] = service
      let fleet = try #require(service.fleet)
      try Self.becomes("\(name) has a lease") { fleet.isHeld }
    }

    subscript(_ name: String) -> Service {
      get throws { try #require(services[name]) }
    }

    static func becomes(_ what: String, _ isSo: () throws -> Bool) throws {
      let deadline = Deadline.after(seconds: 60)
      while try !isSo() {
        guard !deadline.hasPassed else { throw Tool.Failure(description: "\(what): not in 60 s") }
        poll(nil, 0, 10)
      }
    }

    func make(_ id: String, on name: String, labels: [String: String] = [:]) async throws {
      var create = AttachRequest.CreateRequest(directory: id, sizeBytes: 1 << 20)
      create.clusterBytes = 1 << 16
      var request = AttachRequest(id: id, source: .create(create))
      request.exportName = id
      request.labels = labels
      _ = try await self[name].attach(request, keeping: nil)
    }

    /// A node hears nothing any more, and its own time is over as well.
    func silence(_ name: String) throws {
      leases.cut(off: name)
      leases.expire(name)
      try #require(try self[name].fleet?.state.withLock { $0.lease }).void()
    }

    func state(of id: String, at name: String) throws -> DeviceState? {
      let controller = try self[name].state.withLock { $0.devices[id] }
      return controller.map { Service.state(of: $0.now) }
    }

    func write(_ byte: UInt8, to id: String, at name: String) throws {
      let device = try #require(try self[name].controller(id).attachedDevice)
      try device.put([UInt8](repeating: byte, count: 4096), at: 0)
      try device.flush()
    }

    func read(_ id: String, at name: String) throws -> UInt8? {
      let device = try #require(try self[name].controller(id).attachedDevice)
      return try device.bytes(0, 4096).first
    }
  }

  private static func code(_ body: () async throws -> Void) async throws -> String? {
    do { try await body() } catch let error as ServiceError { return error.code.rawValue }
    return nil
  }

  @Test("a device is one node's; others say whose, and cannot have another one of its name")
  func ownership() async throws {
    let hosts = try Hosts()
    try await hosts.make("vm1", on: "a")
    let b = try hosts["b"]
    try Hosts.becomes("b knows") { b.elsewhere(device: "vm1") != nil }
    #expect(b.elsewhere(device: "vm1")?.code == .deviceOwnedElsewhere)
    #expect(b.elsewhere(export: "vm1")?.holder?.id == "a")
    #expect(try hosts["a"].elsewhere(device: "vm1") == nil)
    #expect(
      try await Self.code { try await hosts.make("vm1", on: "b") } == "device-exists")
    #expect(try hosts.state(of: "vm1", at: "b") == nil)
    // What is forgotten is free again.
    try await hosts["a"].detach("vm1", mode: .hard, ifRevision: nil)
    try Hosts.becomes("b knows") { b.elsewhere(device: "vm1") == nil }
    #expect(hosts.leases.state.withLock { $0.entries.isEmpty && $0.view.owners.isEmpty })
  }

  @Test("a device moves with its data, its snapshots and its jobs")
  func moving() async throws {
    let hosts = try Hosts()
    try await hosts.make("vm1", on: "a")
    try hosts.write(7, to: "vm1", at: "a")
    let a = try hosts["a"]
    let guid = try await a.addSnapshot("vm1", SnapshotRequest(), ifRevision: nil, keeping: nil)
      .snapshot.guid
    var paused = QueueChange()
    paused.isPaused = true
    _ = try await a.changeQueue(paused)
    _ = try await hosts["b"].changeQueue(paused)
    let job = try await a.addJob(JobRequest(type: "compact", device: "vm1"), keeping: nil)
    let moved = try await a.move("vm1", to: "b", ifRevision: nil)
    #expect(moved.state == .online && moved.node.name == "b")
    try Hosts.becomes("it is there") { try hosts.state(of: "vm1", at: "b") == .online }
    #expect(try hosts.state(of: "vm1", at: "a") == nil)
    #expect(try hosts.read("vm1", at: "b") == 7)
    let b = try hosts["b"]
    #expect(try await b.snapshots("vm1").items.map(\.guid) == [guid])
    #expect(try await b.job(job.record.id).record.state == .queued)
    #expect(try await Self.code { _ = try await a.job(job.record.id) } == "job-not-found")
    // And back again.
    #expect(try await b.move("vm1", to: "a", ifRevision: nil).state == .online)
    try Hosts.becomes("it is there") { try hosts.state(of: "vm1", at: "a") == .online }
    #expect(try hosts.read("vm1", at: "a") == 7)
  }

  @Test("a device does not move where it cannot be, and stays where it is")
  func refusals() async throws {
    let hosts = try Hosts(["a", "b", "c"]) { name, settings in
      settings.node.labels = name == "c" ? [:] : ["zone": "x"]
      if name == "b" { settings.node.capacity = 0 }
    }
    try await hosts.make("vm1", on: "a", labels: ["node.zone": "x"])
    let a = try hosts["a"]
    for (node, code) in [
      ("nobody", "node-not-found"), ("a", "node-unsuitable"), ("b", "node-unsuitable"),
      ("c", "node-unsuitable"),
    ] {
      let found = try await Self.code { _ = try await a.move("vm1", to: node, ifRevision: nil) }
      #expect(found == code, "\(node)")
    }
    #expect(
      try await Self.code { _ = try await a.move("none", to: "b", ifRevision: nil) }
        == "device-not-found")
    #expect(
      try await Self.code { _ = try await a.move("vm1", to: "b", ifRevision: 9_999) }
        == "precondition-failed")
    #expect(try hosts.state(of: "vm1", at: "a") == .online)
    let alone = try ServiceFixture()
    try await alone.create("vm1")
    #expect(
      try await alone.code { _ = try await $0.move("vm1", to: "b", ifRevision: nil) }
        == "fleet-not-configured")
    #expect(try await alone.service.nodes().isEmpty)
  }

  @Test("while the fleet does not answer for a device nobody waits but who changes that one")
  func slow() async throws {
    let hosts = try Hosts(["a"])
    for id in ["vm1", "vm3"] { try await hosts.make(id, on: "a") }
    let a = try hosts["a"]
    for id in ["vm1", "vm3"] { hosts.leases.hold(back: id) }
    let before = a.store.shownRevision
    async let snapshot = a.addSnapshot("vm1", SnapshotRequest(), ifRevision: nil, keeping: nil)
    try Hosts.becomes("it waits") { hosts.leases.state.withLock { $0.waiting == 1 } }
    async let job = a.addJob(JobRequest(type: "compact", device: "vm3"), keeping: nil)
    try Hosts.becomes("both wait") { hosts.leases.state.withLock { $0.waiting == 2 } }
    try await hosts.make("vm2", on: "a")
    _ = try await a.addJob(JobRequest(type: "compact", device: "vm2"), keeping: nil)
    #expect(try hosts.state(of: "vm2", at: "a") == .online)
    // Told later has a later revision; nobody reads it before what came first.
    #expect(a.store.shownRevision == before && a.store.lastRevision > before + 1)
    for id in ["vm1", "vm3"] { hosts.leases.hold(back: id, false) }
    _ = try await snapshot
    _ = try await job
    try Hosts.becomes("all can be read") { a.store.shownRevision == a.store.lastRevision }
    let told = hosts.leases.state.withLock { $0.entries["vm1"]?.record.revision ?? 0 }
    #expect(try #require(a.controller("vm1").now.record).revision == told)
  }

  @Test("a device's revisions grow wherever it goes")
  func revisions() async throws {
    let hosts = try Hosts()
    try await hosts.make("vm1", on: "a")
    let a = try hosts["a"]
    for _ in 0..<20 {
      try a.store.write { transaction throws(ServiceError) in _ = try transaction.nextRevision() }
    }
    _ = try await a.addSnapshot("vm1", SnapshotRequest(), ifRevision: nil, keeping: nil)
    let before = try #require(a.controller("vm1").now.record).revision
    #expect(try await a.move("vm1", to: "b", ifRevision: before).state == .online)
    try Hosts.becomes("it is there") { try hosts.state(of: "vm1", at: "b") == .online }
    #expect(try #require(hosts["b"].controller("vm1").now.record).revision > before)
  }

  @Test("who is cut off for a moment serves again; changes are refused meanwhile")
  func outage() async throws {
    let hosts = try Hosts(["a"], leaseSeconds: 6)
    try await hosts.make("vm1", on: "a")
    let a = try hosts["a"]
    let fleet = try #require(a.fleet)
    let door = try #require(a.table.entry("vm1")?.door)
    #expect(door.mayAnswer)
    hosts.leases.cut(off: "a")
    try Hosts.becomes("the lease is over") { !fleet.isHeld }
    #expect(!door.mayAnswer)
    try Hosts.becomes("the doors are closed") { a.table.entry("vm1")?.isOpen == false }
    #expect(
      try await Self.code {
        _ = try await a.addSnapshot("vm1", SnapshotRequest(), ifRevision: nil, keeping: nil)
      } == "fleet-unreachable")
    let node = try #require(await a.nodes().first)
    #expect(!node.isHeld && node.trouble != nil)
    hosts.leases.cut(off: "a", false)
    try Hosts.becomes("it serves again") { a.table.entry("vm1")?.isOpen == true }
    #expect(door.mayAnswer && fleet.trouble == nil)
    _ = try await a.addSnapshot("vm1", SnapshotRequest(), ifRevision: nil, keeping: nil)
  }

  @Test(
    "a disk of a silent owner is served as a copy, and he writes no byte any more",
    arguments: [
      false, true,
    ])
  func takeover(hasSharedLocks: Bool) async throws {
    let hosts = try Hosts(hasSharedLocks: hasSharedLocks)
    try await hosts.make("vm1", on: "a")
    try hosts.write(7, to: "vm1", at: "a")
    let door = try #require(try hosts["a"].table.entry("vm1")?.door)
    let old = "\(hosts.images)/vm1/root.hds"
    // Silent, and his lease runs out; his locks are held as before.
    try hosts.silence("a")
    try Hosts.becomes("b serves it") { try hosts.state(of: "vm1", at: "b") == .online }
    #expect(try hosts.read("vm1", at: "b") == 7)
    let top = try #require(try hosts["b"].controller("vm1").now.record?.deltas.last?.path)
    #expect(top.hasPrefix("main:vm1/root.hds.e"))
    try hosts.write(8, to: "vm1", at: "b")
    try Hosts.becomes("his lease is over for him") { !door.mayAnswer }
    let before = try Tool.shell("sha256sum '\(old)'").output
    hosts.leases.cut(off: "a", false)
    try Hosts.becomes("he gives it up") { try hosts.state(of: "vm1", at: "a") == nil }
    #expect(!door.mayAnswer, "the lease that he has now is another one")
    #expect(try Tool.shell("sha256sum '\(old)'").output == before)
    #expect(try hosts.read("vm1", at: "b") == 8)
    // A move from here on is one like any other.
    #expect(try await hosts["b"].move("vm1", to: "a", ifRevision: nil).state == .online)
    try Hosts.becomes("it is there") { try hosts.state(of: "vm1", at: "a") == .online }
    #expect(try hosts.read("vm1", at: "a") == 8)
  }

  @Test("where locks tell that the owner is gone, his own files are served")
  func gone() async throws {
    let hosts = try Hosts(hasSharedLocks: true)
    try await hosts.make("vm1", on: "a")
    try hosts.write(7, to: "vm1", at: "a")
    // As a process that was killed: its locks are gone, and its image is marked as in use.
    hosts.leases.cut(off: "a")
    let device = try #require(try hosts["a"].controller("vm1").attachedDevice)
    try device.abandon(until: .after(seconds: 30))
    hosts.leases.expire("a")
    try Hosts.becomes("b serves it") { try hosts.state(of: "vm1", at: "b") == .online }
    let record = try #require(try hosts["b"].controller("vm1").now.record)
    #expect(record.deltas.last?.path == "main:vm1/root.hds")
    #expect(try hosts.read("vm1", at: "b") == 7)
  }

  @Test("where the silent owner was changing the chain nobody goes on before somebody decides")
  func undecided() async throws {
    let hosts = try Hosts()
    try await hosts.make("vm1", on: "a")
    let folder = try ImageFolder(path: "\(hosts.images)/vm1")
    try IntentFile(beside: DescriptorFile(in: folder)).begin(
      ChainIntent(.merge, device: "vm1", snapshot: .random(), files: []))
    try hosts.silence("a")
    try Hosts.becomes("b has it") { try hosts.state(of: "vm1", at: "b") == .failed }
    guard case .failed(let error) = try hosts["b"].controller("vm1").now.phase else {
      throw Tool.Failure(description: "it has not failed")
    }
    #expect(error.code == .takeoverUndecided)
    #expect(try folder.names().allSatisfy { !$0.contains(".e") })
    #expect(hosts.leases.state.withLock { $0.entries["vm1"]?.state } == .failed)
  }

  @Test("who comes back believes the fleet, and not what he has written down himself")
  func comingBack() async throws {
    let hosts = try Hosts()
    try await hosts.make("vm1", on: "a")
    try await hosts.make("vm2", on: "a")
    try hosts.stop("a")
    for id in ["vm1", "vm2"] {
      try Hosts.becomes("b serves \(id)") { try hosts.state(of: id, at: "b") == .online }
    }
    try await hosts["b"].detach("vm1", mode: .hard, ifRevision: nil)
    try hosts.start("a")
    let fleet = try #require(try hosts["a"].fleet)
    try Hosts.becomes("a knows b") { fleet.view.node(having: "vm2")?.name == "b" }
    #expect(try hosts.state(of: "vm1", at: "a") == nil)
    #expect(hosts.leases.state.withLock { $0.entries.keys.sorted() } == ["vm2"])
  }

  @Test("a host that had disks for itself brings them in, once")
  func joining() async throws {
    let hosts = try Hosts(["a"])
    // As before it was in a fleet: a record, and no word of it outside.
    try await hosts.make("vm1", on: "a")
    let record = try #require(try hosts["a"].controller("vm1").now.record)
    try hosts.stop("a")
    hosts.leases.state.update { state in
      let gone = state.keep(nil, of: "vm1")
      state.change([gone])
    }
    do {
      let store = try hosts.freedStore(of: "a")
      try store.save(record)
      try store.folder.unlink("fleet.joined")
    }
    try hosts.start("a")
    try Hosts.becomes("it is served") { try hosts.state(of: "vm1", at: "a") == .online }
    let a = try hosts["a"]
    try Hosts.becomes("it has joined") { a.hasJoined }
    #expect(hosts.leases.state.withLock { $0.entries["vm1"]?.record.uuid } == record.uuid)
  }

  @Test("who ends in order has his disks be served by the others at once")
  func end() async throws {
    let hosts = try Hosts()
    try await hosts.make("vm1", on: "a")
    try hosts.write(7, to: "vm1", at: "a")
    #expect(try hosts["a"].stop(until: .after(seconds: 60)))
    try Hosts.becomes("b serves it") { try hosts.state(of: "vm1", at: "b") == .online }
    #expect(try hosts.read("vm1", at: "b") == 7)
    #expect(
      try hosts["b"].controller("vm1").now.record?.deltas.last?.path == "main:vm1/root.hds")
  }
}
