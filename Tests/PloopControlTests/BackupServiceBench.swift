import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

/// A service with a disk `vm` of 64 clusters of 64 KiB, and a target `nas`.
final class BackupServiceBench {
  static let shift = 16
  static let clusterBytes = 1 << shift

  let fixture: ServiceFixture
  private var lastValue: UInt8 = 0
  /// The disk by clusters, each of one byte; and as it was at each backup.
  private(set) var model: [UInt8]
  var saved: [(id: String, model: [UInt8])] = []

  init(clusters: Int = 64) async throws {
    fixture = try ServiceFixture()
    model = Array(repeating: 0, count: clusters)
    try await fixture.create("vm", sizeBytes: UInt64(clusters * Self.clusterBytes))
    try await target("nas", .directory(path: "main:backups"))
  }

  func target(_ name: String, _ place: TargetPlace) async throws {
    _ = try await fixture.service.addTarget(
      TargetRequest(name: name, place: place), keeping: nil)
  }

  var disk: Device { get throws { try fixture.service.controller("vm").device() } }

  /// Writes whole clusters, each with another byte.
  func write(_ clusters: some Sequence<Int>) throws {
    for cluster in clusters {
      lastValue = lastValue == 250 ? 1 : lastValue + 1
      model[cluster] = lastValue
      try disk.put(
        Array(repeating: lastValue, count: Self.clusterBytes), at: UInt64(cluster) << 16)
    }
  }

  func zero(_ clusters: some Sequence<Int>) throws {
    for cluster in clusters {
      model[cluster] = 0
      try disk.writeZeroes(
        offset: UInt64(cluster) << 16, length: 1 << 16, keepAllocated: false, onlyIfFast: false,
        durable: false)
    }
  }

  func trim(_ clusters: some Sequence<Int>) throws {
    for cluster in clusters {
      model[cluster] = 0
      try disk.discard(offset: UInt64(cluster) << 16, length: 1 << 16, durable: false)
    }
  }

  /// The disk went back to a state that it had.
  func returned(to state: [UInt8]) { model = state }

  func grown(to clusters: Int) {
    model += Array(repeating: 0, count: clusters - model.count)
  }

  // MARK: Jobs

  func request(_ parameters: [String: JobValue]) -> JobRequest {
    var request = JobRequest(type: "backup", device: "vm")
    request.parameters = ["target": .text("nas")].merging(parameters) { _, new in new }
    return request
  }

  func begin(
    _ parameters: [String: JobValue] = [:], _ change: (inout JobRequest) -> Void = { _ in }
  ) async throws -> String {
    var request = request(parameters)
    change(&request)
    return try await fixture.service.addJob(request, keeping: nil).record.id
  }

  /// A job that copies its first cluster at once, and the next one not before it is told to: however slow the
  /// machine is, it is there to be looked at, paused or killed in the middle.
  static let halting: @Sendable (inout JobRequest) -> Void = { $0.limits.bytesPerSecond = 1 }

  /// Waits until such a job has copied what it copies at once.
  @discardableResult
  func halfway(_ id: String) async throws -> JobRecord {
    try await self.await(id) { $0.record.progress.doneClusters > 0 }.record
  }

  /// Lets such a job go on.
  func release(_ id: String) async throws {
    var change = JobChange()
    change.limits.bytesPerSecond = 0
    _ = try await fixture.service.changeJob(id, change, ifRevision: nil)
  }

  /// Waits until a job is as is wished.
  func await(_ id: String, until isReached: (JobInfo) throws -> Bool) async throws -> JobInfo {
    let service = try fixture.service
    let deadline = Deadline.after(seconds: 600)
    while true {
      let changes = service.changes
      let job = try await service.job(id)
      if try isReached(job) { return job }
      guard !job.record.state.isFinal, !deadline.hasPassed else {
        throw Tool.Failure(
          description: "the job is \(job.record.state), \(String(describing: job.record.error))")
      }
      _ = await service.change(of: .job(id), since: changes, milliseconds: 50)
    }
  }

  func end(of id: String) async throws -> JobRecord {
    try await self.await(id) { $0.record.state.isFinal }.record
  }

  /// A backup of the disk as it is now.
  @discardableResult
  func backup(_ parameters: [String: JobValue] = [:]) async throws -> [String: JobValue] {
    let state = model
    let job = try await end(of: begin(parameters))
    guard job.state == .succeeded, let result = job.result else {
      throw Tool.Failure(description: "\(job.state): \(String(describing: job.error))")
    }
    saved.append((job.id, state))
    return result
  }

  func log(of id: String) async throws -> [String] {
    try await fixture.service.jobLog(id, after: 0, limit: 1_000).map(\.message)
  }

  // MARK: What is on the target

  var directory: DirectoryTarget {
    get throws {
      try DirectoryTarget(in: ImageFolder(path: "\(fixture.images)/backups"))
    }
  }

  var chains: [String] { get throws { try directory.chains(of: "vm") } }

  func chain(of id: String) throws -> BackupChain {
    for name in try chains {
      let chain = try directory.chain(name, of: "vm")
      if chain.has(id) { return chain }
    }
    throw Tool.Failure(description: "there is no backup \(id)")
  }

  func manifest(_ id: String) throws -> PointManifest { try chain(of: id).manifest(id) }

  /// The clusters of a point, each of one byte.
  func content(_ id: String) throws -> [UInt8] {
    let reader = try PointReader(id, of: chain(of: id))
    let buffer = AlignedBuffer(count: Self.clusterBytes)
    return try (0..<reader.geometry.clusterCount).map { cluster in
      try reader.read(into: buffer.region, from: cluster)
      let bytes = buffer.region.bytes
      #expect(bytes.allSatisfy { $0 == bytes[0] })
      return bytes[0]
    }
  }

  func expectSaved() throws {
    for (id, model) in saved { #expect(try content(id) == model, "\(id)") }
  }
}
