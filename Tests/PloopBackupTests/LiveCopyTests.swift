import CrashKit
import PloopBackup
import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// Rounds of copying of a disk that guests write.
@Suite("A copy of a live disk in rounds")
struct LiveCopyTests {
  private static let sizeBytes: UInt64 = 5 << 20 | 3 << 9

  /// An export in memory that may fail.
  private final class Memory: BlockExport {
    struct State {
      var bytes: [UInt8]
      /// Writes until one fails with this.
      var failure: (writes: Int, BackupError.Kind)?
      var flushFailure: BackupError.Kind?
      var zeroed: UInt64 = 0
    }

    let state: Locked<State>
    let facts: ExportFacts
    var name: String { "memory" }

    init(filledWith byte: UInt8) {
      state = Locked(State(bytes: [UInt8](repeating: byte, count: Int(sizeBytes))))
      facts = ExportFacts(sizeBytes: sizeBytes)
    }

    func read(into region: ByteRegion, at offset: UInt64) throws(BackupError) {
      let bytes = state.withLock { Array($0.bytes[Int(offset)...].prefix(region.count)) }
      region.copy(from: AlignedBuffer(bytes).region)
    }

    func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {
      let bytes = Array(region.bytes)
      let failure = state.withLock { state -> BackupError.Kind? in
        if let (writes, kind) = state.failure {
          state.failure = writes > 0 ? (writes - 1, kind) : nil
          if writes == 0 { return kind }
        }
        state.bytes.replaceSubrange(Int(offset)..<Int(offset) + bytes.count, with: bytes)
        return nil
      }
      if let failure { throw BackupError(failure, "failed") }
    }

    func zero(_ range: Range<UInt64>) throws(BackupError) {
      state.withLock { state in
        state.zeroed += UInt64(range.count)
        let zeroes = [UInt8](repeating: 0, count: range.count)
        state.bytes.replaceSubrange(Int(range.lowerBound)..<Int(range.upperBound), with: zeroes)
      }
    }

    func flush() throws(BackupError) {
      if let kind = state.withLock({ $0.flushFailure.take() }) { throw BackupError(kind, "failed") }
    }

    func extents(in range: Range<UInt64>) throws(BackupError) -> [ExportExtent] { [] }
    func hangUp() {}
  }

  /// A disk, what it holds, and a guest that writes and trims anywhere.
  private final class Guest {
    private let temporary: TemporaryFolder
    let device: Device
    let engine = IOEngine(threadLimit: 4, rings: false)
    var content = [UInt8](repeating: 0, count: Int(sizeBytes))
    private var random = SeededGenerator(seed: 7)

    init(clusterShift: Int) throws {
      temporary = try TemporaryFolder()
      let folder = try ImageFolder(path: temporary.path)
      try ImageCreator.create(
        in: folder, name: "disk.hds",
        geometry: Geometry(version: .v2, clusterShift: clusterShift, sizeBytes: sizeBytes))
      device = try Device.attach(
        [
          DeltaSource(
            file: try folder.open("disk.hds", writable: true), folder: folder, name: "disk.hds")
        ], .ofTests)
    }

    deinit { engine.stop(until: .after(seconds: 20)) }

    func write(_ count: Int) throws {
      for _ in 0..<count {
        let offset = Int.random(in: 0..<content.count, using: &random)
        let length = min(content.count - offset, Int.random(in: 1...200_000, using: &random))
        let value = UInt8.random(in: 0...255, using: &random)
        if value < 60 {
          try device.writeZeroes(
            offset: UInt64(offset), length: UInt64(length), keepAllocated: false,
            onlyIfFast: false, durable: false)
        } else {
          try device.write(
            AlignedBuffer([UInt8](repeating: value, count: length)).region, at: UInt64(offset),
            durable: false)
        }
        content.replaceSubrange(
          offset..<offset + length,
          with: [UInt8](repeating: value < 60 ? 0 : value, count: length))
      }
    }
  }

  private func copy(_ guest: Guest) throws -> LiveCopy {
    try LiveCopy(of: guest.device, until: .after(seconds: 600), on: guest.engine)
  }

  /// - Returns: whether what the memory holds is what the disk holds.
  private func isSame(_ memory: Memory, _ guest: Guest) -> Bool {
    memory.state.withLock { $0.bytes } == guest.content
  }

  @Test(
    "is the disk in the end, whatever its clusters and whatever was there before",
    arguments: [12, 14, 16, 18], [true, false])
  func rounds(clusterShift: Int, isBlank: Bool) throws {
    let guest = try Guest(clusterShift: clusterShift)
    try guest.write(12)
    let copy = try copy(guest)
    try guest.write(5)
    let memory = Memory(filledWith: isBlank ? 0 : 0xAA)
    try copy.begin(to: memory, isBlank: isBlank)
    for _ in 0..<6 {
      repeat { try guest.write(1) } while try copy.step(limitBytes: 1 << 20).goesOn
      try copy.flush()
      #expect(copy.writtenBytes > 0)
      _ = copy.nextRound()
    }
    #expect(copy.round == 7)
    while try copy.step(limitBytes: 1 << 20).goesOn {}
    #expect(copy.writtenBytes == 0)
    #expect(isSame(memory, guest))
    try copy.end(until: .after(seconds: 600))
    try guest.device.close()
  }

  @Test("writes no zeroes where nothing was, and nothing is")
  func blank() throws {
    let guest = try Guest(clusterShift: 16)
    let copy = try copy(guest)
    let memory = Memory(filledWith: 0)
    try copy.begin(to: memory, isBlank: true)
    #expect(try copy.step(limitBytes: .max >> 1) == (0, false))
    #expect(memory.state.withLock { $0.zeroed } == 0)
    try copy.begin(to: memory, isBlank: false)
    while try copy.step(limitBytes: 1 << 20).goesOn {}
    #expect(memory.state.withLock { $0.zeroed } == Self.sizeBytes)
    try copy.end(until: .after(seconds: 600))
    try guest.device.close()
  }

  @Test("copies once more what a step could not store, in this round or in the next")
  func failures() throws {
    let guest = try Guest(clusterShift: 14)
    try guest.write(30)
    let copy = try copy(guest)
    let memory = Memory(filledWith: 0xAA)
    try copy.begin(to: memory, isBlank: false)
    for round in 0..<8 {
      memory.state.withLock { $0.failure = (round, .outOfSpace) }
      var failed = 0
      while true {
        try guest.write(1)
        do {
          if try !copy.step(limitBytes: 256 << 10).goesOn { break }
        } catch {
          #expect(error.kind == .outOfSpace)
          failed += 1
          // Every second time the rest is left to the next round.
          if round % 2 == 1 { break }
        }
      }
      #expect(failed == 1 || memory.state.withLock { $0.failure } != nil)
      memory.state.withLock { $0.failure = nil }
      try guest.write(2)
      _ = copy.nextRound()
    }
    while try copy.step(limitBytes: 1 << 20).goesOn {}
    #expect(isSame(memory, guest))
    try copy.end(until: .after(seconds: 600))
    try guest.device.close()
  }

  @Test(
    "holds nothing for stored behind a flush that failed, and copies everything to what is opened anew"
  )
  func lost() throws {
    let guest = try Guest(clusterShift: 14)
    try guest.write(10)
    let copy = try copy(guest)
    let first = Memory(filledWith: 0xAA)
    try copy.begin(to: first, isBlank: false)
    while try copy.step(limitBytes: 1 << 20).goesOn {}
    first.state.withLock { $0.flushFailure = .target(code: 5) }
    #expect(throws: BackupError.self) { try copy.flush() }
    #expect(!copy.isOpen)
    #expect(throws: BackupError.self) { try copy.step(limitBytes: 1) }
    let second = Memory(filledWith: 0x55)
    try copy.begin(to: second, isBlank: false)
    #expect(copy.round == 1)
    while try copy.step(limitBytes: 1 << 20).goesOn {}
    #expect(isSame(second, guest))
    try copy.end(until: .after(seconds: 600))
    try guest.device.close()
  }

  @Test("is refused where the disk cannot be written")
  func refused() throws {
    let guest = try Guest(clusterShift: 14)
    let copy = try copy(guest)
    final class Small: BlockExport {
      let facts = ExportFacts(sizeBytes: LiveCopyTests.sizeBytes - 512)
      var name: String { "small" }
      func read(into region: ByteRegion, at offset: UInt64) throws(BackupError) {}
      func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {}
      func zero(_ range: Range<UInt64>) throws(BackupError) {}
      func flush() throws(BackupError) {}
      func extents(in range: Range<UInt64>) throws(BackupError) -> [ExportExtent] { [] }
      func hangUp() {}
    }
    do {
      try copy.begin(to: Small(), isBlank: false)
      Issue.record("it was taken")
    } catch { #expect(error.kind == .mismatch) }
    #expect(!copy.isOpen)
    try copy.end(until: .after(seconds: 600))
    try guest.device.close()
  }
}
