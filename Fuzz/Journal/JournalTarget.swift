internal import PloopBackup
internal import PloopIO

/// The journal of a copy. Input: clusters of the disk (2 bytes); whether checksums are made right; the file.
enum JournalTarget {
  static func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let clusters = UInt64(head.number(UInt16.self))
    let isMended = head.byte() & 1 == 1
    let file = AlignedBuffer(head.body).region
    if isMended { mend(file) }
    let journal = StepJournal(parsing: file, clusterCount: clusters)
    try promise(journal.byteCount <= UInt64(file.count), "records behind the end")
    try promise(journal.cursor <= clusters, "it goes on behind the disk")
    try promise(
      journal.entries.allSatisfy { UInt64($0.cluster) < journal.cursor }, "a cluster not copied yet"
    )
    guard journal.byteCount > 0 else { return }
    // In one record it says the same.
    let (record, bytes) = StepJournal().record(
      of: journal.entries, cursor: journal.cursor, journal.totals)
    let again = StepJournal(parsing: bytes.region, clusterCount: clusters)
    try promise(again.entries == journal.entries, "entries change when they are written")
    try promise(
      again.cursor == journal.cursor && again.totals == journal.totals, "totals change")
    var taken = StepJournal()
    taken.take(record)
    try promise(taken == again, "what is taken is not what is read")
    // Cut short, the last record does not count.
    let cut = StepJournal(
      parsing: file.slice(0, Int(journal.byteCount) - 9), clusterCount: clusters)
    try promise(cut.byteCount < journal.byteCount, "half a record counts")
  }

  private static func mend(_ file: ByteRegion) {
    var start = 0
    var sum: UInt32 = 0
    while file.count - start >= 40 {
      let entries = Int(file.littleEndian(at: start + 4, as: UInt32.self))
      guard entries <= (file.count - start - 40) / 8 else { return }
      let count = 32 + entries * 8
      sum = CRC32C.checksum(file.slice(start, count), continuing: sum)
      file.setLittleEndian(sum, at: start + count)
      start += count + 8
    }
  }
}
