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
