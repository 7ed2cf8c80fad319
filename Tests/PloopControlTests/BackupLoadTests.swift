import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopControl

@Suite("Backups under load")
struct BackupLoadTests {
  private static let blockBytes = 4096
  private static let blocks = 1024

  /// One thing that a guest does: it numbers the blocks that it writes, or zeroes them.
  private struct Write: Sendable {
    let blocks: Range<Int>
    let isZero: Bool
  }

  /// A guest that writes one thing after the other, each a change as a whole.
  private final class Guest: Sendable {
    let writes = Locked<[Write]>([])
    private let isStopping = Locked(false)
    private let hasEnded = Monitor(false)

    func run(_ disk: Device, seed: UInt64) throws {
      try Thread(name: "guest") { [self] in
        var random = SeededGenerator(seed: seed)
        while !isStopping.withLock({ $0 }) {
          let start = Int.random(in: 0..<BackupLoadTests.blocks, using: &random)
          let count = min(
            BackupLoadTests.blocks - start, Int.random(in: 1...24, using: &random))
          let isZero = Int.random(in: 0..<4, using: &random) == 0
          let write = Write(blocks: start..<start + count, isZero: isZero)
          let number = writes.withLock { writes in
            writes.append(write)
            return writes.count
          }
          do {
            try BackupLoadTests.write(write, number, to: disk)
          } catch {
            Issue.record("a guest's write fails: \(error)")
            break
          }
        }
        hasEnded.update { $0 = true }
      }.detach()
    }

    func stop() {
      isStopping.withLock { $0 = true }
      _ = hasEnded.wait { $0 ? true : nil }
    }
  }

  private static func write(_ write: Write, _ number: Int, to disk: Device) throws {
    let bytes = write.blocks.count * blockBytes
    let offset = UInt64(write.blocks.lowerBound * blockBytes)
    guard !write.isZero else {
      return try disk.writeZeroes(
        offset: offset, length: UInt64(bytes), keepAllocated: false, onlyIfFast: false,
        durable: false)
    }
    let buffer = AlignedBuffer(count: bytes)
    for place in stride(from: 0, to: bytes, by: blockBytes) {
      buffer.region.setLittleEndian(UInt64(number), at: place)
      buffer.region.setLittleEndian(~UInt64(number), at: place + blockBytes - 8)
    }
    try disk.write(buffer.region, at: offset, durable: number % 64 == 0)
  }

  /// The numbers of a point's blocks.
  private func numbers(_ id: String, _ bench: BackupServiceBench) throws -> [Int] {
    let reader = try PointReader(id, of: bench.chain(of: id))
    let buffer = AlignedBuffer(count: BackupServiceBench.clusterBytes)
    var numbers: [Int] = []
    for cluster in 0..<reader.geometry.clusterCount {
      try reader.read(into: buffer.region, from: cluster)
      for place in stride(from: 0, to: buffer.count, by: Self.blockBytes) {
        let number = buffer.region.littleEndian(at: place, as: UInt64.self)
        let other = buffer.region.littleEndian(
          at: place + Self.blockBytes - 8, as: UInt64.self)
        #expect(number == 0 ? other == 0 : other == ~number)
        numbers.append(Int(number))
      }
    }
    return numbers
  }

  @Test(
    "twenty increments, while a guest writes and trims, each hold one instant between two writes")
  func increments() async throws {
    let seed = UInt64.random(in: 1...UInt64.max)
    print("seed \(seed)")
    let bench = try await BackupServiceBench()
    let guest = Guest()
    try guest.run(try bench.disk, seed: seed)
    var ids: [String] = []
    for round in 0...20 {
      let known = guest.writes.withLock { $0.count }
      let job = try await bench.end(of: bench.begin())
      #expect(job.state == .succeeded, "\(String(describing: job.error))")
      #expect(job.result?["mode_used"] == .text(round == 0 ? "full" : "incremental"))
      ids.append(job.id)
      // Something has been written since, whatever the machine is busy with.
      while guest.writes.withLock({ $0.count }) < known + 20 { await Task.yield() }
    }
    guest.stop()
    let writes = guest.writes.withLock { $0 }
    var model = [Int](repeating: 0, count: Self.blocks)
    var done = 0
    for id in ids {
      let numbers = try numbers(id, bench)
      let last = numbers.max() ?? 0
      #expect(last >= done || numbers == model, "\(id)")
      func step() {
        let write = writes[done]
        done += 1
        for block in write.blocks { model[block] = write.isZero ? 0 : done }
      }
      while done < last { step() }
      // What was zeroed behind the last number that is left, nobody can tell but by trying.
      while numbers != model, done < min(writes.count, last + 200) { step() }
      #expect(numbers == model, "\(id) is no state of the disk, seed \(seed)")
    }
    #expect(try bench.chains.count == 1)
  }
}
