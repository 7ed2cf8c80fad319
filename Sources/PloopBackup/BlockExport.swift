package import PloopIO

/// A place of fixed size at the other end of a connection, which is read and written by bytes.
///
/// Any thread may use it, several at a time. Its names in messages are its address.
package protocol BlockExport: Sendable {
  var name: String { get }
  var facts: ExportFacts { get }

  /// Reads a range within the export, of whole blocks, as the writing calls take it too.
  func read(into region: ByteRegion, at offset: UInt64) throws(BackupError)
  func write(_ region: ByteRegion, at offset: UInt64) throws(BackupError)

  /// Has a range read as zero; it may be a hole then.
  func zero(_ range: Range<UInt64>) throws(BackupError)

  /// Everything that was written is durable.
  func flush() throws(BackupError)

  /// What is said of a range's beginning, extent by extent; it may be less than the range, or more. Only
  /// where the export tells zeroes.
  func extents(in range: Range<UInt64>) throws(BackupError) -> [ExportExtent]

  /// Nobody uses it any more.
  func hangUp()
}

/// What an export is.
package struct ExportFacts: Sendable, Equatable {
  package var sizeBytes: UInt64
  package var isReadOnly = false
  package var canFlush = true
  /// Whether zeroes can be stored without sending them.
  package var canZero = true
  /// Whether it tells where nothing but zeroes is.
  package var tellsZeroes = true
  /// Every request has to begin and end at a multiple of it, a power of two.
  package var blockBytes: UInt64 = 1
  /// Most bytes that are sent with one request; a multiple of `blockBytes`.
  package var limitBytes: UInt64 = 1 << 20

  package init(sizeBytes: UInt64) { self.sizeBytes = sizeBytes }
}

package struct ExportExtent: Sendable, Equatable {
  package var length: UInt64
  package var isZero: Bool

  package init(length: UInt64, isZero: Bool) {
    self.length = length
    self.isZero = isZero
  }
}

extension BlockExport {
  /// Reads what the export has of a range; the rest is zeroed.
  func readOrZero(into region: ByteRegion, at offset: UInt64) throws(BackupError) {
    let count = Int(min(UInt64(region.count), facts.sizeBytes - min(facts.sizeBytes, offset)))
    region.slice(count, region.count - count).zero()
    try read(into: region.slice(0, count), at: offset)
  }
}
