extension ImageFile {
  private static let zeroBytes: UInt64 = 1 << 20

  /// Writes zeroes, byte for byte: for files and hosts that cannot punch, and for ranges that have to
  /// have their space.
  ///
  /// - Parameters:
  ///   - start: in bytes, as is the end, which is not written any more.
  package func writeZeroes(from start: UInt64, to end: UInt64) throws(IOError) {
    guard start < end else { return }
    let zeroes = AlignedBuffer(count: Int(min(ImageFile.zeroBytes, end - start)))
    var place = start
    while place < end {
      let count = Int(min(UInt64(zeroes.count), end - place))
      try write(zeroes.region.slice(0, count), at: place)
      place += UInt64(count)
    }
  }
}
