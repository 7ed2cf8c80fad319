internal import CLinux
internal import Glibc

// Single numbers, for who needs no more of an index than one entry.

extension ImageFile {
  /// A little-endian number of 32 bits at a multiple of 4; nil where the file ends before.
  ///
  /// The eight bytes around it are read: these the kernel copies as one, while of fewer it may have some from before
  /// a write and some from after it.
  package func word(at offset: UInt64) throws(IOError) -> UInt32? {
    var pair: UInt64 = 0
    let count = try withUnsafeMutableBytes(of: &pair) { (bytes) throws(IOError) in
      try read(into: ByteRegion(bytes), at: offset & ~7)
    }
    return UInt64(count) >= offset & 4 + 4 ? ImageFile.word(at: offset, of: pair) : nil
  }

  /// The same from the page cache.
  ///
  /// - Returns: nil when it would have to wait, or nobody can tell.
  package func wordNow(at offset: UInt64) -> UInt32? {
    var pair: UInt64 = 0
    let isRead = withUnsafeMutableBytes(of: &pair) {
      readNow(into: ByteRegion($0), at: offset & ~7)
    }
    return isRead ? ImageFile.word(at: offset, of: pair) : nil
  }

  private static func word(at offset: UInt64, of pair: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: UInt64(littleEndian: pair) >> ((offset & 4) * 8))
  }
}
