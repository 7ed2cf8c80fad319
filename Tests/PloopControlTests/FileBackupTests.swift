import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Backups in one file")
struct FileBackupTests {
  private static let formats: [TargetPlace.FileFormat] = [.raw, .ploop]

  private func bench(_ format: TargetPlace.FileFormat) async throws -> BackupServiceBench {
    let bench = try await BackupServiceBench()
    try await bench.target("one", .file(path: "main:copies/vm.out", format: format))
    try bench.write(stride(from: 0, to: 64, by: 2))
    return bench
  }

  private func begin(
    _ bench: BackupServiceBench, _ more: [String: JobValue] = [:],
    _ change: (inout JobRequest) -> Void = { _ in }
  ) async throws -> String {
    try await bench.begin(["target": .text("one")].merging(more) { $1 }, change)
  }

  private func names(_ bench: BackupServiceBench) throws -> [String] {
    try ImageFolder(path: "\(bench.fixture.images)/copies").names().filter { !$0.hasPrefix(".") }
      .sorted()
  }

  private func listed(_ bench: BackupServiceBench) async throws -> [BackupInfo] {
    try await bench.fixture.service.backups(on: "one", of: nil, after: nil, limit: 10).items
  }

  /// The clusters of the file, each of one byte, as a restore reads them.
  private func content(_ id: String, _ bench: BackupServiceBench) throws -> [UInt8] {
    let source = try bench.fixture.service.source(id, on: "one")
    let buffer = AlignedBuffer(count: 1 << 16)
    return try (0..<source.geometry.clusterCount).map { cluster in
      try source.read(into: buffer.region, from: cluster)
      return buffer.region.bytes[0]
    }
  }

  private func run(_ request: JobRequest, _ bench: BackupServiceBench) async throws -> JobRecord {
    let job = try await bench.fixture.service.addJob(request, keeping: nil)
    return try await bench.end(of: job.record.id)
  }

  @Test(
    "are listed, verified, restored and removed, and have their name once they are whole",
    arguments: formats)
  func life(format: TargetPlace.FileFormat) async throws {
    let bench = try await bench(format)
    let state = bench.model
    let id = try await begin(bench, [:], BackupServiceBench.halting)
    try await bench.halfway(id)
    #expect(try names(bench) == ["vm.out.\(id).part"])
    #expect(try await listed(bench).map(\.state) == [.partial])
    let orphans = try await bench.fixture.service.images(
      root: nil, state: .orphaned, after: nil, limit: 100)
    #expect(orphans.page.items.isEmpty)
    try await bench.release(id)
    #expect(try await bench.end(of: id).state == .succeeded)
    #expect(try names(bench) == ["vm.out"])
    let info = try #require(try await listed(bench).first)
    #expect(info.id == id && info.state == .complete && info.device == "vm")
    #expect(info.checkedBytes == (format == .raw ? 64 << 16 : 32 << 16))
    var verify = JobRequest(type: "verify")
    verify.parameters = ["target": .text("one"), "backup": .text(id)]
    #expect(
      try await run(verify, bench).result?["bytes_read"] == info.checkedBytes.map(JobValue.number))
    var restore = JobRequest(type: "restore")
    restore.parameters = [
      "target": .text("one"), "backup": .text(id),
      "to": .object(["id": .text("r"), "directory": .text("r")]),
    ]
    #expect(try await run(restore, bench).state == .succeeded)
    let disk = try bench.fixture.service.controller("r").device()
    for cluster in 0..<64 {
      #expect(try disk.bytes(UInt64(cluster) << 16, 1) == [state[cluster]])
    }
    // A cluster that is wrong is found by either.
    let file = try ImageFolder(path: "\(bench.fixture.images)/copies").open(
      "vm.out", writable: true)
    try file.write(AlignedBuffer([1, 2, 3]).region, at: 62 << 15)
    #expect(try await run(verify, bench).error?.code == "backup-corrupt")
    #expect(try await listed(bench).map(\.state) == [.damaged])
  }

  @Test(
    "a file that somebody has written since is not removed with its backup", arguments: formats)
  func removed(format: TargetPlace.FileFormat) async throws {
    let bench = try await bench(format)
    for isReplaced in [false, true] {
      let id = try await begin(bench)
      #expect(try await bench.end(of: id).state == .succeeded)
      if isReplaced {
        try Tool.shell(
          "cd '\(bench.fixture.images)/copies' && cp vm.out x && mv x vm.out")
      }
      try await bench.fixture.service.removeBackup(id, on: "one", cascading: false)
      #expect(try await listed(bench).isEmpty)
      #expect(try names(bench) == (isReplaced ? ["vm.out"] : []))
    }
  }

  @Test(
    "of a snapshot they go on where they were, and of a live disk begin anew", arguments: formats,
    [false, true])
  func interrupted(format: TargetPlace.FileFormat, isLive: Bool) async throws {
    let bench = try await bench(format)
    let state = bench.model
    let guid = try await bench.fixture.snapshot("vm")
    let id = try await begin(
      bench, isLive ? [:] : ["snapshot": .text(guid.description)], BackupServiceBench.halting)
    try await bench.halfway(id)
    try bench.fixture.stop()
    try await bench.fixture.restart()
    try await bench.release(id)
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded && job.result?["restarted"] == .flag(isLive))
    #expect(try await bench.log(of: id).contains { $0.hasPrefix("goes on at cluster ") } == !isLive)
    #expect(try content(id, bench) == state)
    #expect(try names(bench) == ["vm.out"])
  }

  @Test("half a file is its job's, and goes with it when the job is cancelled", arguments: formats)
  func cancelled(format: TargetPlace.FileFormat) async throws {
    let bench = try await bench(format)
    let id = try await begin(bench, [:], BackupServiceBench.halting)
    try await bench.halfway(id)
    _ = try await bench.fixture.service.cancelJob(id, ifRevision: nil)
    #expect(try await bench.end(of: id).state == .cancelled)
    #expect(try names(bench).isEmpty)
    #expect(try await listed(bench).isEmpty)
  }
}
