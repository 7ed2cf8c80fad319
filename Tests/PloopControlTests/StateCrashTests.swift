import Foundation
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("The state and power loss", .serialized)
struct StateCrashTests {
  /// Disks, exports, snapshots, intents, kept answers and jobs come and go, in two lives of the service.
  private func live(_ bench: ServiceFixture, _ recording: StateRecording) async throws {
    func answered<Result>(_ body: (Service) async throws -> Result) async throws -> Result {
      let result = try await body(try bench.service)
      recording.answered()
      return result
    }
    for id in ["vm1", "vm2"] { _ = try await answered { _ in try await bench.create(id) } }
    let guid = try await answered { _ in try await bench.snapshot("vm1") }
    var change = DeviceChange()
    change.labels = ["tier": "gold"]
    _ = try await answered { [change] in
      try await $0.change("vm1", change, ifRevision: nil)
    }
    var request = JobRequest(type: "delete_snapshot", device: "vm1")
    request.parameters = ["snapshot": .text(guid.description)]
    let job = try await answered { [request] in
      try await $0.addJob(request, keeping: nil).record.id
    }
    let deadline = Deadline.after(seconds: 600)
    while !(try await bench.service.job(job).record.state.isFinal), !deadline.hasPassed {
      await Task.yield()
    }
    recording.answered()
    _ = try await answered { try await $0.detach("vm2", mode: .safe, ifRevision: nil) }
    try bench.stop()
    try await bench.restart()
    _ = try await answered { _ in try await bench.snapshot("vm1") }
    try bench.stop()
  }

  @Test(
    "whatever is left of the database is what some transaction has made of it, with all that was answered"
  )
  func powerLoss() async throws {
    let environment = ProcessInfo.processInfo.environment
    let samples = environment["PLOOPD_STATE_SAMPLES"].flatMap { Int($0) }
    let seed = environment["PLOOPD_SEED"].flatMap { UInt64($0) } ?? 1
    var recording: StateRecording?
    defer { recording?.end() }
    let bench = try ServiceFixture { recording = try StateRecording($0) }
    let recorded = try #require(recording)
    try await live(bench, recorded)
    let scratch = try TemporaryFolder()
    let result = try recorded.enumerate(
      in: ImageFolder(path: scratch.path), samples: samples ?? 1, stride: samples == nil ? 3 : 1,
      seed: seed)
    #expect(result.bad.prefix(5).joined(separator: "\n") == "")
    #expect(result.versions > 20 && result.states > 100)
    if samples != nil {
      print("states \(result.states) of \(result.versions) versions, bad \(result.bad.count)")
    }
  }

  @Test(
    "what is left of images and state together is what was promised of disks, snapshots, jobs and backups"
  )
  func imagesAndState() async throws {
    let environment = ProcessInfo.processInfo.environment
    let samples = environment["PLOOPD_HOST_SAMPLES"].flatMap { Int($0) }
    let seed = environment["PLOOPD_SEED"].flatMap { UInt64($0) } ?? 1
    defer { SQLiteWatch.end() }
    let recording = try HostRecording()
    try await recording.run()
    let scratch = try TemporaryFolder(beneath: "/dev/shm")
    let result = try await recording.enumerate(
      in: "\(scratch.path)/host", samples: samples ?? 1, stride: samples == nil ? 17 : 1,
      seed: seed)
    #expect(result.bad.prefix(5).joined(separator: "\n") == "")
    #expect(result.states > 50, "\(result.states)")
    if samples != nil {
      print("states of images and state \(result.states), bad \(result.bad.count)")
    }
  }
}
