/// What is on a benchmark's disks: every 4 KiB unit says where it belongs and who wrote it.
///
/// The first word of a unit is a hash of the unit's number with the writer's stamp (1...255) in its
/// low byte; each further word is the one before plus a constant. So bytes of another place, of a
/// torn unit or of an older writer are recognised without a copy of the disk, at about the speed of
/// memory. Stamp 0 is a unit of zeroes.
package enum Content {
  package static let unitBytes = 4096
  private static let wordStep: UInt64 = 0x9E37_79B9_7F4A_7C15

  private static func place(of unit: UInt64) -> UInt64 {
    var z = (unit &+ 1) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 31)) &* 0x94D0_49BB_1331_11EB
    // The highest bit is set, so that no unit of ours begins like one of zeroes.
    return ((z ^ (z >> 29)) | 1 << 63) & ~0xFF
  }

  /// Fills `count` bytes with what `stamp` writes at `offset`; both are multiples of 8.
  package static func fill(
    _ target: UnsafeMutableRawPointer, count: Int, offset: UInt64, stamp: UInt8
  ) {
    var done = 0
    while done < count {
      let position = offset &+ UInt64(done)
      let within = Int(position % UInt64(unitBytes))
      let part = min(unitBytes - within, count - done)
      let step = stamp == 0 ? 0 : wordStep
      let first = stamp == 0 ? 0 : place(of: position / UInt64(unitBytes)) | UInt64(stamp)
      let start = first &+ UInt64(within / 8) &* step
      let words = target + done
      for index in 0..<part / 8 {
        words.storeBytes(
          of: start &+ UInt64(index) &* step, toByteOffset: index &* 8, as: UInt64.self)
      }
      done += part
    }
  }

  /// Looks at one unit, or at a part of one that does not cross its end.
  ///
  /// - Parameter entirely: every word, not only the first and the last.
  /// - Returns: the stamp of whoever wrote it; nil when these bytes were never written here.
  package static func stamp(
    _ source: UnsafeRawPointer, count: Int, offset: UInt64, entirely: Bool
  ) -> UInt8? {
    let first = source.loadUnaligned(as: UInt64.self)
    let last = source.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self)
    let within = (offset % UInt64(unitBytes)) / 8
    let isZero = first == 0 && last == 0
    let step = isZero ? 0 : wordStep
    let opening = first &- within &* step
    let stamp = UInt8(truncatingIfNeeded: opening)
    guard
      isZero
        || (opening & ~0xFF == place(of: offset / UInt64(unitBytes)) && stamp != 0)
    else { return nil }
    guard last == first &+ UInt64(count / 8 - 1) &* step else { return nil }
    guard entirely else { return stamp }
    var different: UInt64 = 0
    for index in 0..<count / 8 {
      let word = source.loadUnaligned(fromByteOffset: index &* 8, as: UInt64.self)
      different |= word ^ (first &+ UInt64(index) &* step)
    }
    return different == 0 ? stamp : nil
  }
}
