extension ImageFile {
  private static let pieceBytes = 1 << 20

  /// Makes this file, which is empty, what another one is: its data, with its holes, and its length. Where both can share
  /// blocks nothing is copied.
  package func copyAll(of source: ImageFile) throws(IOError) {
    let size = try source.size()
    var place = source.nextData(from: 0) ?? size
    while place < size {
      let end = min(source.nextHole(from: place) ?? size, size)
      try copy(of: source, from: place, to: end)
      place = source.nextData(from: end) ?? size
    }
    try truncate(to: size)
  }

  private func copy(
    of source: ImageFile, from start: UInt64, to end: UInt64
  ) throws(IOError) {
    var place = start
    var buffer: AlignedBuffer?
    while place < end {
      let count = Int(min(end - place, UInt64(ImageFile.pieceBytes)))
      if buffer == nil, let copied = try copy(from: source, at: place, to: place, count: count) {
        guard copied > 0 else { return }
        place += UInt64(copied)
        continue
      }
      let piece = (buffer ?? AlignedBuffer(count: ImageFile.pieceBytes))
      buffer = piece
      let read = try source.read(into: piece.region.slice(0, count), at: place)
      guard read > 0 else { return }
      try write(piece.region.slice(0, read), at: place)
      place += UInt64(read)
    }
  }
}
