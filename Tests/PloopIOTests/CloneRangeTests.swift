import Glibc
import PloopIO
import TestSupport
import Testing

@Suite("Files that share blocks")
struct CloneRangeTests {
  private static let block: UInt64 = 4096

  private let keep: TemporaryFolder

  init() throws { keep = try TemporaryFolder() }

  /// Files of four blocks, each filled with a number of its own.
  private func files(_ count: Int, _ probe: (any IOProbe)? = nil) throws -> [ImageFile] {
    try Self.files(count, in: keep.path, probe)
  }

  private static func files(
    _ count: Int, in path: String, _ probe: (any IOProbe)?
  ) throws -> [ImageFile] {
    let plain = try ImageFolder(path: path)
    let folder = try ImageFolder(path: path, probe: probe)
    return try (0..<count).map { number in
      let file = try plain.create("\(number)")
      for index in 0..<4 {
        let value = UInt8(10 * (number + 1) + index)
        try file.write(
          AlignedBuffer([UInt8](repeating: value, count: Int(block))).region,
          at: UInt64(index) * block)
      }
      return try folder.open("\(number)", writable: true)
    }
  }

  /// The first byte of each block.
  private func blocks(_ file: ImageFile) throws -> [UInt8] {
    let content = AlignedBuffer(count: Int(try file.size()))
    _ = try file.read(into: content.region, at: 0)
    return stride(from: 0, to: content.count, by: Int(Self.block)).map { content.region[$0] }
  }

  private func clone(
    _ source: ImageFile, _ block: UInt64, into target: ImageFile, _ place: UInt64,
    count: UInt64 = 1
  ) throws -> Bool {
    try target.cloneRange(
      from: source, at: block * Self.block, to: place * Self.block, length: count * Self.block)
  }

  @Test("what is watched is played as one call, and recorded as a write of what the blocks held")
  func played() throws {
    let trace = IOTrace(sharesBlocks: true)
    let files = try files(2, trace)
    #expect(try clone(files[0], 1, into: files[1], 2, count: 2))
    #expect(try blocks(files[1]) == [20, 21, 11, 12])
    let written = [UInt8](repeating: 11, count: 4096) + [UInt8](repeating: 12, count: 4096)
    #expect(
      trace.events.map { "\($0)" } == [
        "\(IOTrace.Event.write(path: "\(keep.path)/1", offset: 8192, bytes: written))"
      ])
    // A copy, from then on.
    try files[0].write(AlignedBuffer([99]).region, at: Self.block)
    #expect(try blocks(files[1])[2] == 11)
    #expect(try clone(files[1], 0, into: files[1], 3))
    #expect(try blocks(files[1]) == [20, 21, 11, 20])
  }

  @Test("who watches and does not play such a host has everything copied")
  func unplayed() throws {
    let plan = FaultPlan { _, _, _ in nil }
    let files = try files(2, plan)
    #expect(try !clone(files[0], 1, into: files[1], 2))
    #expect(plan.callCount == 0)
  }

  @Test(
    "two files that cannot are not asked again; others are",
    arguments: [EOPNOTSUPP, EXDEV, EINVAL, ETXTBSY, EPERM, ENOTTY])
  func unsupported(code: Int32) throws {
    let plan = FaultPlan(sharesBlocks: true) { call, _, _ in call == 0 ? .error(code) : nil }
    let files = try files(3, plan)
    #expect(try !clone(files[0], 1, into: files[1], 2))
    #expect(try !clone(files[0], 0, into: files[1], 2))
    #expect(plan.callCount == 1)
    #expect(try clone(files[2], 0, into: files[1], 2))
    #expect(try blocks(files[1]) == [20, 21, 30, 23])
  }

  @Test("a full file system has it copied, and is asked again", arguments: [ENOSPC, EDQUOT])
  func full(code: Int32) throws {
    let plan = FaultPlan(sharesBlocks: true) { call, _, _ in call == 0 ? .error(code) : nil }
    let files = try files(2, plan)
    #expect(try !clone(files[0], 1, into: files[1], 2))
    #expect(try clone(files[0], 1, into: files[1], 2))
  }

  @Test("a range that ends behind the file is refused, and says nothing of others")
  func behindTheEnd() throws {
    let plan = FaultPlan(sharesBlocks: true) { call, _, _ in call == 0 ? .error(EINVAL) : nil }
    let files = try files(2, plan)
    #expect(try !clone(files[0], 3, into: files[1], 0, count: 2))
    #expect(try clone(files[0], 3, into: files[1], 0))
    #expect(try !clone(files[0], 3, into: files[1], 0, count: 2))
    #expect(try clone(files[0], 2, into: files[1], 1))
  }

  @Test("an interrupted call is made again, and what is broken is told")
  func errors() throws {
    let plan = FaultPlan(sharesBlocks: true) { call, _, _ in
      call < 3 ? .error(EINTR) : call == 3 ? nil : .error(EIO)
    }
    let files = try files(2, plan)
    #expect(try clone(files[0], 1, into: files[1], 2))
    let error = #expect(throws: IOError.self) { _ = try clone(files[0], 1, into: files[1], 2) }
    #expect(error?.code == EIO)
  }

  @Test("whoever watches a file for changes hears of it")
  func watchers() throws {
    let files = try files(2, IOTrace(sharesBlocks: true))
    let seen = Locked<[Range<UInt64>]>([])
    files[1].watchChanges { range in seen.withLock { $0.append(range) } }
    #expect(try clone(files[0], 1, into: files[1], 2))
    #expect(seen.withLock { $0 } == [2 * Self.block..<3 * Self.block])
  }

  @Test("on a file system that can, blocks are shared", arguments: SmallFilesystem.Kind.allCases)
  func real(kind: SmallFilesystem.Kind) throws {
    let disk = try SmallFilesystem(in: keep, "fs", kind)
    let files = try Self.files(2, in: disk.path, nil)
    let isShared = try clone(files[0], 1, into: files[1], 2, count: 2)
    #expect(isShared == (kind != .ext4))
    #expect(files[1].mayShareBlocks == isShared)
    #expect(try blocks(files[1]) == (isShared ? [20, 21, 11, 12] : [20, 21, 22, 23]))
    #expect(try (disk.sharedExtents(of: files[1].path) > 0) == isShared)
    // Behind the end of the source, and not at a border of blocks: not now, and not for ever.
    #expect(try !clone(files[0], 3, into: files[1], 0, count: 2))
    #expect(try clone(files[0], 3, into: files[1], 0) == isShared)
    #expect(try !files[1].cloneRange(from: files[0], at: 512, to: 1024, length: 512))
    #expect(try !clone(files[0], 3, into: files[1], 1))
  }
}
