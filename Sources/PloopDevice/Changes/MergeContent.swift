internal import PloopFormat
internal import PloopIO

/// One cluster of a delta that is merged away.
struct MergeContent {
  let file: ImageFile
  let offset: UInt64
  let count: UInt64

  /// Whether all of it reads as zero. A hole tells without being read, and most data with its first
  /// bytes; only what begins with zeroes is read as a whole.
  func isZero(_ buffer: AlignedBuffer) throws(DeviceError) -> Bool {
    if isHole { return true }
    var done: UInt64 = 0
    var step = UInt64(min(Geometry.pageBytes, buffer.count))
    while done < count {
      let part = buffer.region.slice(0, Int(min(step, count - done)))
      try converting { () throws(IOError) in try file.readOrZero(into: part, at: offset + done) }
      guard part.isZero else { return false }
      done += UInt64(part.count)
      step = UInt64(buffer.count)
    }
    return true
  }

  var isHole: Bool { file.nextData(from: offset).map { $0 >= offset + count } ?? false }

  /// What dealing with it took from the file.
  func readBytes(isZero: Bool) -> UInt64 { isZero && isHole ? 0 : count }

  /// Has another place share all of it.
  ///
  /// - Returns: false where it has to be copied.
  func share(with target: ImageFile, at base: UInt64) throws(DeviceError) -> Bool {
    try converting { () throws(IOError) in
      try target.cloneRange(from: file, at: offset, to: base, length: count)
    }
  }

  /// Copies all of it; what lies beyond the end of the file is zero.
  ///
  /// - Parameter sharing: what may be shared with the target from how many bytes on; nil where every byte is to have
  ///   a place of its own on the disk.
  func copy(
    to target: ImageFile, at base: UInt64, _ buffer: AlignedBuffer, sharing: SharingBounds?
  ) throws(DeviceError) {
    let isShareable = sharing.map { count >= $0.movedBytes } ?? false
    if isShareable, try share(with: target, at: base) { return }
    try converting { () throws(IOError) in
      var done: UInt64 = 0
      if isShareable,
        let copied = try target.copy(from: file, at: offset, to: base, count: Int(count))
      {
        done = UInt64(copied)
      }
      while done < count {
        let part = buffer.region.slice(0, Int(min(UInt64(buffer.count), count - done)))
        try file.readOrZero(into: part, at: offset + done)
        try target.write(part, at: base + done)
        done += UInt64(part.count)
      }
    }
  }
}
