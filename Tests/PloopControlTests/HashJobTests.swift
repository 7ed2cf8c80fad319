import Logging
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("The hash of a disk")
struct HashJobTests {
  @Test(
    "is that of its bytes and holes, whatever the size of clusters",
    arguments: [1 << 12, 1 << 16, 1 << 21])
  func content(clusterBytes: UInt64) async throws {
    let folder = try TemporaryFolder()
    try Tool.shell("mkdir '\(folder.path)/images' '\(folder.path)/state'")
    let service = try Service(
      roots: Roots([("main", "\(folder.path)/images")]),
      store: Store(path: "\(folder.path)/state"), engine: IOEngine(threadLimit: 4),
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    try service.recover()
    var create = AttachRequest.CreateRequest(directory: "vm", sizeBytes: 4 << 20)
    create.clusterBytes = clusterBytes
    _ = try await service.attach(AttachRequest(id: "vm", source: .create(create)), keeping: nil)
    let disk = try service.controller("vm").device()
    let seed = UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    var generator = SeededGenerator(seed: seed)
    // Every second cluster: the most holes that there can be.
    for place in stride(from: 0, to: UInt64(4 << 20), by: Int(2 * clusterBytes)) {
      let bytes = (0..<512).map { _ in UInt8.random(in: 0...255, using: &generator) }
      try disk.put(bytes, at: place)
    }
    let plan = try await service.planJob(JobRequest(type: "hash", device: "vm"))
    #expect(plan.clusters == disk.mappedClusters && plan.bytes == (4 << 20) / 2)
    #expect(plan.requiredBytes == 0)
    let id = try await service.addJob(JobRequest(type: "hash", device: "vm"), keeping: nil)
      .record.id
    let deadline = Deadline.after(seconds: 600)
    var job = try await service.job(id)
    while !job.record.state.isFinal, !deadline.hasPassed {
      let changes = service.changes
      job = try await service.job(id)
      if job.record.state.isFinal { break }
      _ = await service.change(of: .job(id), since: changes, milliseconds: 100)
    }
    #expect(job.record.state == .succeeded)
    #expect(!job.isResumable)
    #expect(job.record.result?["sha256"] == .text(SHA256.hexDigest(try disk.bytes(0, 4 << 20))))
    #expect(job.record.result?["bytes_read"] == .number(2 << 20))
    #expect(job.record.result?["mapped_bytes"] == .number(2 << 20))
    let progress = job.record.progress
    #expect(progress.doneBytes == 4 << 20 && progress.totalBytes == 4 << 20)
    #expect(progress.doneClusters == (4 << 20) / clusterBytes)
    #expect(progress.totalClusters == progress.doneClusters)
    #expect(service.stop(until: .after(seconds: 600)))
  }

  @Test("takes no parameters")
  func parameters() {
    let refusal = #expect(throws: ServiceError.self) {
      try HashJob(["snapshot": .text("x")], device: "vm")
    }
    #expect(refusal?.code.rawValue == "unknown-field")
    #expect(refusal?.pointer == "/params/snapshot")
  }
}
