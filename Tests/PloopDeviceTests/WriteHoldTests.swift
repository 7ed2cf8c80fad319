import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

/// A disk whose writers are stopped for what is left to copy of it.
@Suite("Writers that are held")
struct WriteHoldTests {
  private static let hour: UInt64 = 3_600 * 1_000_000_000

  /// Tells when somebody wants to write.
  private final class Witness: Recorder {
    let asked = Monitor(0)

    func mayOverwrite(_ range: Range<UInt64>) -> Bool {
      asked.update { $0 += 1 }
      return true
    }

    func willOverwrite(_ range: Range<UInt64>) throws(DeviceError) {}
    func mark(_ range: Range<UInt64>) {}
  }

  private enum End: Equatable { case written, failed }

  private let bench: ChainBench
  private let ended = Monitor<End?>(nil)
  private let witness = Witness()
  private var device: Device { bench.device }

  init() throws {
    bench = try ChainBench()
    try bench.write(0, [UInt8](repeating: 1, count: 4096))
    // Asked before the hold is, which was begun later.
    _ = try bench.device.beginRecording(witness, until: .after(seconds: 600))
  }

  private func hold(_ nanoseconds: UInt64 = WriteHoldTests.hour) throws -> WriteHold {
    try WriteHold(of: device, limitNanoseconds: nanoseconds, engine: bench.engine)
  }

  /// A writer in the background, which has come to the hold when this returns.
  private func startWriter() throws {
    let (device, ended) = (device, ended)
    try Thread(name: "writer") {
      do {
        try device.write(AlignedBuffer([9]).region, at: 0, durable: false)
        ended.update { $0 = .written }
      } catch { ended.update { $0 = .failed } }
    }.detach()
    #expect(witness.asked.wait(until: .after(seconds: 600)) { $0 > 0 ? true : nil } == true)
    // Whoever has asked it has left the gate when this is over, whatever it did there.
    _ = try device.endRecording(witness, until: .after(seconds: 600))
  }

  private func end() -> End? { ended.wait(until: .after(seconds: 600)) { $0 } }

  @Test("wait while others read and flush, and go on when they are released")
  func released() throws {
    let hold = try hold()
    try startWriter()
    #expect(try device.bytes(0, 1) == [1])
    #expect(!device.writeNow(AlignedBuffer([9]).region, at: 0))
    try device.flush()
    #expect(ended.withLock { $0 } == nil)
    try hold.release(until: .after(seconds: 600))
    #expect(end() == .written)
    #expect(try device.bytes(0, 1) == [9])
    #expect(device.writeNow(AlignedBuffer([8]).region, at: 0))
    try device.close()
  }

  @Test("go on by themselves when the time is over, and are not kept then")
  func expired() throws {
    let hold = try hold(1_000_000)
    // Nobody releases them.
    try device.write(AlignedBuffer([9]).region, at: 0, durable: false)
    #expect(monotonicNanoseconds() - hold.begunAt >= 1_000_000)
    #expect(!hold.keep())
    #expect(try device.bytes(0, 1) == [9])
    try hold.release(until: .after(seconds: 600))
    try device.close()
  }

  @Test("are not kept when the time is over, though none has come")
  func unkept() throws {
    let hold = try hold(0)
    #expect(!hold.keep())
    #expect(device.writeNow(AlignedBuffer([9]).region, at: 0))
    try hold.release(until: .after(seconds: 600))
    try device.close()
  }

  @Test("are kept until the disk is resumed")
  func resumed() throws {
    let hold = try hold()
    try startWriter()
    #expect(hold.keep())
    try device.suspend(until: .after(seconds: 600))
    hold.leaveToSuspension()
    #expect(try device.layout(offset: 0, length: 1, limit: 1).count == 1)
    #expect(ended.withLock { $0 } == nil)
    device.resume()
    #expect(end() == .written)
    #expect(try device.bytes(0, 1) == [9])
    try device.close()
  }

  @Test("are turned away when the disk is closed")
  func closed() throws {
    let hold = try hold()
    try startWriter()
    #expect(hold.keep())
    try device.suspend(until: .after(seconds: 600))
    hold.leaveToSuspension()
    try device.close()
    #expect(end() == .failed)
    withExtendedLifetime(hold) {}
  }
}
