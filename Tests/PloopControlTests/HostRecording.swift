import CrashKit
import Foundation
import Logging
import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport

@testable import PloopControl

/// Everything that a service does to its images and to its state, in one order: names and bytes of both, as a power
/// failure takes from them at one moment.
final class HostTrace: IOProbe {
  /// What the paths of the trace begin with.
  static let place = "host"

  let trace = IOTrace()
  private let state: String

  /// - Parameter state: the path of the state folder.
  init(state: String) { self.state = state }

  private func path(_ path: String) -> String {
    if path.hasPrefix(state) { return "\(Self.place)/state\(path.dropFirst(state.count))" }
    let beneath = path.dropFirst("main:".count)
    return "\(Self.place)/images\(beneath.isEmpty ? "" : "/")\(beneath)"
  }

  func fault(for operation: IOOperation, path: String) -> IOFault? { nil }

  func syncStarts(path: String) { trace.syncStarts(path: self.path(path)) }

  func succeeded(_ operation: IOOperation, path: String, bytes: UnsafeRawBufferPointer) {
    var operation = operation
    if case .rename(let other) = operation { operation = .rename(to: self.path(other)) }
    trace.succeeded(operation, path: self.path(path), bytes: bytes)
  }

  /// A file of a state is the one that was recorded.
  func stamp(_ actual: FileStamp, path: String) -> FileStamp {
    let name = path.split(separator: "/").last ?? ""
    return FileStamp(
      inode: name.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) }, sizeBytes: actual.sizeBytes,
      seconds: 0, nanoseconds: 0)
  }
}

/// A service at work, with all of that recorded, and what it has promised.
final class HostRecording {
  /// From where in the trace on something was asked for, and promised; and until when.
  struct Promise {
    let askedAt: Int
    var madeAt = Int.max
    var leavingAt = Int.max
    var goneAt = Int.max

    func isKept(at position: Int) -> Bool { madeAt <= position && position < leavingAt }
    func isPossible(at position: Int) -> Bool { askedAt <= position && position < goneAt }
  }

  struct Disk {
    let id: String
    let descriptor: String
    var history: History
    var current: [UInt64]
    /// Of the device; it comes and goes.
    var lives: [Promise] = []
    /// What it is when it is there, where nobody has written it since it was made by a job.
    var exact: [UInt64]?
  }

  struct Snapshot {
    let disk: String
    let guid: GUID
    let values: [UInt64]
    var promise: Promise
  }

  struct Work {
    let id: String
    var promise: Promise
    var endedAt = Int.max
    /// Of a backup, what it holds once it has ended.
    var values: [UInt64]?
  }

  static let sectors = 128
  static let clusterBytes: UInt64 = 4096

  let fixture: ServiceFixture
  let trace: IOTrace
  var disks: [String: Disk] = [:]
  var snapshots: [Snapshot] = []
  var work: [Work] = []
  private var lastValue: UInt64 = 0
  /// Files that are there before it begins.
  let initial: [String: [UInt8]]

  init() throws {
    var host: HostTrace?
    var initial: [String: [UInt8]] = [:]
    // The place of the state is known only to who makes it, and the service has its images by then.
    let relay = Relay()
    fixture = try ServiceFixture(probe: relay) { state in
      let made = HostTrace(state: state)
      relay.host.withLock { $0 = made }
      host = made
      let images = try ImageFolder(path: "\(state)/../images")
      let loose = try images.makeFolder(beneath: "loose")
      try ImageCreator.create(
        in: loose, name: "disk.hds",
        geometry: Geometry(version: .v2, clusterShift: 12, sizeBytes: UInt64(Self.sectors) * 512))
      initial["images/loose/disk.hds"] = try loose.bytes(of: "disk.hds", limit: 1 << 20)
      try SQLiteWatch.begin(state, made)
    }
    trace = host?.trace ?? IOTrace()
    self.initial = initial
  }

  private final class Relay: IOProbe {
    let host = Locked<HostTrace?>(nil)

    private var current: HostTrace? { host.withLock { $0 } }

    func fault(for operation: IOOperation, path: String) -> IOFault? { nil }
    func syncStarts(path: String) { current?.syncStarts(path: path) }
    func succeeded(_ operation: IOOperation, path: String, bytes: UnsafeRawBufferPointer) {
      current?.succeeded(operation, path: path, bytes: bytes)
    }
    func stamp(_ actual: FileStamp, path: String) -> FileStamp {
      current?.stamp(actual, path: path) ?? actual
    }
  }

  var position: Int { trace.events.count }
  var service: Service { get throws { try fixture.service } }

  // MARK: Guests

  func device(_ id: String) throws -> Device { try service.controller(id).device() }

  func write(_ id: String, _ sectors: Range<Int>, durable: Bool = false) throws {
    guard var disk = disks[id] else { return }
    let step = disk.history.begin(.change(durable: durable), at: position)
    let region = AlignedBuffer(count: sectors.count * History.sectorBytes).region
    for (index, sector) in sectors.enumerated() {
      lastValue += 1
      disk.current[sector] = lastValue << 20 | UInt64(sector) << 1 | 1
      disk.history.record(step: step, sector: sector, value: disk.current[sector])
      History.fill(
        region.slice(index * History.sectorBytes, History.sectorBytes), with: disk.current[sector])
    }
    try device(id).write(
      region, at: UInt64(sectors.lowerBound * History.sectorBytes), durable: durable)
    disk.history.end(step: step, at: position)
    disks[id] = disk
  }

  func flush(_ id: String) throws { try during(id, .flush) { try device(id).flush() } }

  /// Something that makes durable all that was answered before, once it is answered.
  private func during<Result>(
    _ id: String, _ kind: History.Kind, _ body: () throws -> Result
  ) rethrows -> Result {
    let step = disks[id]?.history.begin(kind, at: position)
    let result = try body()
    if let step { disks[id]?.history.end(step: step, at: position) }
    return result
  }

  private func during<Result>(
    _ id: String, _ kind: History.Kind, _ body: () async throws -> Result
  ) async rethrows -> Result {
    let step = disks[id]?.history.begin(kind, at: position)
    let result = try await body()
    if let step { disks[id]?.history.end(step: step, at: position) }
    return result
  }

  // MARK: Operations of the service

  func create(_ id: String) async throws {
    var disk = Disk(
      id: id, descriptor: "\(id)/DiskDescriptor.xml",
      history: History(sectorCount: Self.sectors), current: Array(repeating: 0, count: Self.sectors)
    )
    disk.lives = [Promise(askedAt: position)]
    disks[id] = disk
    _ = try await service.attach(Self.request(id), keeping: nil)
    disks[id]?.lives[0].madeAt = position
  }

  static func request(_ id: String) -> AttachRequest {
    var create = AttachRequest.CreateRequest(
      directory: id, sizeBytes: UInt64(sectors * History.sectorBytes))
    create.clusterBytes = clusterBytes
    return AttachRequest(id: id, source: .create(create))
  }

  func attach(_ id: String, _ source: AttachRequest.Source, descriptor: String) async throws {
    if disks[id] == nil {
      disks[id] = Disk(
        id: id, descriptor: descriptor, history: History(sectorCount: Self.sectors),
        current: Array(repeating: 0, count: Self.sectors))
    }
    disks[id]?.lives.append(Promise(askedAt: position))
    try await during(id, .attach) {
      _ = try await service.attach(AttachRequest(id: id, source: source), keeping: nil)
    }
    if let last = disks[id]?.lives.indices.last { disks[id]?.lives[last].madeAt = position }
  }

  func detach(_ id: String) async throws {
    guard let last = disks[id]?.lives.indices.last else { return }
    disks[id]?.lives[last].leavingAt = position
    try await during(id, .detach) {
      try await service.detach(id, mode: .safe, ifRevision: nil)
    }
    disks[id]?.lives[last].goneAt = position
  }

  @discardableResult
  func snapshot(_ id: String) async throws -> GUID {
    let guid = GUID.random()
    snapshots.append(
      Snapshot(
        disk: id, guid: guid, values: disks[id]?.current ?? [],
        promise: Promise(askedAt: position)))
    let number = snapshots.count - 1
    try await during(id, .flush) {
      var request = SnapshotRequest()
      request.guid = guid
      request.note.name = "of \(position)"
      _ = try await service.addSnapshot(id, request, ifRevision: nil, keeping: nil)
    }
    snapshots[number].promise.madeAt = position
    return guid
  }

  func annotate(_ id: String, _ guid: GUID) async throws {
    var change = SnapshotChange()
    change.summary = "kept"
    _ = try await service.changeSnapshot(id, guid, change, ifRevision: nil)
  }

  func goBack(_ id: String, to guid: GUID) async throws {
    guard let values = snapshots.first(where: { $0.guid == guid })?.values else { return }
    let step = disks[id]?.history.begin(.change(durable: true), at: position) ?? 0
    for (sector, value) in values.enumerated() {
      disks[id]?.history.record(step: step, sector: sector, value: value)
    }
    _ = try await service.switchTop(
      id, to: guid, keepingTopAs: nil, ifRevision: nil, keeping: nil)
    disks[id]?.history.end(step: step, at: position)
    disks[id]?.current = values
  }

  func checkpoint(_ id: String, _ name: String) async throws {
    try await during(id, .flush) {
      _ = try await service.addCheckpoint(id, CheckpointRequest(name: name), keeping: nil)
    }
  }

  func label(_ id: String) async throws {
    var change = DeviceChange()
    change.labels = ["tier": "gold"]
    _ = try await service.change(id, change, ifRevision: nil)
  }

  /// A job, until it has ended.
  @discardableResult
  func job(
    _ type: String, of device: String?, _ parameters: [String: JobValue],
    saving values: [UInt64]? = nil
  ) async throws -> String {
    var request = JobRequest(type: type, device: device)
    request.parameters = parameters
    let askedAt = position
    let id = try await service.addJob(request, keeping: nil).record.id
    work.append(Work(id: id, promise: Promise(askedAt: askedAt, madeAt: position), values: values))
    let record = try await Self.end(of: id, in: service)
    guard record.state == .succeeded else {
      throw Tool.Failure(
        description: "\(type): \(record.state), \(String(describing: record.error))")
    }
    work[work.count - 1].endedAt = position
    return id
  }

  static func end(of id: String, in service: Service) async throws -> JobRecord {
    let deadline = Deadline.after(seconds: 600)
    while true {
      let changes = service.changes
      let job = try await service.job(id).record
      guard !job.state.isFinal else { return job }
      guard !deadline.hasPassed else {
        throw Tool.Failure(
          description: "the job \(job.type) is \(job.state): \(String(describing: job.error))")
      }
      _ = await service.change(of: .job(id), since: changes, milliseconds: 50)
    }
  }

  func remove(snapshot guid: GUID, of id: String) async throws {
    let number = snapshots.firstIndex { $0.guid == guid }
    if let number { snapshots[number].promise.leavingAt = position }
    try await job("delete_snapshot", of: id, ["snapshot": .text(guid.description)])
    if let number { snapshots[number].promise.goneAt = position }
  }

  func clone(_ id: String, _ guid: GUID, as new: String, mode: String) async throws {
    var disk = Disk(
      id: new, descriptor: "\(new)/DiskDescriptor.xml",
      history: History(sectorCount: Self.sectors), current: Array(repeating: 0, count: Self.sectors)
    )
    disk.lives = [Promise(askedAt: position)]
    disk.exact = snapshots.first { $0.guid == guid }?.values
    disks[new] = disk
    try await job(
      "clone", of: id,
      [
        "snapshot": .text(guid.description), "mode": .text(mode),
        "to": .object(["id": .text(new), "directory": .text(new)]),
      ])
    disks[new]?.lives[0].madeAt = position
  }

  func target() async throws {
    _ = try await service.addTarget(
      TargetRequest(name: "nas", place: .directory(path: "main:backups")), keeping: nil)
  }

  func backup(_ id: String) async throws {
    try await job("backup", of: id, ["target": .text("nas")], saving: disks[id]?.current)
  }

  /// Ends this life of the service and begins the next.
  func restart() async throws {
    let steps = disks.keys.map { ($0, disks[$0]?.history.begin(.flush, at: position) ?? 0) }
    try fixture.stop()
    for (id, step) in steps { disks[id]?.history.end(step: step, at: position) }
    try await fixture.restart()
  }

  /// Disks come and go, are snapshotted, gone back to, cloned and backed up, in two lives of the service.
  func run() async throws {
    try await create("vm1")
    try write("vm1", 0..<40)
    try flush("vm1")
    try write("vm1", 8..<12)
    let first = try await snapshot("vm1")
    try write("vm1", 30..<50, durable: true)
    try await annotate("vm1", first)
    try await create("vm2")
    try write("vm2", 3..<17)
    try await detach("vm2")
    try await attach(
      "vm2", .descriptor(.init(path: "vm2/DiskDescriptor.xml")),
      descriptor: "vm2/DiskDescriptor.xml")
    try write("vm2", 16..<20)
    try await label("vm2")
    // A disk that is a list of files gets a descriptor with its first snapshot.
    try await attach(
      "loose", .deltas([.init(path: "loose/disk.hds")]), descriptor: "loose/DiskDescriptor.xml")
    try write("loose", 60..<70)
    try await snapshot("loose")
    try await clone("vm1", first, as: "full", mode: "full")
    try await clone("vm1", first, as: "linked", mode: "linked")
    try await target()
    try await backup("vm2")
    try write("vm2", 0..<9)
    let second = try await snapshot("vm2")
    try write("vm2", 40..<44)
    try await backup("vm2")
    try await checkpoint("vm2", "mine")
    try await goBack("vm2", to: second)
    try write("vm2", 41..<42)
    try await remove(snapshot: second, of: "vm2")
    try await detach("loose")
    try await restart()
    try write("vm1", 70..<74)
    try await snapshot("vm1")
    try await detach("vm2")
    try await create("vm3")
    try fixture.stop()
  }
}
