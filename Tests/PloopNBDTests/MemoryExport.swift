import PloopNBD

@testable import PloopIO

/// A disk in memory whose clusters of 64 KiB exist once written, for tests of the protocol.
final class MemoryExport: Export {
  static let clusterBytes = 65536
  let size: UInt64
  let isReadOnly: Bool
  let preferredBlockSize: UInt32 = 4096
  let summary: String
  /// Whether quick ways are refused, so that everything goes through the engine.
  let isSlow: Bool
  let throttle: RequestThrottle?
  /// While false, slow work waits.
  let gate = Monitor(true)
  /// What slow work fails with.
  let fault = Locked<NBDError?>(nil)
  /// What slow work was asked for, in order.
  let calls = Locked<[String]>([])
  /// Bitmaps in which every other cluster is dirty.
  let bitmaps: [String]
  /// What is lent under which ticket and has not been given back.
  let loans = Monitor<[UInt64: UInt64]>([:])
  /// The ticket of what is lent from now on.
  let ticket = Locked<UInt64>(1)
  let lends = Locked(true)
  /// Whether what is lent cannot be read.
  let isBroken = Locked(false)
  /// Whether what has been done may be answered.
  let isOurs = Locked(true)
  var mayAnswer: Bool { isOurs.withLock { $0 } }
  /// How many loans there have been.
  let lentCount = Locked(0)
  /// A file with what is lent, of which pieces of so many bytes lie behind each other.
  private let lent: (files: FileTable, pieceBytes: Int)?
  private let memory: AlignedBuffer
  private let written: Locked<Set<Int>>

  /// - Parameter claimedSize: what clients are told; only what copies no bytes reaches beyond `size`.
  init(
    size: Int, claiming claimedSize: UInt64? = nil, isReadOnly: Bool = false, isSlow: Bool = false,
    summary: String = "in memory",
    bitmaps: [String] = [], lending file: ImageFile? = nil, piecesOf pieceBytes: Int = .max,
    clock: @escaping @Sendable () -> UInt64 = monotonicNanoseconds
  ) {
    throttle = RequestThrottle(nil, clock: clock)
    lent = file.map { (FileTable([3: $0]), pieceBytes) }
    self.bitmaps = bitmaps
    self.size = claimedSize ?? UInt64(size)
    self.isReadOnly = isReadOnly
    self.isSlow = isSlow
    self.summary = summary
    memory = AlignedBuffer(count: size)
    written = Locked([])
  }

  private func begin(_ call: String) throws(NBDError) {
    calls.withLock { $0.append(call) }
    _ = gate.wait { $0 ? true : nil }
    if let fault = fault.withLock({ $0 }) { throw fault }
  }

  func readNow(into region: ByteRegion, at offset: UInt64, holes: inout HoleList) -> Bool {
    guard !isSlow else { return false }
    copyOut(region, offset, &holes)
    return true
  }

  func lendNow(
    _ count: Int, least: Int, at offset: UInt64, holding files: Borrowed<FileTable>?
  ) -> PageLending {
    guard let lent, lends.withLock({ $0 }) else { return .nothing }
    let left = lent.pieceBytes == .max ? count : lent.pieceBytes - Int(offset) % lent.pieceBytes
    guard min(count, left) >= least,
      var piece = lent.files.lendNow(3, min(count, left), at: offset)
    else { return .nothing }
    if isBroken.withLock({ $0 }) {
      piece = FilePiece(descriptor: -1, offset: piece.offset, count: piece.count)
    }
    guard let files, files.isView(of: lent.files) else { return .needs(lent.files) }
    lentCount.withLock { $0 += 1 }
    let ticket = self.ticket.withLock { $0 }
    loans.update { $0[ticket, default: 0] += 1 }
    return .lent(PageLoan(piece, ticket: ticket))
  }

  func stopLending() { lends.withLock { $0 = false } }

  func takeBack(_ ticket: UInt64, count: UInt64) {
    loans.update { loans in
      loans[ticket, default: 0] -= count
      if loans[ticket] == 0 { loans[ticket] = nil }
    }
  }

  func beginRead(
    into region: ByteRegion, at offset: UInt64, on lane: ReadLane,
    completion: @escaping @Sendable (Result<HoleList, NBDError>) -> Void
  ) -> Bool { false }

  func read(into region: ByteRegion, at offset: UInt64, holes: inout HoleList) throws(NBDError) {
    try begin("read \(offset) \(region.count)")
    copyOut(region, offset, &holes)
  }

  private func copyOut(_ region: ByteRegion, _ offset: UInt64, _ holes: inout HoleList) {
    region.copy(from: memory.region.slice(Int(offset), region.count))
    var position = 0
    while position < region.count {
      let place = Int(offset) + position
      let end = min(
        region.count, position + MemoryExport.clusterBytes - place % MemoryExport.clusterBytes)
      if !written.withLock({ $0.contains(place / MemoryExport.clusterBytes) }) {
        holes.append(start: position, count: end - position)
      }
      position = end
    }
  }

  func writeNow(_ region: ByteRegion, at offset: UInt64) -> Bool {
    guard !isSlow else { return false }
    copyIn(region, offset)
    return true
  }

  func write(_ region: ByteRegion, at offset: UInt64, durable: Bool) throws(NBDError) {
    try begin("write \(offset) \(region.count)\(durable ? " durable" : "")")
    copyIn(region, offset)
  }

  private func copyIn(_ region: ByteRegion, _ offset: UInt64) {
    memory.region.copy(from: region, at: Int(offset))
    let first = Int(offset) / MemoryExport.clusterBytes
    let last = (Int(offset) + region.count - 1) / MemoryExport.clusterBytes
    written.withLock { $0.formUnion(first...last) }
  }

  /// What the disk holds, for a look past the protocol.
  func content(_ offset: Int, _ count: Int) -> [UInt8] { memory.region.slice(offset, count).bytes }

  func flush() throws(NBDError) { try begin("flush") }

  func commit() throws(NBDError) { try begin("commit") }

  func trim(offset: UInt64, length: UInt64, durable: Bool) throws(NBDError) {
    try begin("trim \(offset) \(length)\(durable ? " durable" : "")")
  }

  func writeZeroes(
    offset: UInt64, length: UInt64, mode: ZeroMode, durable: Bool
  ) throws(NBDError) {
    try begin(
      "zero \(offset) \(length)\(mode.contains(.keepAllocated) ? " keep" : "")\(durable ? " durable" : "")"
    )
    guard !mode.contains(.onlyIfFast) else { throw NBDError(.notSupported, "not fast") }
    guard Int(offset) < memory.region.count else { return }
    let count = min(Int(length), memory.region.count - Int(offset))
    memory.region.slice(Int(offset), count).zero()
  }

  func requireFastZero(offset: UInt64, length: UInt64) throws(NBDError) {
    try begin("fast \(offset) \(length)")
    throw NBDError(.notSupported, "not fast")
  }

  func cache(offset: UInt64, length: UInt64) throws(NBDError) {
    try begin("cache \(offset) \(length)")
  }

  var contexts: [Context] {
    bitmaps.isEmpty ? [.allocation] : [.allocation, .depth] + bitmaps.map { .dirtyBitmap($0) }
  }

  func depths(
    offset: UInt64, length: UInt64, limit: Int
  ) throws(NBDError) -> [(length: UInt64, depth: Int)] {
    try extents(offset: offset, length: length, limit: limit).map {
      ($0.length, $0.isHole ? 0 : 7)
    }
  }

  func dirtyRuns(
    of bitmap: String, offset: UInt64, length: UInt64, limit: Int
  ) throws(NBDError) -> [(length: UInt64, isDirty: Bool)] {
    var runs: [(length: UInt64, isDirty: Bool)] = []
    var position = offset
    let cluster = UInt64(MemoryExport.clusterBytes)
    while position < offset + length, runs.count < limit {
      let end = min(offset + length, (position / cluster + 1) * cluster)
      runs.append((end - position, position / cluster % 2 == 1))
      position = end
    }
    return runs
  }

  func extentsNow(offset: UInt64, length: UInt64, limit: Int) -> [Extent]? { nil }

  func extents(offset: UInt64, length: UInt64, limit: Int) throws(NBDError) -> [Extent] {
    try begin("status \(offset) \(length)")
    var extents: [Extent] = []
    var position = offset
    let written = self.written.withLock { $0 }
    let cluster = UInt64(MemoryExport.clusterBytes)
    let last = UInt64((written.max() ?? 0) + 1) * cluster
    while position < offset + length {
      let end =
        position < last ? min(offset + length, (position / cluster + 1) * cluster) : offset + length
      let isHole = !written.contains(Int(position / cluster))
      if extents.last?.isHole == isHole {
        extents[extents.count - 1].length += end - position
      } else if extents.count == limit {
        break
      } else {
        extents.append(Extent(length: end - position, isHole: isHole, readsZero: isHole))
      }
      position = end
    }
    return extents
  }
}

final class MemoryDirectory: ExportDirectory {
  private let doors: [([UInt8], MemoryExport)]
  /// Names that take nobody now, and why.
  let refused = Locked<[[UInt8]: DoorRefusal]>([:])
  /// What those who ask have to be, name by name.
  let guards = Locked<[[UInt8]: @Sendable (Visitor) -> Bool]>([:])
  /// While false, looking a name up waits.
  let gate = Monitor(true)
  let lookups = Locked(0)

  init(_ doors: [(String, MemoryExport)]) { self.doors = doors.map { (Array($0.0.utf8), $0.1) } }

  func list(for visitor: Visitor) -> [(name: [UInt8], summary: String)] {
    doors.filter { mayEnter($0.0, visitor) }.map { ($0.0, $0.1.summary) }
  }

  private func mayEnter(_ name: [UInt8], _ visitor: Visitor) -> Bool {
    guards.withLock { $0[name] }.map { $0(visitor) } ?? true
  }

  func export(
    named name: [UInt8], for visitor: Visitor
  ) throws(DoorRefusal) -> MemoryExport? {
    lookups.withLock { $0 += 1 }
    _ = gate.wait { $0 ? true : nil }
    if let error = refused.withLock({ $0[name] }) { throw error }
    guard mayEnter(name, visitor) else {
      throw DoorRefusal(
        visitor.isSecure ? .policy : .needsTLS, "not for \(visitor.peer) \(visitor.names)")
    }
    return doors.first { $0.0 == name }?.1
  }
}
