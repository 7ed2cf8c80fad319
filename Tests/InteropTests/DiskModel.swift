import PloopDevice
import PloopFormat
import PloopIO
import TestSupport
import Testing

/// What a disk has to hold: a plain row of bytes that takes every request the disk takes.
final class DiskModel {
  private let content: AlignedBuffer
  private let noise: ByteRegion
  private var random: SeededGenerator
  private let longest: UInt64

  /// - Parameter raw: a raw file in `bench` with the disk's content now.
  init(_ bench: Bench, raw: String, seed: UInt64, longest: UInt64) throws {
    let file = try bench.folder.open(raw, writable: false)
    content = AlignedBuffer(count: Int(try file.size()))
    try file.readOrZero(into: content.region, at: 0)
    random = SeededGenerator(seed: seed)
    noise = AlignedBuffer(count: 1 << 20).region
    for word in stride(from: 0, to: noise.count, by: 8) {
      noise.setLittleEndian(random.next(), at: word)
    }
    self.longest = longest
  }

  func save(_ bench: Bench, _ raw: String) throws {
    let file = try bench.folder.create(raw)
    try file.write(content.region, at: 0)
  }

  /// Makes random requests to the disk and to the model.
  func exercise(_ device: Device, steps: Int) throws {
    let size = UInt64(content.count)
    #expect(device.geometry.sizeBytes == size)
    for _ in 0..<steps {
      var start = UInt64.random(in: 0..<size, using: &random)
      var length = min(size - start, UInt64.random(in: 1...longest, using: &random))
      if Bool.random(using: &random) {
        start &= ~(device.geometry.clusterBytes - 1)
        length = min(size - start, max(length, device.geometry.clusterBytes))
      }
      try request(device, start: start, length: min(length, UInt64(noise.count)))
    }
  }

  private func request(_ device: Device, start: UInt64, length: UInt64) throws {
    let part = content.region.slice(Int(start), Int(length))
    switch Int.random(in: 0..<8, using: &random) {
    case 0..<4:
      let bytes = noise.slice(
        Int.random(in: 0...(noise.count - part.count), using: &random), part.count)
      try device.write(bytes, at: start, durable: Int.random(in: 0..<8, using: &random) == 0)
      part.copy(from: bytes)
    case 4:
      try device.writeZeroes(
        offset: start, length: length, keepAllocated: Bool.random(using: &random),
        onlyIfFast: false, durable: false)
      part.zero()
    case 5:
      try device.discard(offset: start, length: length, durable: false)
      try takeTrimmed(device, part, start: start)
    case 6: try device.flush()
    default: #expect(try device.bytes(start, part.count) == part.bytes)
    }
  }

  /// A trim zeroes whole clusters; elsewhere each page of the range is zero or what it was.
  private func takeTrimmed(_ device: Device, _ part: ByteRegion, start: UInt64) throws {
    let geometry = device.geometry
    let mask = geometry.clusterBytes - 1
    let end = start + UInt64(part.count)
    let whole =
      (start + mask)
      & ~mask..<max(
        (start + mask) & ~mask, end == geometry.sizeBytes ? end : end & ~mask)
    let now = AlignedBuffer(try device.bytes(start, part.count)).region
    let page = UInt64(Geometry.pageBytes)
    var position = start
    while position < end {
      let next = min(end, (position / page + 1) * page)
      let old = part.slice(Int(position - start), Int(next - position))
      let new = now.slice(Int(position - start), old.count)
      #expect(new.isZero || !whole.contains(position) && new.bytes == old.bytes)
      old.copy(from: new)
      position = next
    }
  }
}
