import PloopDevice
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("A disk that was handed over")
struct HandOverTests {
  @Test("is nobody's to detach until its job is over, or somebody has taken it back")
  func detach() async throws {
    let bench = try await BackupServiceBench()
    try bench.write(0..<8)
    // Any job that is not over: what counts is that the record names it.
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    let service = try bench.fixture.service
    let handOver = HandOver(device: "vm", job: id, service)
    #expect(!handOver.isMade)
    let controller = try service.controller("vm")
    let declined = try await onThread {
      try handOver.make(controller, until: .after(seconds: 600)) { false }
    }
    #expect(!declined && !handOver.isMade)
    #expect(try !bench.disk.isSuspended)
    let made = try await onThread {
      try handOver.make(controller, until: .after(seconds: 600)) { true }
    }
    #expect(try made && handOver.isMade && bench.disk.isSuspended)
    for mode in [DetachMode.safe, .hard] {
      let code = try await bench.fixture.code {
        try await $0.detach("vm", mode: mode, ifRevision: nil)
      }
      #expect(code == "device-busy")
    }
    #expect(try await service.job(id).record.state.isFinal == false)
    var change = DeviceChange()
    change.suspended = false
    change.isForced = true
    _ = try await service.change("vm", change, ifRevision: nil)
    #expect(!service.isHandedOver("vm", by: id))
    _ = try await service.cancelJob(id, ifRevision: nil)
    _ = try await bench.end(of: id)
    try await service.detach("vm", mode: .hard, ifRevision: nil)
  }

  @Test("is told of while nobody else waits for that, and is not taken back meanwhile")
  func telling() async throws {
    let bench = try await BackupServiceBench()
    let (handOver, id) = try await handedOver(bench)
    let service = try bench.fixture.service
    // Enough for each thread of the control plane to have one.
    for number in 0..<8 { try await bench.fixture.create("other\(number)") }
    let (isTelling, mayEnd) = (Monitor(false), Monitor(false))
    let limit = Deadline.after(seconds: 300)
    async let told: Void = onThread {
      try handOver.telling { () throws(ServiceError) in
        isTelling.update { $0 = true }
        guard mayEnd.wait(until: limit, { $0 ? true : nil }) != nil else {
          throw ServiceError(.targetUnreachable, "nobody has let it end")
        }
      }
    }
    try await onThread { _ = isTelling.wait(until: limit) { $0 ? true : nil } }
    for number in 0..<8 {
      var change = DeviceChange()
      change.labels = ["a": "b"]
      _ = try await service.change("other\(number)", change, ifRevision: nil)
    }
    let isLate = limit.hasPassed
    #expect(!isLate)
    async let back = service.change("vm", forcedResume, ifRevision: nil)
    while !service.tellings.isWanted("vm"), !limit.hasPassed { await Task.yield() }
    // Nobody begins to tell it again, and it is not taken back before the first is done.
    #expect(await code { try handOver.telling {} } == "device-busy")
    #expect(service.isHandedOver("vm", by: id))
    #expect(throws: ServiceError.self) { try service.tellings.requireNone(of: "vm") }
    mayEnd.update { $0 = true }
    try await told
    _ = try await back
    #expect(!service.isHandedOver("vm", by: id) && !service.tellings.isWanted("vm"))
    #expect(await code { try handOver.telling {} } == "precondition-failed")
    _ = try await service.cancelJob(id, ifRevision: nil)
    _ = try await bench.end(of: id)
  }

  @Test("comes back, whatever its autostart says, until its job is over, and nobody else gets it")
  func comesBack() async throws {
    let bench = try await BackupServiceBench()
    var change = DeviceChange()
    change.autostart = false
    _ = try await bench.fixture.service.change("vm", change, ifRevision: nil)
    // No service outlives its life here: the next one would wait for it.
    let id = try await handedOver(bench).job
    for _ in 0..<2 {
      try bench.fixture.stop()
      try await bench.fixture.restart()
      let device = try await bench.fixture.service.device("vm")
      #expect(try bench.fixture.service.isHandedOver("vm", by: id))
      let condition = device.conditions.first { $0.type == "HandedOver" }
      #expect(condition?.reason == "NotTold")
      let deltas = device.deltas.map { AttachRequest.DeltaReference(path: $0.path) }
      let code = try await bench.fixture.code {
        _ = try await $0.attach(
          AttachRequest(id: "thief", source: .deltas(deltas)), keeping: nil)
      }
      #expect(code == "image-in-use")
    }
    _ = try await bench.fixture.service.change("vm", forcedResume, ifRevision: nil)
    _ = try await bench.fixture.service.cancelJob(id, ifRevision: nil)
    let conditions = try await bench.fixture.service.device("vm").conditions
    #expect(conditions.allSatisfy { $0.type != "HandedOver" })
    try bench.fixture.stop()
    try await bench.fixture.restart()
    let gone = try await bench.fixture.code { _ = try await $0.device("vm") }
    #expect(gone == "device-not-found")
  }

  @Test("is told of to nobody once it was taken back, also where it is gone since")
  func gone() async throws {
    let bench = try await BackupServiceBench()
    var change = DeviceChange()
    change.autostart = false
    _ = try await bench.fixture.service.change("vm", change, ifRevision: nil)
    let id = try await handedOver(bench).job
    _ = try await bench.fixture.service.change("vm", forcedResume, ifRevision: nil)
    try bench.fixture.stop()
    try await bench.fixture.restart()
    let code = try await bench.fixture.code { _ = try await $0.device("vm") }
    #expect(code == "device-not-found")
    let handOver = HandOver(device: "vm", job: id, try bench.fixture.service)
    let isTold = Locked(false)
    let refusal = await self.code { try handOver.telling { isTold.withLock { $0 = true } } }
    #expect(refusal == "precondition-failed" && !isTold.withLock { $0 })
  }

  private var forcedResume: DeviceChange {
    var change = DeviceChange()
    change.suspended = false
    change.isForced = true
    return change
  }

  /// The disk `vm` is handed over by a job that is not over. Any job will do: what counts is that the record names it.
  private func handedOver(_ bench: BackupServiceBench) async throws -> (HandOver, job: String) {
    try bench.write(0..<8)
    let id = try await bench.begin([:], BackupServiceBench.halting)
    try await bench.halfway(id)
    let service = try bench.fixture.service
    let handOver = HandOver(device: "vm", job: id, service)
    let controller = try service.controller("vm")
    let isMade = try await onThread {
      try handOver.make(controller, until: .after(seconds: 600)) { true }
    }
    try #require(isMade)
    return (handOver, id)
  }

  private func code(_ body: @escaping @Sendable () throws -> Void) async -> String? {
    do { try await onThread(body) } catch { return (error as? ServiceError)?.code.rawValue }
    return nil
  }

  /// Calls what waits for a device's turn, which no task may.
  private func onThread<Result: Sendable>(
    _ body: @escaping @Sendable () throws -> Result
  ) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
      do throws(IOError) {
        try Thread(name: "test") { continuation.resume(with: Swift.Result { try body() }) }
          .detach()
      } catch { continuation.resume(throwing: error) }
    }
  }
}
