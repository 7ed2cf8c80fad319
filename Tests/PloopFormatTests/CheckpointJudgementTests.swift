import PloopFormat
import Testing

@Suite("Whether a file of checkpoints is believed")
struct CheckpointJudgementTests {
  static let diskBytes: UInt64 = 1 << 30

  private static func stamp(_ inode: UInt64, isOpen: Bool = false) -> CheckpointFile.Stamp {
    var header = Header(new: Geometry(version: .v2, clusterShift: 20, sizeBytes: diskBytes))
    header.inUse = isOpen ? Header.InUse.open : Header.InUse.closed
    return CheckpointFile.Stamp(
      inode: inode, sizeBytes: 1 << 20, seconds: 1, nanoseconds: 2, header: header.encoded)
  }

  private static func file(
    _ state: CheckpointFile.State, _ chain: [CheckpointFile.Stamp]
  ) -> CheckpointFile {
    CheckpointFile(
      state: state, diskBytes: diskBytes, regionShift: 20, chain: chain,
      checkpoints: [
        .init(name: "one", createdAt: 0, granularityShift: 16, bits: [1]),
        .init(name: "two", createdAt: 0, granularityShift: 24, inconsistency: "lost", bits: []),
      ])
  }

  private func reason(
    _ file: CheckpointFile, now: [CheckpointFile.Stamp], diskBytes: UInt64 = Self.diskBytes
  ) -> String? {
    let judged = file.judged(isMarked: [], now: now, diskBytes: diskBytes)
    #expect(judged[1].inconsistency == "lost")
    return judged[0].inconsistency
  }

  @Test("A closed file needs every stamp to be the same")
  func closed() {
    let chain = [Self.stamp(1), Self.stamp(2)]
    let file = Self.file(.closed, chain)
    #expect(reason(file, now: chain) == nil)
    for level in 0...1 {
      let changes: [(inout CheckpointFile.Stamp) -> Void] = [
        { $0.inode += 1 }, { $0.sizeBytes += 1 }, { $0.seconds += 1 }, { $0.nanoseconds += 1 },
        { $0.header[63] ^= 1 },
      ]
      for change in changes {
        var now = chain
        change(&now[level])
        #expect(reason(file, now: now) != nil)
      }
    }
    #expect(reason(file, now: [chain[0]]) != nil)
    #expect(reason(file, now: [chain[1], chain[0]]) != nil)
    #expect(reason(file, now: chain + chain) != nil)
    #expect(reason(file, now: chain, diskBytes: 2 << 30) != nil)
  }

  @Test("An open file needs a top that is still marked, and no file that was not there")
  func open() {
    let before = [Self.stamp(1), Self.stamp(2), Self.stamp(3)]
    let file = Self.file(.open, before)
    // Opened, and nothing was written.
    #expect(reason(file, now: before) == nil)
    var top = Self.stamp(3, isOpen: true)
    top.sizeBytes += 1
    top.seconds += 1
    #expect(reason(file, now: [before[0], before[1], top]) == nil)
    // The middle one was merged away.
    #expect(reason(file, now: [before[0], top]) == nil)
    #expect(reason(file, now: [before[0], before[1], Self.stamp(4, isOpen: true)]) != nil)
    #expect(reason(file, now: [before[0], Self.stamp(5), top]) != nil)
    var closed = before
    closed[2].seconds += 1
    #expect(reason(file, now: closed)?.contains("somebody else") == true)
    #expect(reason(file, now: []) != nil)
  }

  @Test("All of a marked region counts as written, for every granularity")
  func regions() {
    var isMarked = [Bool](repeating: false, count: 1024)
    isMarked[3] = true
    isMarked[1023] = true
    var file = Self.file(.open, [Self.stamp(1)])
    file.checkpoints[1].inconsistency = nil
    let judged = file.judged(isMarked: isMarked, now: file.chain, diskBytes: Self.diskBytes)
    func bits(_ checkpoint: CheckpointFile.Checkpoint) -> [Int] {
      (0..<checkpoint.bits.count * 8).filter { checkpoint.bits[$0 / 8] & (1 << UInt8($0 % 8)) != 0 }
    }
    // 16 bits of 64 KiB in a region of 1 MiB; regions of 1 MiB in a bit of 16 MiB.
    #expect(bits(judged[0]) == [0] + Array(48..<64) + Array(16_368..<16_384))
    #expect(bits(judged[1]) == [0, 63])
  }

  @Test(
    "A bitmap that would be larger than bitmaps may be says nothing, however little of it is there")
  func excess() {
    let chain = [Self.stamp(1)]
    // Of 64 TiB, with one bit for 4 KiB: 2 GiB.
    let file = CheckpointFile(
      state: .closed, diskBytes: 1 << 46, regionShift: 26, chain: chain,
      checkpoints: [.init(name: "one", createdAt: 0, granularityShift: 12, bits: [1])])
    let judged = file.judged(isMarked: [true], now: chain, diskBytes: 1 << 46)
    #expect(judged[0].bits.isEmpty)
    #expect(judged[0].inconsistency == CheckpointFile.excess)
  }

  @Test("There is room for bitmaps up to the limit of one, and of all together")
  func rooms() {
    // With one bit for 128 KiB as large as may be; four of those are all that there may be.
    let rooms = CheckpointFile.rooms(
      forBitsOf: [12, 17, 16, 17, 17, 17, 17, 26], diskBytes: 1 << 46)
    #expect(rooms == [false, true, false, true, true, true, false, false])
    #expect(CheckpointFile.rooms(forBitsOf: [12, 26], diskBytes: 1 << 30) == [true, true])
  }
}
