internal import Glibc
package import PloopIO

/// What OpenVZ's `ploop copy -d` receives: packets, each of a marker, a size, a place in the file, and the bytes. Of size
/// 0 is the last. One of four bytes at place 0 asks for what has come to be made durable; the answer comes the other
/// way.
///
/// Several threads store at a time; packets go out one after the other.
package final class CopyStream: BlockExport {
  private static let marker: UInt32 = 0x4CC0_AC3D
  private static let headerBytes = 16
  private static let success = Array("SUCCESS\n".utf8)
  /// Nobody knows how long the file becomes.
  private static let sizeBytes: UInt64 = 1 << 60
  private static let connectSeconds = 30

  package let name: String
  package let facts: ExportFacts
  private let socket: ClientSocket
  private let patienceSeconds: Int
  private let header = Locked(AlignedBuffer(count: CopyStream.headerBytes))
  private let zeroes = AlignedBuffer(count: 1 << 20)

  /// - Parameters:
  ///   - patienceSeconds: for how long the receiver may take nothing, or say nothing when it is asked.
  ///   - connect: by the deadline.
  /// - Throws: `.target` where nobody listens; `.mismatch` for an address of the local link.
  package init(
    _ name: String, patienceSeconds: Int = 60,
    connect: (Deadline) throws(IOError) -> ClientSocket
  ) throws(BackupError) {
    self.name = name
    self.patienceSeconds = patienceSeconds
    socket = try onTarget { () throws(IOError) in
      try connect(.after(seconds: CopyStream.connectSeconds))
    }
    guard socket.peer?.isLinkLocal != true else {
      throw BackupError(.mismatch, "\(name) is an address of the local link")
    }
    var facts = ExportFacts(sizeBytes: CopyStream.sizeBytes)
    facts.canZero = false
    facts.tellsZeroes = false
    self.facts = facts
  }

  package func read(into region: ByteRegion, at offset: UInt64) throws(BackupError) {
    throw BackupError(.mismatch, "\(name): what was sent cannot be read")
  }

  package func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError) {
    try header.withLock { header throws(BackupError) in try send(region, at: offset, header) }
  }

  package func zero(_ range: Range<UInt64>) throws(BackupError) {
    for start in stride(from: range.lowerBound, to: range.upperBound, by: zeroes.count) {
      let count = Int(min(UInt64(zeroes.count), range.upperBound - start))
      try write(zeroes.region.slice(0, count), at: start)
    }
  }

  package func flush() throws(BackupError) {
    let answer = AlignedBuffer(count: CopyStream.success.count)
    let isAnswered = try header.withLock { header throws(BackupError) in
      try send(AlignedBuffer(count: 4).region, at: 0, header)
      return try onTarget { () throws(IOError) in
        try socket.receive(into: answer.region, until: .after(seconds: patienceSeconds))
      }
    }
    guard isAnswered else {
      throw BackupError(.target(code: ECONNRESET), "\(name): the receiver has hung up")
    }
    guard answer.region.bytes == CopyStream.success else {
      throw BackupError(
        .target(code: EIO), "\(name): the receiver could not make durable what came")
    }
  }

  /// All of it has been sent; the receiver ends.
  package func end() throws(BackupError) {
    try header.withLock { header throws(BackupError) in
      try send(AlignedBuffer(count: 0).region, at: 0, header)
    }
  }

  package func extents(in range: Range<UInt64>) throws(BackupError) -> [ExportExtent] { [] }

  /// The connection ends with this object.
  package func hangUp() {}

  private func send(
    _ region: ByteRegion, at offset: UInt64, _ header: AlignedBuffer
  ) throws(BackupError) {
    header.region.setLittleEndian(CopyStream.marker, at: 0)
    header.region.setLittleEndian(UInt32(region.count), at: 4)
    header.region.setLittleEndian(offset, at: 8)
    try onTarget { () throws(IOError) in
      try socket.send(header.region, patience: patienceSeconds)
      try socket.send(region, patience: patienceSeconds)
    }
  }
}
