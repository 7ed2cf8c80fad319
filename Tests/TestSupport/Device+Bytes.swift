package import PloopDevice
internal import PloopIO

/// A disk as tests use it: bytes in, bytes out.
extension Device {
  /// What the disk holds; memory that it leaves alone would show.
  package func bytes(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
    let buffer = AlignedBuffer(count: count)
    buffer.region.fill(0xEE)
    var holes = HoleList()
    try read(into: buffer.region, at: offset, holes: &holes)
    return buffer.region.bytes
  }

  package func put(_ bytes: [UInt8], at offset: UInt64, durable: Bool = false) throws {
    try write(AlignedBuffer(bytes).region, at: offset, durable: durable)
  }

  package func close() throws { try detach(until: .after(seconds: 20)) }
}
