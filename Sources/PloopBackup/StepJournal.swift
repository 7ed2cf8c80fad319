package import PloopIO

/// What of a copy counts: one record for each step, written once the step's clusters are durable.
///
/// A record says which clusters were stored, in the order in which they lie in the file, and where the
/// copying goes on. So it is the index of an image that has none yet, and the checksums of what is in it
/// for ever. A record that a crash has cut short, and all behind it, do not count.
///
/// All numbers are little-endian: `PBJ1`, the number of entries, the next cluster (8 bytes), bytes read (8),
/// bytes found to be zero (8); for each entry the cluster and the CRC-32C of its bytes (4 each); the CRC-32C
/// of the record, which continues that of the record before, and 4 bytes of zero.
package struct StepJournal: Sendable, Equatable {
  static let limitBytes = 1 << 34
  private static let magic: UInt32 = 0x314A_4250
  private static let headBytes = 32
  private static let tailBytes = 8
  private static let entryBytes = 8

  package struct Entry: Sendable, Equatable {
    package var cluster: UInt32
    package var checksum: UInt32
  }

  package struct Totals: Sendable, Equatable {
    package var bytesRead: UInt64 = 0
    /// Bytes of the disk that are zero, whether that was known before or seen.
    package var zeroBytes: UInt64 = 0

    package init(bytesRead: UInt64 = 0, zeroBytes: UInt64 = 0) {
      self.bytesRead = bytesRead
      self.zeroBytes = zeroBytes
    }
  }

  /// In the order of the file.
  package private(set) var entries: [Entry] = []
  /// All clusters before it are copied.
  package private(set) var cursor: UInt64 = 0
  package private(set) var totals = Totals()
  /// Bytes of all records.
  package private(set) var byteCount: UInt64 = 0
  private var checksum: UInt32 = 0

  package init() {}

  /// Reads as many records as there are whole ones.
  ///
  /// - Parameter clusterCount: of the disk; a record that names others does not count.
  package init(parsing file: ByteRegion, clusterCount: UInt64) {
    while let next = record(in: file, clusterCount) { take(next) }
  }

  // MARK: Records

  package struct Record {
    fileprivate var entries: [Entry]
    fileprivate var cursor: UInt64
    fileprivate var totals: Totals
    fileprivate var sum: UInt32

    fileprivate var byteCount: Int {
      StepJournal.headBytes + entries.count * StepJournal.entryBytes + StepJournal.tailBytes
    }
  }

  /// The record is in the file behind the others, durably.
  package mutating func take(_ record: Record) {
    entries += record.entries
    cursor = record.cursor
    totals = record.totals
    checksum = record.sum
    byteCount += UInt64(record.byteCount)
  }

  private func record(
    in file: ByteRegion, _ clusterCount: UInt64
  ) -> Record? {
    let start = Int(byteCount)
    let least = StepJournal.headBytes + StepJournal.tailBytes
    guard file.count - start >= least, file.littleEndian(at: start, as: UInt32.self) == Self.magic
    else { return nil }
    let count = Int(file.littleEndian(at: start + 4, as: UInt32.self))
    guard count <= (file.count - start - least) / Self.entryBytes else { return nil }
    let end = start + Self.headBytes + count * Self.entryBytes
    let sum = CRC32C.checksum(file.slice(start, end - start), continuing: checksum)
    guard file.littleEndian(at: end, as: UInt32.self) == sum else { return nil }
    let next = file.littleEndian(at: start + 8, as: UInt64.self)
    guard next >= cursor, next <= clusterCount else { return nil }
    let entries = (0..<count).map { index in
      let place = start + Self.headBytes + index * Self.entryBytes
      return Entry(
        cluster: file.littleEndian(at: place, as: UInt32.self),
        checksum: file.littleEndian(at: place + 4, as: UInt32.self))
    }
    guard entries.allSatisfy({ UInt64($0.cluster) < next }) else { return nil }
    let totals = Totals(
      bytesRead: file.littleEndian(at: start + 16, as: UInt64.self),
      zeroBytes: file.littleEndian(at: start + 24, as: UInt64.self))
    return Record(entries: entries, cursor: next, totals: totals, sum: sum)
  }

  /// The next record, which counts once it has been written and taken.
  ///
  /// - Parameters:
  ///   - entries: what was stored behind everything before.
  ///   - cursor: all clusters before it are copied then.
  /// - Returns: also its bytes, which belong behind those of the others.
  package func record(
    of entries: [Entry], cursor: UInt64, _ totals: Totals
  ) -> (record: Record, bytes: AlignedBuffer) {
    var record = Record(entries: entries, cursor: cursor, totals: totals, sum: 0)
    let bytes = AlignedBuffer(count: record.byteCount)
    let region = bytes.region
    region.setLittleEndian(Self.magic, at: 0)
    region.setLittleEndian(UInt32(clamping: entries.count), at: 4)
    region.setLittleEndian(cursor, at: 8)
    region.setLittleEndian(totals.bytesRead, at: 16)
    region.setLittleEndian(totals.zeroBytes, at: 24)
    for (index, entry) in entries.enumerated() {
      let place = Self.headBytes + index * Self.entryBytes
      region.setLittleEndian(entry.cluster, at: place)
      region.setLittleEndian(entry.checksum, at: place + 4)
    }
    let end = record.byteCount - Self.tailBytes
    record.sum = CRC32C.checksum(region.slice(0, end), continuing: checksum)
    region.setLittleEndian(record.sum, at: end)
    return (record, bytes)
  }
}
