internal import PloopFormat

/// The file of checkpoints beside a top. Input: 0 for the file as it is; else its head (32 bytes, of which the
/// length is made right), what all marks are, and its body, of which a file with right checksums is made.
enum CheckpointsTarget {
  private static let headBytes = 4096

  static func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let bytes = head.byte() == 0 ? head.body : mended(&head)
    guard let (file, isMarked) = try? CheckpointFile.parse(bytes) else { return }
    try promise(isMarked.count == file.regionCount, "\(isMarked.count) marks")
    let (again, marks) = try CheckpointFile.parse(file.encoded)
    try promise(!marks.contains(true), "a new file has marks")
    try promise(written(again) == written(file), "checkpoints change when they are written")
    var closed = file.chain
    for index in closed.indices { closed[index].nanoseconds &+= 1 }
    for (now, size) in [
      (file.chain, file.diskBytes), (closed, file.diskBytes), (file.chain, file.diskBytes / 2),
      (Array(file.chain.dropFirst()), file.diskBytes), (file.chain, .max),
    ] { try judge(file, isMarked, now, size) }
  }

  private static func judge(
    _ file: CheckpointFile, _ isMarked: [Bool], _ now: [CheckpointFile.Stamp], _ diskBytes: UInt64
  ) throws {
    let judged = file.judged(isMarked: isMarked, now: now, diskBytes: diskBytes)
    try promise(judged.map(\.name) == file.checkpoints.map(\.name), "other checkpoints")
    for (checkpoint, stored) in zip(judged, file.checkpoints) {
      let limit = CheckpointFile.bitmapBytes(
        forDiskBytes: file.diskBytes, granularityShift: checkpoint.granularityShift)
      try promise(UInt64(checkpoint.bits.count) <= limit, "bits behind the disk")
      if checkpoint.inconsistency != nil { continue }
      let isKept = zip(stored.bits, checkpoint.bits).allSatisfy { $0 & ~$1 == 0 }
      try promise(isKept && stored.bits.count <= checkpoint.bits.count, "a bit was lost")
    }
  }

  /// Without what is not written: zeroes behind the last bit.
  private static func written(_ file: CheckpointFile) -> CheckpointFile {
    var file = file
    for index in file.checkpoints.indices {
      while file.checkpoints[index].bits.last == 0 { file.checkpoints[index].bits.removeLast() }
    }
    return file
  }

  private static func mended(_ input: inout InputHead) -> [UInt8] {
    let start = (0..<32).map { _ in input.byte() }
    let mark = input.byte()
    let body = input.body
    var fields = InputHead(Array(start[16..<28]))
    let diskBytes = fields.number(UInt64.self)
    let shift = Int(fields.number(UInt32.self))
    let regions = CheckpointFile.regionShifts.contains(shift) ? diskBytes >> UInt64(shift) : 0
    let marks = (Int(min(regions, 8192)) + 1 + 4095) & ~4095
    var file = start + littleEndian(UInt64(body.count)) + MD5.digest(body[...])
    file += MD5.digest(file[...])
    file += [UInt8](repeating: 0, count: headBytes - file.count)
    return file + [UInt8](repeating: mark, count: marks) + body
  }
}
