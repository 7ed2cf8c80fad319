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

  @Test(
    "the timer's round makes durable what nobody flushes, syncs nothing for nothing, and shows its failure"
  )
  func timer() throws {
    let (_, device, syncs) = try disk { _ in }
    func made() -> Int { syncs.withLock { $0 } }
    device.flushIfDirty()
    #expect(made() == 0)
    for offset: UInt64 in [0, 8192] {
      let before = made()
      try device.put([1], at: offset)
      device.flushIfDirty()
      let after = made()
      #expect(after > before)
      device.flushIfDirty()
      #expect(made() == after)
    }
    #expect(try device.bytes(0, 1) == [1] && device.failure == nil)
    try device.close()
    let plan = FaultPlan { _, _, _ in nil }
    let broken = try DiskFixture(probe: plan)
    try broken.make("top", geometry)
    let other = try broken.attach(["top"])
    try other.put([1], at: 0)
    plan.replace { _, operation, _ in if case .sync = operation { .error(EIO) } else { nil } }
    other.flushIfDirty()
    #expect(other.failure != nil)
    #expect(throws: DeviceError.self) { try other.put([2], at: 0) }
    plan.replace { _, _, _ in nil }
    try other.close()
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

  @Test("the last round writes what it has taken, whatever the map says by then, and is the last")
  func last() throws {
    let order = Locked<[String]>([])
    let plan = FaultPlan { _, operation, _ in
      switch operation {
      case .sync: order.withLock { $0.append("sync") }
      case .write(offset: 64, _): order.withLock { $0.append("index") }
      default: break
      }
      return nil
    }
    let fixture = try DiskFixture(probe: plan)
    try fixture.make("top", geometry)
    let device = try fixture.attach(["top"])
    let writing = try #require(device.chain.writing)
    try device.put([1], at: 0)
    let last = writing.index.beginLast()
    let place = try device.map.place(of: 0)
    try device.map.pin(0)
    device.map.set(nil, for: 0)
    order.withLock { $0 = [] }
    try writing.index.end(last, until: .after(seconds: 600))
    #expect(order.withLock { $0 } == ["sync", "index", "sync"])
    // Nothing is written any more.
    writing.index.markDirty(0)
    try device.flush()
    #expect(order.withLock { $0 } == ["sync", "index", "sync"])
    device.map.set(place, for: 0)
    device.map.unpin(0)
    try device.close()
    let again = try fixture.attach(["top"])
    #expect(try again.bytes(0, 1) == [1])
    try again.close()
  }

  @Test("a last round that fails degrades the disk, at whichever call", arguments: 1...3)
  func lastFails(call: Int) throws {
    let calls = Locked<Int?>(nil)
    let plan = FaultPlan { _, operation, _ in
      let counts =
        switch operation {
        case .sync, .write(offset: 64, _): true
        default: false
        }
      guard counts else { return nil }
      return calls.withLock { count in
        guard let number = count else { return nil }
        count = number + 1
        return number + 1 == call ? .error(EIO) : nil
      }
    }
    let fixture = try DiskFixture(probe: plan)
    try fixture.make("top", geometry)
    let device = try fixture.attach(["top"])
    let index = try #require(device.chain.writing).index
    try device.put([1], at: 0)
    let last = index.beginLast()
    calls.withLock { $0 = 0 }
    #expect(throws: DeviceError.self) { try index.end(last, until: .after(seconds: 600)) }
    #expect(device.failure != nil)
    #expect(throws: DeviceError.self) { try device.flush() }
    try device.close()
  }

  @Test("a last round waits for room, and degrades the disk if there is none in time")
  func lastWithoutRoom() throws {
    let refusals = Locked(0)
    let plan = FaultPlan { _, operation, _ in
      guard case .write(offset: 64, _) = operation else { return nil }
      return refusals.withLock { left in
        guard left > 0 else { return nil }
        left -= 1
        return .error(ENOSPC)
      }
    }
    for (count, deadline) in [(3, Deadline.after(seconds: 600)), (1, .after(seconds: 0))] {
      let fixture = try DiskFixture(probe: plan)
      try fixture.make("top", geometry)
      let device = try fixture.attach(["top"])
      let index = try #require(device.chain.writing).index
      try device.put([1], at: 0)
      let last = index.beginLast()
      refusals.withLock { $0 = count }
      if count == 3 {
        try index.end(last, until: deadline)
        #expect(device.failure == nil)
      } else {
        #expect(throws: DeviceError.self) { try index.end(last, until: deadline) }
        #expect(device.failure != nil)
      }
      #expect(refusals.withLock { $0 } == 0)
      try device.close()
    }
  }

  private func physical(_ device: Device, _ cluster: UInt64) throws -> UInt64? {
    try device.runs(offset: cluster * 4096, length: 4096, limit: 1).first?.physical
  }
}
