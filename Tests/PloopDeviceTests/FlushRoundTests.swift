import Glibc
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

@Suite("A flush round")
struct FlushRoundTests {
  let geometry = Geometry(version: .v2, clusterShift: 12, sizeBytes: 40 * 4096)

  /// A disk with its first two clusters durable, and a plan that runs `body` once, inside the next
  /// sync, before it is made.
  private func disk(
    _ body: @escaping @Sendable (Device) -> Void
  ) throws -> (fixture: DiskFixture, device: Device, syncs: Locked<Int>) {
    let plan = FaultPlan { _, _, _ in nil }
    let fixture = try DiskFixture(probe: plan)
    try fixture.make("top", geometry)
    let device = try fixture.attach(["top"])
    try device.put([UInt8](repeating: 5, count: 8192), at: 0)
    try device.flush()
    let syncs = Locked(0)
    plan.replace { [weak device] _, operation, _ in
      guard case .sync = operation, let device else { return nil }
      let isFirst = syncs.withLock { syncs -> Bool in
        syncs += 1
        return syncs == 1
      }
      return isFirst ? .stall { body(device) } : nil
    }
    return (fixture, device, syncs)
  }

  @Test("a flush that comes while one runs waits for a round of its own")
  func waitsForOwnRound() throws {
    let answered = Monitor(false)
    let early = Locked(false)
    let other = Locked<Thread?>(nil)
    let (_, device, syncs) = try disk { device in
      // Nothing is dirty now: the running round has taken everything.
      let thread = try? Thread(name: "flusher") {
        try? device.flush()
        answered.update { $0 = true }
      }
      other.withLock { $0 = thread }
      let seen: Bool? = answered.wait(until: .after(milliseconds: 200)) { $0 ? true : nil }
      early.withLock { $0 = seen == true }
    }
    try device.put([1], at: 0)
    try device.flush()
    #expect(answered.wait(until: .after(seconds: 10)) { $0 ? true : nil } == true)
    try #require(other.withLock { $0 }).join()
    #expect(!early.withLock { $0 })
    #expect(syncs.withLock { $0 } == 1)
    try device.close()
  }

  @Test("what is written while a round syncs belongs to the next round")
  func laterWrite() throws {
    let (_, device, syncs) = try disk { device in try? device.put([2], at: 1) }
    try device.put([1], at: 0)
    try device.flush()
    #expect(syncs.withLock { $0 } == 1)
    try device.flush()
    #expect(syncs.withLock { $0 } == 2)
    try device.flush()
    #expect(syncs.withLock { $0 } == 2)
    try device.close()
  }

  @Test("a cluster that is trimmed while a round syncs is not free after that round")
  func laterTrim() throws {
    let (_, device, _) = try disk { device in
      try? device.discard(offset: 0, length: 4096, durable: false)
    }
    try device.put([1], at: 5000)
    try device.flush()
    try device.put([3], at: 3 * 4096)
    #expect(try physical(device, 3) == 3)
    try device.flush()
    try device.put([4], at: 4 * 4096)
    #expect(try physical(device, 4) == 1)
    try device.close()
  }

  @Test(
    "a failed index write keeps its pages dirty and its freed clusters waiting; a later one works")
  func failedIndexWrite() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let fixture = try DiskFixture(probe: plan)
    try fixture.make("top", geometry)
    let device = try fixture.attach(["top"])
    try device.put([UInt8](repeating: 5, count: 8192), at: 0)
    try device.flush()
    try device.discard(offset: 0, length: 4096, durable: false)
    plan.replace { _, operation, _ in
      if case .write(offset: 64, _) = operation { return .error(EIO) }
      return nil
    }
    #expect(throws: DeviceError.self) { try device.flush() }
    #expect(device.failure == nil)
    try device.put([3], at: 3 * 4096)
    #expect(try physical(device, 3) == 3)
    plan.replace { _, _, _ in nil }
    try device.flush()
    try device.put([4], at: 4 * 4096)
    #expect(try physical(device, 4) == 1)
    try device.close()
    let again = try fixture.attach(["top"])
    #expect(try again.bytes(0, 4096).allSatisfy { $0 == 0 })
    #expect(try again.bytes(4096, 1) == [5])
    #expect(try again.bytes(3 * 4096, 1) == [3])
    try again.close()
  }

  private func physical(_ device: Device, _ cluster: UInt64) throws -> UInt64? {
    try device.runs(offset: cluster * 4096, length: 4096, limit: 1).first?.physical
  }
}
