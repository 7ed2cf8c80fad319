internal import PloopIO
internal import PloopNBD

/// A disk in memory, every other 64 KiB of which is allocated.
final class FuzzDisk: Export {
  private static let clusterBytes: UInt64 = 65536
  static let sizeBytes = 256 << 10

  var size: UInt64 { UInt64(Self.sizeBytes) }
  let isReadOnly: Bool
  let preferredBlockSize: UInt32 = 4096
  let summary = "in memory"
  /// Whether the engine has to do everything.
  private let isSlow: Bool
  private let memory = AlignedBuffer(count: sizeBytes)

  init(isReadOnly: Bool = false, isSlow: Bool = false) {
    self.isReadOnly = isReadOnly
    self.isSlow = isSlow
    memory.region.fill(0x5A)
  }

  /// Whether nothing has been written to it.
  var isUntouched: Bool { memory.region.bytes.allSatisfy { $0 == 0x5A } }

  func readNow(into region: ByteRegion, at offset: UInt64, holes: inout HoleList) -> Bool {
    guard !isSlow else { return false }
    read(into: region, at: offset, holes: &holes)
    return true
  }

  func writeNow(_ region: ByteRegion, at offset: UInt64) -> Bool {
    guard !isSlow else { return false }
    memory.region.copy(from: region, at: Int(offset))
    return true
  }

  func beginRead(
    into region: ByteRegion, at offset: UInt64, on lane: ReadLane,
    completion: @escaping @Sendable (Result<HoleList, NBDError>) -> Void
  ) -> Bool { false }

  func read(into region: ByteRegion, at offset: UInt64, holes: inout HoleList) {
    region.copy(from: memory.region.slice(Int(offset), region.count))
    var place = offset
    for extent in extents(offset: offset, length: UInt64(region.count), limit: .max) {
      if extent.isHole { holes.append(start: Int(place - offset), count: Int(extent.length)) }
      place += extent.length
    }
  }

  func write(_ region: ByteRegion, at offset: UInt64, durable: Bool) {
    memory.region.copy(from: region, at: Int(offset))
  }

  func commit() {}
  func flush() {}
  func trim(offset: UInt64, length: UInt64, durable: Bool) {}

  func writeZeroes(
    offset: UInt64, length: UInt64, mode: ZeroMode, durable: Bool
  ) throws(NBDError) {
    guard !mode.contains(.onlyIfFast) else { throw NBDError(.notSupported, "not fast") }
    memory.region.slice(Int(offset), Int(length)).zero()
  }

  func cache(offset: UInt64, length: UInt64) throws(NBDError) {
    guard offset != 0 else { throw NBDError(.io, "the first byte cannot be read", at: 0) }
  }

  func extentsNow(offset: UInt64, length: UInt64, limit: Int) -> [Extent]? {
    isSlow ? nil : extents(offset: offset, length: length, limit: limit)
  }

  func extents(offset: UInt64, length: UInt64, limit: Int) -> [Extent] {
    var extents: [Extent] = []
    var place = offset
    while place < offset + length, extents.count < limit {
      let cluster = place / Self.clusterBytes
      let end = min(offset + length, (cluster + 1) * Self.clusterBytes)
      let isHole = cluster % 2 == 1
      extents.append(Extent(length: end - place, isHole: isHole, readsZero: false))
      place = end
    }
    return extents
  }

  var contexts: [Context] { [.allocation, .depth, .dirtyBitmap("b")] }

  func depths(offset: UInt64, length: UInt64, limit: Int) -> [(length: UInt64, depth: Int)] {
    extents(offset: offset, length: length, limit: limit).map { ($0.length, $0.isHole ? 0 : 1) }
  }

  func dirtyRuns(
    of bitmap: String, offset: UInt64, length: UInt64, limit: Int
  ) -> [(length: UInt64, isDirty: Bool)] {
    extents(offset: offset, length: length, limit: limit).map { ($0.length, !$0.isHole) }
  }
}

final class FuzzDirectory: ExportDirectory {
  let readOnly = FuzzDisk(isReadOnly: true)
  private let fast = FuzzDisk()
  private let slow = FuzzDisk(isSlow: true)

  func list(for visitor: Visitor) -> [(name: [UInt8], summary: String)] {
    [fast, slow, readOnly].enumerated().map {
      (Array("fsr".utf8.dropFirst($0).prefix(1)), $1.summary)
    }
  }

  func export(named name: [UInt8], for visitor: Visitor) throws(DoorRefusal) -> FuzzDisk? {
    switch name {
    case Array("f".utf8), []: return fast
    case Array("s".utf8): return slow
    case Array("r".utf8): return readOnly
    case Array("l".utf8): throw DoorRefusal(.leaving, "it is being taken away")
    case Array("p".utf8): throw DoorRefusal(.policy, "not for you")
    case Array("t".utf8): throw DoorRefusal(.needsTLS, "not without TLS")
    default: return nil
    }
  }
}
