import Glibc
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

/// Who waits inside the gate must be waited for by nobody who waits for it (docs/locking.md).
@Suite("Waiting and the gate")
struct WaitingTests {
  private static let cluster = 4096

  /// A disk whose clusters lie in the file the other way round: a read has as many pieces as clusters.
  private func shredded(_ fixture: DiskFixture, clusters: Int) throws -> Device {
    try fixture.make(
      "a",
      Geometry(
        newDisk: .v2, clusterBytes: UInt64(Self.cluster), sizeBytes: UInt64(clusters * Self.cluster)
      ))
    let device = try fixture.attach(["a"])
    for index in (0..<clusters).reversed() {
      try device.put(
        [UInt8](repeating: UInt8(truncatingIfNeeded: index + 1), count: Self.cluster),
        at: UInt64(index * Self.cluster))
    }
    return device
  }

  @Test("who asks whether a disk is suspended waits for nobody, also while it drains")
  func asked() throws {
    let fixture = try DiskFixture()
    let device = try shredded(fixture, clusters: 2)
    let pass = try device.admitted()
    let ended = Monitor(false)
    let thread = try Thread(name: "suspends") {
      try? device.suspend(until: .after(seconds: 20))
      ended.update { $0 = true }
    }
    while !device.gate.isClosed { sched_yield() }
    #expect(device.isSuspended)
    #expect(!ended.withLock { $0 })
    device.gate.leave(pass)
    thread.join()
    #expect(device.isSuspended)
    device.resume()
    #expect(!device.isSuspended)
    try device.close()
  }

  @Test("a disk that has been closed is resumed by nobody, and changed by nobody")
  func closedForGood() throws {
    let fixture = try DiskFixture()
    let device = try shredded(fixture, clusters: 2)
    try device.suspend(until: .after(seconds: 120))
    try device.detach(until: .after(seconds: 120))
    device.resume()
    #expect(device.isSuspended && device.gate.isClosed)
    #expect(throws: DeviceError.self) {
      try device.whileClosed(until: .after(seconds: 120)) {}
    }
  }

  @Test("a cold read that would wait for a thread is not begun inside the gate")
  func noRings() throws {
    let fixture = try DiskFixture()
    let device = try shredded(fixture, clusters: 8)
    let engine = IOEngine(threadLimit: 1, rings: false)
    defer { engine.stop(until: .after(seconds: 10)) }
    // All threads of the engine are busy with something that only an open gate ends.
    let go = Monitor(false)
    engine.submit { _ = go.wait { $0 ? true : nil } }
    defer { go.update { $0 = true } }
    let lane = ReadLane(engine, bell: try Bell())
    let region = AlignedBuffer(count: 8 * Self.cluster).region
    #expect(!device.beginRead(into: region, at: 0, on: lane) { _ in Issue.record("it was begun") })
    try device.suspend(until: .after(seconds: 10))
    device.resume()
    try device.close()
  }

  @Test("a read of more pieces than a ring holds is not begun on it, a smaller one is")
  func fullRing() throws {
    let fixture = try DiskFixture()
    let device = try shredded(fixture, clusters: 140)
    let engine = IOEngine(threadLimit: 1, rings: true)
    defer { engine.stop(until: .after(seconds: 10)) }
    let lane = ReadLane(engine, bell: try Bell())
    let whole = AlignedBuffer(count: 140 * Self.cluster).region
    #expect(!device.beginRead(into: whole, at: 0, on: lane) { _ in Issue.record("it was begun") })
    let part = AlignedBuffer(count: 100 * Self.cluster).region
    let ended = Locked(0)
    #expect(
      device.beginRead(into: part, at: 0, on: lane) { result in
        if case .success = result { ended.withLock { $0 += 1 } }
      })
    lane.submit()
    lane.drain()
    #expect(ended.withLock { $0 } == 1)
    #expect(part.bytes == (0..<100).flatMap { [UInt8](repeating: UInt8($0 + 1), count: 4096) })
    try device.suspend(until: .after(seconds: 10))
    device.resume()
    try device.close()
  }

  @Test("whether a disk is suspended can be asked while it is being suspended")
  func askedMeanwhile() throws {
    let fixture = try DiskFixture()
    let device = try shredded(fixture, clusters: 4)
    let pass = try device.admitted()
    let ended = Monitor(false)
    let thread = try Thread(name: "suspend") {
      if (try? device.suspend(until: .never)) != nil { ended.update { $0 = true } }
    }
    // Nobody admits requests any more, and one is still inside.
    while !device.gate.isClosed { sched_yield() }
    #expect(device.isSuspended)
    #expect(!ended.withLock { $0 })
    device.gate.leave(pass)
    thread.join()
    #expect(ended.withLock { $0 } && device.isSuspended)
    device.resume()
    #expect(!device.isSuspended)
    // One that could not be suspended is not.
    let other = try device.admitted()
    #expect(throws: DeviceError.self) { try device.suspend(until: .after(milliseconds: 1)) }
    #expect(!device.isSuspended && !device.gate.isClosed)
    device.gate.leave(other)
    try device.close()
  }

  @Test("what makes a write durable does not wait for the gate")
  func commitOutside() throws {
    let fixture = try DiskFixture()
    let device = try shredded(fixture, clusters: 4)
    try device.suspend(until: .after(seconds: 10))
    let ended = Monitor(false)
    try Thread(name: "commit") {
      if (try? device.commit()) != nil { ended.update { $0 = true } }
    }.detach()
    #expect(ended.wait(until: .after(seconds: 10)) { $0 ? true : nil } == true)
    device.resume()
    try device.close()
  }
}
