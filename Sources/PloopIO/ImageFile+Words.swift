internal import CLinux
internal import Glibc

// Single numbers, for who needs no more of an index than one entry.

extension ImageFile {
  /// A little-endian number of 32 bits; nil where the file ends before.
  package func word(at offset: UInt64) throws(IOError) -> UInt32? {
    var word: UInt32 = 0
    let count = try withUnsafeMutableBytes(of: &word) { (bytes) throws(IOError) in
      try read(into: ByteRegion(bytes), at: offset)
    }
    return count == 4 ? UInt32(littleEndian: word) : nil
  }

  /// The same from the page cache.
  ///
  /// - Returns: nil when it would have to wait, or nobody can tell.
  package func wordNow(at offset: UInt64) -> UInt32? {
    var word: UInt32 = 0
    let isRead = withUnsafeMutableBytes(of: &word) { readNow(into: ByteRegion($0), at: offset) }
    return isRead ? UInt32(littleEndian: word) : nil
  }
}
