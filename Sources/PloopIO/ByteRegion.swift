internal import Glibc

/// A piece of memory: an address and a length, every access checked.
///
/// Requests carry regions between threads instead of copies. A region of an ``AlignedBuffer`` keeps
/// the buffer alive; one that was made from an address owns nothing, and whoever starts a request
/// with it keeps the memory in place until the request has been answered.
package struct ByteRegion: @unchecked Sendable {
  package let start: UnsafeMutableRawPointer
  package let count: Int
  private let owner: AnyObject?

  package init(start: UnsafeMutableRawPointer, count: Int, owner: AnyObject? = nil) {
    precondition(count >= 0)
    self.start = start
    self.count = count
    self.owner = owner
  }

  package init(_ buffer: UnsafeMutableRawBufferPointer) {
    // An empty buffer may have no address; a region of no bytes never uses its address.
    self.init(start: buffer.baseAddress ?? ByteRegion.nowhere, count: buffer.count)
  }

  private static nonisolated(unsafe) let nowhere = UnsafeMutableRawPointer.allocate(
    byteCount: 1, alignment: 1)

  /// The part from `offset` on, `count` bytes long.
  package func slice(_ offset: Int, _ count: Int) -> ByteRegion {
    precondition(offset >= 0 && count >= 0 && offset <= self.count - count)
    return ByteRegion(start: start + offset, count: count, owner: owner)
  }

  package func zero() {
    guard count > 0 else { return }
    memset(start, 0, count)
  }

  package func fill(_ byte: UInt8) {
    guard count > 0 else { return }
    memset(start, Int32(byte), count)
  }

  /// Copies all of `source` to the place `offset`.
  package func copy(from source: ByteRegion, at offset: Int = 0) {
    precondition(offset >= 0 && offset <= count - source.count)
    guard source.count > 0 else { return }
    memcpy(start + offset, source.start, source.count)
  }

  /// Copies `length` bytes from one place of the region to another; the two may overlap.
  package func move(from source: Int, to target: Int, count length: Int) {
    precondition(length >= 0 && source >= 0 && target >= 0)
    precondition(source <= count - length && target <= count - length)
    memmove(start + target, start + source, length)
  }

  /// Whether another region, as long as this one, holds the same bytes.
  package func equals(_ other: ByteRegion) -> Bool {
    count == other.count && memcmp(start, other.start, count) == 0
  }

  package var isZero: Bool {
    guard count > 0 else { return true }
    // The first byte is zero and every byte equals its predecessor.
    return start.load(as: UInt8.self) == 0 && memcmp(start, start + 1, count - 1) == 0
  }

  package subscript(offset: Int) -> UInt8 {
    get {
      precondition(offset >= 0 && offset < count)
      return start.load(fromByteOffset: offset, as: UInt8.self)
    }
    nonmutating set {
      precondition(offset >= 0 && offset < count)
      start.storeBytes(of: newValue, toByteOffset: offset, as: UInt8.self)
    }
  }

  // Numbers are read and written by the thousand, an index page at a time: a call for each, which no optimizer sees
  // into from another module, costs more than all that is done with it.

  /// Reads a little-endian number at any alignment.
  @inlinable @inline(__always)
  package func littleEndian<Number: FixedWidthInteger & BitwiseCopyable>(
    at offset: Int, as type: Number.Type
  ) -> Number {
    precondition(offset >= 0 && offset <= count - MemoryLayout<Number>.size)
    return Number(littleEndian: start.loadUnaligned(fromByteOffset: offset, as: Number.self))
  }

  /// Writes a little-endian number at any alignment.
  @inlinable @inline(__always)
  package func setLittleEndian<Number: FixedWidthInteger & BitwiseCopyable>(
    _ value: Number, at offset: Int
  ) {
    precondition(offset >= 0 && offset <= count - MemoryLayout<Number>.size)
    start.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Number.self)
  }

  /// Reads a big-endian number at any alignment, as the network has them.
  @inlinable @inline(__always)
  package func bigEndian<Number: FixedWidthInteger & BitwiseCopyable>(
    at offset: Int, as type: Number.Type
  ) -> Number {
    precondition(offset >= 0 && offset <= count - MemoryLayout<Number>.size)
    return Number(bigEndian: start.loadUnaligned(fromByteOffset: offset, as: Number.self))
  }

  /// Writes a big-endian number at any alignment.
  @inlinable @inline(__always)
  package func setBigEndian<Number: FixedWidthInteger & BitwiseCopyable>(
    _ value: Number, at offset: Int
  ) {
    precondition(offset >= 0 && offset <= count - MemoryLayout<Number>.size)
    start.storeBytes(of: value.bigEndian, toByteOffset: offset, as: Number.self)
  }

  package var buffer: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: start, count: count)
  }

  package var bytes: [UInt8] { [UInt8](buffer) }
}

/// Memory of a fixed size, aligned to a page so that any I/O can use it.
package final class AlignedBuffer: @unchecked Sendable {
  package static let alignment = 4096

  private let memory: UnsafeMutableRawPointer
  package let count: Int

  /// Memory that holds anything, for those who fill all of it or show only what they have filled:
  /// a page that nobody touches costs nothing.
  ///
  /// - Parameter count: bytes; at least one page is allocated.
  package init(unfilled count: Int) {
    precondition(count >= 0)
    memory = UnsafeMutableRawPointer.allocate(
      byteCount: max(count, AlignedBuffer.alignment), alignment: AlignedBuffer.alignment)
    self.count = count
  }

  /// Zeroes.
  package convenience init(count: Int) {
    self.init(unfilled: count)
    memset(memory, 0, count)
  }

  package convenience init(_ bytes: [UInt8]) {
    self.init(unfilled: bytes.count)
    bytes.withUnsafeBytes { region.buffer.copyMemory(from: $0) }
  }

  deinit { memory.deallocate() }

  package var region: ByteRegion { ByteRegion(start: memory, count: count, owner: self) }

  /// The same memory without a claim on it, for whoever holds the buffer for as long as anybody uses
  /// the region: passing it on costs no reference counting.
  package var borrowed: ByteRegion { ByteRegion(start: memory, count: count) }
}
