import Glibc
import PloopFormat
import PloopIO
import TestSupport
import Testing

@testable import PloopDevice

/// docs/locking.md, "Lent pages".
@Suite("Lent pages")
struct PageLoansTests {
  private let geometry = Geometry(version: .v2, clusterShift: 16, sizeBytes: 64 << 16)

  private func bytes(_ value: UInt8) -> ByteRegion {
    AlignedBuffer([UInt8](repeating: value, count: 1 << 16)).region
  }

  private func disk(_ fixture: DiskFixture, clusters: Int) throws -> Device {
    try fixture.make("top", geometry)
    let device = try fixture.attach(["top"])
    for cluster in 0..<clusters {
      try device.write(
        bytes(UInt8(cluster + 1)), at: UInt64(cluster) << 16, durable: false)
    }
    return device
  }

  /// What a socket that has the pages would hand out now.
  private func content(_ piece: FilePiece) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: piece.count)
    #expect(pread(piece.descriptor, &bytes, piece.count, off_t(piece.offset)) == piece.count)
    return bytes
  }

  /// The same as one value, which is less to print.
  private func shows(_ value: UInt8, in piece: FilePiece) -> Bool { content(piece).contains(value) }

  @Test("are counted by the generation in which they were lent; the oldest is what is waited for")
  func counts() throws {
    let loans = PageLoans()
    #expect(loans.oldest == nil)
    for generation: UInt64 in [5, 7, 5, 6] { loans.begin(generation) }
    #expect(loans.oldest == 5)
    loans.end(5)
    #expect(loans.oldest == 5)
    #expect(loans.awaitReturn(before: 5, until: .after(seconds: 600)))
    #expect(!loans.awaitReturn(before: 6, until: .after(milliseconds: 20)))
    loans.end(5)
    #expect(loans.oldest == 6)
    loans.end(7)
    loans.end(6)
    #expect(loans.oldest == nil)
  }

  @Test("hold a freed cluster back, whoever closes the gate meanwhile; younger ones do not")
  func heldBack() throws {
    let gate = Gate()
    let fixture = try DiskFixture()
    let file = try fixture.folder.create("top")
    try file.truncate(to: 2 << 16)
    var used = Bitmap(count: 2)
    used[0] = true
    used[1] = true
    let allocator = ClusterAllocator(file: file, geometry: geometry, gate: gate, used: used)
    let pass = try #require(gate.enter())
    let ticket = gate.generation
    gate.loans.begin(ticket)
    gate.leave(pass)
    #expect(gate.close(until: .after(seconds: 600)))
    gate.open()
    allocator.unmapped(1)
    let round = allocator.roundBegins()
    allocator.roundEnded(round, succeeded: true)
    allocator.reap()
    #expect(try allocator.allocate().physical == 2)
    #expect(!gate.awaitHolders(until: .after(milliseconds: 20)))
    gate.loans.begin(gate.generation)
    gate.loans.end(ticket)
    #expect(gate.awaitHolders(until: .after(milliseconds: 20)) == false)
    allocator.reap()
    #expect(try allocator.allocate().physical == 1)
  }

  @Test("are what is read, as far as one file has it in one piece and in the page cache")
  func pieces() throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture, clusters: 4)
    // Places that do not lie behind each other: the third cluster comes last.
    try device.discard(offset: 2 << 16, length: 1 << 16, durable: true)
    try device.write(bytes(9), at: 5 << 16, durable: false)
    try device.write(bytes(8), at: 2 << 16, durable: false)
    let files = Borrowed(device.chain.files)
    let loan = try #require(device.lendNow(4 << 16, least: 1 << 16, at: 0, holding: files).loan)
    #expect(loan.piece.count == 2 << 16)
    #expect(content(loan.piece) == [UInt8](repeating: 1, count: 1 << 16) + bytes(2).bytes)
    #expect(device.lendNow(4 << 16, least: 4 << 16, at: 0, holding: files).loan == nil)
    #expect(
      device.lendNow(2 << 16, least: 1 << 16, at: 6 << 16, holding: files).loan == nil, "a hole")
    let inner = try #require(device.lendNow(4096, least: 1, at: 2 << 16 + 512, holding: files).loan)
    #expect(content(inner.piece) == [UInt8](repeating: 8, count: 4096))
    // Of what only the disk has nothing is lent.
    try device.flush()
    try converting { () throws(IOError) in try device.chain.top.file.sync() }
    posix_fadvise(loan.piece.descriptor, 0, 0, POSIX_FADV_DONTNEED)
    #expect(device.lendNow(1 << 16, least: 1, at: 3 << 16, holding: files).loan == nil)
    device.takeBack(loan.ticket, count: 1)
    device.takeBack(inner.ticket, count: 1)
    #expect(device.gate.loans.oldest == nil)
    try device.detach(until: .after(seconds: 600))
  }

  @Test("of a trimmed cluster never show what another cluster of the disk is given")
  func trimmed() throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture, clusters: 1)
    let files = Borrowed(device.chain.files)
    let loan = try #require(device.lendNow(1 << 16, least: 1, at: 0, holding: files).loan)
    try device.discard(offset: 0, length: 1 << 16, durable: true)
    for cluster in 1..<20 {
      try device.write(bytes(0xEE), at: UInt64(cluster) << 16, durable: true)
      // What may be freed is freed by a flush.
      try device.flush()
      #expect(!shows(0xEE, in: loan.piece))
    }
    device.takeBack(loan.ticket, count: 1)
    // Now it is anybody's, and the lowest that is free.
    try device.flush()
    try device.write(bytes(0xEE), at: 30 << 16, durable: true)
    #expect(shows(0xEE, in: loan.piece))
    try device.detach(until: .after(seconds: 600))
  }

  @Test("are lent only to whoever keeps the files open, those of the chain as it is")
  func files() throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture, clusters: 1)
    let others = FileTable([:])
    for files in [nil, Borrowed(others)] {
      guard case .needs(let wanted) = device.lendNow(1 << 16, least: 1, at: 0, holding: files)
      else {
        Issue.record("lent to somebody who keeps nothing open")
        return
      }
      #expect(wanted === device.chain.files)
    }
    #expect(device.gate.loans.oldest == nil)
    try device.detach(until: .after(seconds: 600))
  }

  @Test("hold up neither a change of the chain nor a suspension")
  func othersGoOn() throws {
    let fixture = try DiskFixture()
    let device = try disk(fixture, clusters: 1)
    let ticket = device.gate.generation
    device.gate.loans.begin(ticket)
    #expect(!device.gate.awaitHolders(until: .after(milliseconds: 20)))
    // Neither a change of the chain nor a suspension does.
    _ = try device.whileClosed(until: .after(seconds: 600)) { () throws(DeviceError) in }
    try device.suspend(until: .after(seconds: 600))
    device.resume()
    device.gate.loans.end(ticket)
    #expect(device.gate.awaitHolders(until: .after(seconds: 600)))
    try device.detach(until: .after(seconds: 600))
  }

  @Test(
    "are waited for before a merge writes what was the top when they were lent",
    arguments: [MergeDirection.forward, .backward])
  func merged(direction: MergeDirection) throws {
    let bench = try ChainBench()
    try bench.write(0, [1, 2, 3])
    try bench.snapshot()
    try bench.write(0, [4, 5, 6])
    try bench.snapshot()
    let merge = try DeltaMerge(of: bench.device, level: 0, direction)
    let gate = bench.device.gate
    let ticket = gate.generation
    gate.loans.begin(ticket)
    let refusal = #expect(throws: DeviceError.self) {
      try merge.prepare(until: .after(milliseconds: 20))
    }
    guard case .timeout? = refusal?.kind else {
      Issue.record("\(String(describing: refusal))")
      return
    }
    gate.loans.end(ticket)
    try merge.prepare(until: .after(seconds: 600))
    merge.abandon(until: .after(seconds: 600))
    try bench.check()
  }
}

extension PageLending {
  fileprivate var loan: PageLoan? {
    if case .lent(let loan) = self { loan } else { nil }
  }
}
