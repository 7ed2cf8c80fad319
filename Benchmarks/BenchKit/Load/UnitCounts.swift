/// What a load has seen of units (``Content``): how many of each stamp, and which it wrote itself.
///
/// A pass of reads behind a load of writes must find at least as many units of its stamp as were
/// acknowledged: a server that loses writes cannot win.
package struct UnitCounts: Sendable {
  private var stamps = [UInt64](repeating: 0, count: 256)
  private var written: [UInt64] = []

  package init() {}

  mutating func add(_ stamp: UInt8, _ count: UInt64) { stamps[Int(stamp)] &+= count }

  mutating func noteWritten(_ offset: UInt64, _ job: LoadJob) {
    if written.isEmpty {
      written = Array(
        repeating: 0, count: Int(job.spanBytes / UInt64(Content.unitBytes) / 64) + 2)
    }
    var unit = Int((offset - job.offset) / UInt64(Content.unitBytes))
    let end = unit + max(1, job.blockBytes / Content.unitBytes)
    while unit < end {
      written[unit / 64] |= 1 << UInt64(unit % 64)
      unit += 1
    }
  }

  mutating func merge(_ other: UnitCounts) {
    for stamp in 0..<256 { stamps[stamp] += other.stamps[stamp] }
    if written.isEmpty { written = other.written }
    for (index, word) in other.written.enumerated() { written[index] |= word }
  }

  /// Different units that were written and acknowledged.
  package var writtenUnits: Int { written.reduce(0) { $0 + $1.nonzeroBitCount } }

  /// Units (or parts of one) that were read, by stamp.
  package var readUnits: [String: UInt64] {
    var result: [String: UInt64] = [:]
    for (stamp, count) in stamps.enumerated() where count > 0 { result["\(stamp)"] = count }
    return result
  }
}
