import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Increments of snapshots")
struct SnapshotBackupTests {
  private static let incremental: [String: JobValue] = ["mode": .text("incremental")]

  /// A backup of a snapshot, which is kept with what it has to hold.
  @discardableResult
  private func backup(
    _ guid: GUID, _ state: [UInt8], _ bench: BackupServiceBench,
    _ more: [String: JobValue] = [:]
  ) async throws -> [String: JobValue] {
    let job = try await bench.end(
      of: bench.begin(["snapshot": .text(guid.description)].merging(more) { $1 }))
    guard job.state == .succeeded, let result = job.result else {
      throw Tool.Failure(description: "\(job.state): \(String(describing: job.error))")
    }
    bench.saved.append((job.id, state))
    return result
  }

  private func take(_ bench: BackupServiceBench) async throws -> (GUID, [UInt8]) {
    let state = bench.model
    return (try await bench.fixture.snapshot("vm"), state)
  }

  private func delete(_ guid: GUID, _ bench: BackupServiceBench) async throws {
    var request = JobRequest(type: "delete_snapshot", device: "vm")
    request.parameters = ["snapshot": .text(guid.description)]
    let job = try await bench.fixture.service.addJob(request, keeping: nil)
    #expect(try await bench.end(of: job.record.id).state == .succeeded)
  }

  /// Why a snapshot is copied as a whole.
  private func reason(
    _ guid: GUID, _ state: [UInt8], _ bench: BackupServiceBench
  ) async throws -> String {
    // What auto has a reason for, incremental is refused with.
    let code = try await bench.fixture.code { _ in
      _ = try await bench.begin(
        ["snapshot": .text(guid.description), "mode": .text("incremental")])
    }
    #expect(code == "increment-not-possible")
    let result = try await backup(guid, state, bench)
    #expect(result["mode_used"] == .text("full"))
    guard case .text(let reason)? = result["degraded_reason"] else { return "" }
    return reason
  }

  @Test(
    "of a dozen snapshots each holds what its own was, and nothing is read but what lies in the files between"
  )
  func increments() async throws {
    let seed = UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    var random = SeededGenerator(seed: seed)
    let bench = try await BackupServiceBench()
    /// What some file beneath the top maps, and what the top does.
    var below: Set<Int> = []
    for round in 0..<12 {
      var own: Set<Int> = []
      for _ in 0..<8 {
        let start = Int.random(in: 0..<64, using: &random)
        let clusters = start..<min(64, start + Int.random(in: 1...5, using: &random))
        switch Int.random(in: 0..<3, using: &random) {
        case 0:
          try bench.zero(clusters)
          // Where something lies beneath a zero is mapped, and elsewhere nothing.
          own.subtract(clusters)
          own.formUnion(below.intersection(clusters))
        case 1:
          try bench.trim(clusters)
          own.subtract(clusters)
          own.formUnion(below.intersection(clusters))
        default:
          try bench.write(clusters)
          own.formUnion(clusters)
        }
      }
      let (guid, state) = try await take(bench)
      // What is written later is none of it.
      let next = Int.random(in: 0..<64, using: &random)
      try bench.write([next])
      let plan = try await bench.fixture.service.planJob(
        bench.request(["snapshot": .text(guid.description)]))
      #expect(plan.mode == (round == 0 ? "full" : "incremental"), "seed \(seed)")
      #expect(plan.clusters == UInt64(own.count), "seed \(seed)")
      let result = try await backup(guid, state, bench)
      #expect(
        result["degraded_reason"]
          == (round == 0 ? .text("the target has no backup of vm") : nil))
      #expect(result["bytes_read"] == .number(UInt64(own.count) << 16), "seed \(seed)")
      let job = try await bench.fixture.service.job(try #require(bench.saved.last?.id)).record
      if round > 0 { #expect(job.progress.totalClusters == UInt64(own.count)) }
      // The top has what was written behind the snapshot.
      let (rest, later) = try await take(bench)
      let second = try await backup(rest, later, bench, Self.incremental)
      #expect(second["bytes_read"] == .number(1 << 16))
      below.formUnion(own.union([next]))
    }
    #expect(try bench.chains.count == 1 && bench.saved.count == 24)
    #expect(try bench.disk.checkpoints.isEmpty)
    try bench.expectSaved()
  }

  @Test(
    "a snapshot is known again after the service and the disk were away, and twice it is nothing")
  func again() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<8)
    let (first, state) = try await take(bench)
    try await backup(first, state, bench)
    let same = try await backup(first, state, bench, Self.incremental)
    #expect(same["bytes_read"] == .number(0) && same["bytes_written"] == .number(0))
    try bench.write([3])
    let (second, later) = try await take(bench)
    try bench.fixture.stop()
    try await bench.fixture.restart()
    let result = try await backup(second, later, bench, Self.incremental)
    #expect(result["bytes_read"] == .number(1 << 16))
    try bench.expectSaved()
  }

  @Test("after the disk has grown an increment has the larger disk")
  func grown() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<4)
    let (first, state) = try await take(bench)
    try await backup(first, state, bench)
    if case .job(let job) = try await bench.fixture.service.resize(
      "vm", to: UInt64(80 << 16), ifRevision: nil)
    {
      #expect(try await bench.end(of: job.record.id).state == .succeeded)
    }
    bench.grown(to: 80)
    try bench.write([70, 79])
    let (second, later) = try await take(bench)
    let result = try await backup(second, later, bench, Self.incremental)
    #expect(result["bytes_read"] == .number(2 << 16))
    try bench.expectSaved()
  }

  @Test("a snapshot that was merged in between is in the files above it, and costs no certainty")
  func mergedBetween() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<8)
    let (first, state) = try await take(bench)
    try await backup(first, state, bench)
    try bench.write([1, 20])
    try bench.zero([2])
    let (between, _) = try await take(bench)
    try bench.write([1, 30])
    let (last, later) = try await take(bench)
    try await delete(between, bench)
    let result = try await backup(last, later, bench, Self.incremental)
    #expect(result["bytes_read"] == .number(4 << 16))
    try bench.expectSaved()
  }

  @Test("where it is not certain what a snapshot has more than the backup, all of it is copied")
  func distrust() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<8)
    let (oldest, whole) = try await take(bench)
    try bench.write([1])
    let (first, state) = try await take(bench)
    try await backup(first, state, bench)
    // An older one does not build on it.
    #expect(try await reason(oldest, whole, bench).contains("does not build on \(first)"))
    try bench.write([2])
    let (second, later) = try await take(bench)
    // The newest chain is that of the oldest, on which both build.
    let back = try await backup(second, later, bench)
    #expect(back["mode_used"] == .text("incremental") && back["bytes_read"] == .number(2 << 16))
    // What it builds on is merged away beneath it.
    try await delete(oldest, bench)
    try bench.write([3])
    let (third, after) = try await take(bench)
    #expect(try await reason(third, after, bench).contains("was merged"))
    // It is gone itself.
    try await delete(third, bench)
    try bench.write([4])
    let (fourth, newest) = try await take(bench)
    #expect(try await reason(fourth, newest, bench).contains("does not build on \(third)"))
    // Another program has touched one of its files.
    try Tool.shell("touch '\(bench.fixture.images)'/vm/root.hds*")
    try bench.write([5])
    let (fifth, touched) = try await take(bench)
    #expect(try await reason(fifth, touched, bench).contains("merged, moved or written"))
    try bench.expectSaved()
  }

  @Test("a disk that went back to a snapshot has a branch, on which the old one is not built")
  func branch() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<8)
    let (trunk, state) = try await take(bench)
    try await backup(trunk, state, bench)
    try bench.write([1])
    let (old, one) = try await take(bench)
    try await backup(old, one, bench, Self.incremental)
    _ = try await bench.fixture.service.switchTop(
      "vm", to: trunk, keepingTopAs: nil, ifRevision: nil, keeping: nil)
    bench.returned(to: state)
    try bench.write([2])
    let (new, other) = try await take(bench)
    #expect(try await reason(new, other, bench).contains("does not build on \(old)"))
    // The branch itself goes on.
    try bench.write([3])
    let (next, more) = try await take(bench)
    #expect(try await backup(next, more, bench)["bytes_read"] == .number(1 << 16))
    try bench.expectSaved()
  }

  // MARK: Beside backups of the live disk

  @Test(
    "snapshots and the disk itself take turns on one chain, as long as the checkpoint says what was written"
  )
  func turns() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<20)
    let (older, before) = try await take(bench)
    try await bench.backup()
    for round in 0..<4 {
      try bench.write([round, 30])
      try bench.zero([10 + round])
      let (guid, state) = try await take(bench)
      // It is copied again by who comes later, and is not of the snapshot.
      try bench.write([40])
      let result = try await backup(guid, state, bench, Self.incremental)
      // The checkpoint says that 40 was written, where at first nothing is.
      #expect(result["bytes_read"] == .number((round == 0 ? 3 : 4) << 16))
      let (second, same) = try await take(bench)
      #expect(try await backup(second, same, bench)["bytes_read"] == .number(1 << 16))
      let live = try await bench.backup(Self.incremental)
      #expect(live["bytes_read"] == .number(4 << 16))
      #expect(try bench.disk.checkpoints.map(\.name) == ["backup-nas"])
    }
    #expect(try bench.chains.count == 1)
    // One that is older than the disk's backup is no increment on it.
    #expect(try await reason(older, before, bench).contains("made after the last backup"))
    try bench.expectSaved()
  }

  @Test("a disk that came to be another one since its snapshot was copied is copied as a whole")
  func otherWay() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<8)
    try await bench.backup()
    let (guid, state) = try await take(bench)
    try await backup(guid, state, bench, Self.incremental)
    try bench.write([3])
    try await delete(guid, bench)
    let result = try await bench.backup()
    #expect(result["mode_used"] == .text("full"))
    guard case .text(let reason)? = result["degraded_reason"] else {
      Issue.record("no reason")
      return
    }
    #expect(reason.contains("is not beneath the disk any more"), "\(reason)")
    // No checkpoint says what was written before a snapshot, once the disk went back.
    try bench.write([5])
    let (last, later) = try await take(bench)
    _ = try await bench.fixture.service.switchTop(
      "vm", to: last, keepingTopAs: nil, ifRevision: nil, keeping: nil)
    #expect(try await self.reason(last, later, bench).contains("says nothing"))
    try bench.expectSaved()
  }

  // MARK: Interrupted

  @Test(
    "it goes on where it was, whatever guests have written meanwhile", arguments: [false, true])
  func interrupted(isAboveLive: Bool) async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    if isAboveLive {
      try await bench.backup()
    } else {
      let (guid, state) = try await take(bench)
      try await backup(guid, state, bench)
    }
    try bench.write(stride(from: 1, to: 40, by: 2))
    try bench.zero([41, 43])
    let (guid, state) = try await take(bench)
    let id = try await bench.begin(
      ["snapshot": .text(guid.description), "mode": .text("incremental")],
      BackupServiceBench.halting)
    try await bench.halfway(id)
    // A checkpoint says more from now on than it did when the copying began.
    try bench.write([0, 50])
    try bench.fixture.stop()
    try await bench.fixture.restart()
    try bench.write([4, 60])
    try await bench.release(id)
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded, "\(String(describing: job.error))")
    #expect(job.result?["mode_used"] == .text("incremental"))
    let line = try #require(
      try await bench.log(of: id).first { $0.hasPrefix("goes on at cluster ") })
    #expect(!line.hasPrefix("goes on at cluster 0:"))
    #expect(try bench.content(id) == state)
    try bench.expectSaved()
  }

  @Test("where its files were touched while it was away it is begun anew")
  func touched() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<64)
    let (first, whole) = try await take(bench)
    try await backup(first, whole, bench)
    try bench.write(0..<32)
    let (guid, state) = try await take(bench)
    let id = try await bench.begin(
      ["snapshot": .text(guid.description)], BackupServiceBench.halting)
    try await bench.halfway(id)
    try bench.fixture.stop()
    try Tool.shell("touch '\(bench.fixture.images)'/vm/root.hds*")
    try await bench.fixture.restart()
    try await bench.release(id)
    let job = try await bench.end(of: id)
    #expect(job.state == .succeeded, "\(String(describing: job.error))")
    #expect(job.result?["mode_used"] == .text("full"))
    #expect(try await bench.log(of: id).contains { $0.hasPrefix("the backup is begun anew") })
    #expect(try bench.content(id) == state)
    #expect(try bench.chains.count == 2)
    try bench.expectSaved()
  }

  @Test("a chain that cannot be read when it is built on is left, and all is copied")
  func corrupted() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<4)
    let (first, whole) = try await take(bench)
    try await backup(first, whole, bench)
    let (id, _) = bench.saved.removeLast()
    try bench.write([2])
    let (second, state) = try await take(bench)
    try Tool.shell(
      "printf 'x' | dd of='\(bench.fixture.images)/backups/vm/\(id)/\(id).sums' bs=1 seek=40 conv=notrunc 2> /dev/null"
    )
    let result = try await backup(second, state, bench)
    #expect(result["mode_used"] == .text("full") && result["bytes_read"] == .number(4 << 16))
    try bench.expectSaved()
  }
}
