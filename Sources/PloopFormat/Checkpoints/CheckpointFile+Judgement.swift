extension CheckpointFile {
  /// What can be said of the checkpoints, now that the files of the chain are as they are.
  ///
  /// - Parameters:
  ///   - isMarked: which regions were written since the file was, or may have been.
  ///   - now: the files, oldest first, before anything of them is changed.
  ///   - diskBytes: as the top's header has them.
  package func judged(
    isMarked: [Bool], now: [Stamp], diskBytes: UInt64
  ) -> [Checkpoint] {
    let reason = doubt(now: now, diskBytes: diskBytes)
    let rooms = CheckpointFile.rooms(
      forBitsOf: checkpoints.map(\.granularityShift), diskBytes: self.diskBytes)
    return zip(checkpoints, rooms).map { checkpoint, hasRoom in
      var judged = checkpoint
      let excess = hasRoom ? nil : CheckpointFile.excess
      judged.inconsistency = checkpoint.inconsistency ?? reason ?? excess
      if judged.inconsistency != nil {
        judged.bits = []
      } else {
        for region in isMarked.indices where isMarked[region] { judged.fill(region, of: self) }
      }
      return judged
    }
  }

  package static let excess = "its bitmap would be larger than bitmaps may be"

  /// Which of a disk's bitmaps may be kept. A disk that grows, or a file that somebody has made up, would have larger
  /// ones than any that is begun, and memory ends somewhere.
  ///
  /// - Parameter shifts: their granularities, oldest first.
  package static func rooms(forBitsOf shifts: [Int], diskBytes: UInt64) -> [Bool] {
    var all: UInt64 = 0
    return shifts.map { shift in
      let bytes = bitmapBytes(forDiskBytes: diskBytes, granularityShift: shift)
      guard bytes <= UInt64(bitmapBytesLimit), all + bytes <= bitmapsBytesLimit else {
        return false
      }
      all += bytes
      return true
    }
  }

  /// Why somebody else may have written the disk; nil when nobody has.
  private func doubt(now: [Stamp], diskBytes: UInt64) -> String? {
    // A growth that a crash has cut short leaves a file that is ahead of its disk.
    guard state == .open ? diskBytes <= self.diskBytes : diskBytes == self.diskBytes else {
      return "the disk had \(self.diskBytes) bytes and has \(diskBytes)"
    }
    if now == chain { return nil }
    guard state == .open else {
      return "its files are not what they were when they were closed"
    }
    guard let top = now.last, let header = try? Header(parsing: top.header), !header.isClean else {
      return "it was not closed by this service, and then closed by somebody else"
    }
    // Deltas that were merged away since are missing; one that is new is somebody else's.
    guard top.inode == chain.last?.inode,
      now.allSatisfy({ stamp in chain.contains { $0.inode == stamp.inode } })
    else { return "one of its files was replaced by another" }
    return nil
  }
}

extension CheckpointFile.Checkpoint {
  /// Marks all of a region as written.
  fileprivate mutating func fill(_ region: Int, of file: CheckpointFile) {
    let first = UInt64(region) << UInt64(file.regionShift)
    let end = min(first + (1 << UInt64(file.regionShift)), file.diskBytes)
    let low = Int(first >> UInt64(granularityShift))
    let high = Int((end - 1) >> UInt64(granularityShift))
    let missing = high / 8 + 1 - bits.count
    if missing > 0 { bits += repeatElement(0, count: missing) }
    for bit in low...high { bits[bit >> 3] |= 1 << UInt8(bit & 7) }
  }
}
