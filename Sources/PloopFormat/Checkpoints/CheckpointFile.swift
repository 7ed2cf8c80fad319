/// The checkpoints of a disk, as the file beside its top holds them: what was written to the disk
/// since some instants, by names (docs/crash-safety.md, "Checkpoints").
///
/// Little-endian numbers, in this order: a head of 4 KiB with a checksum of itself and one of the body;
/// the marks, one byte for each region of the disk; the body with what the chain's files were and with
/// the bitmaps. The file is replaced as a whole. Only marks are written in place, one byte each, so they
/// are outside of the checksums: whatever is not exactly the byte for "not written" counts as written.
package struct CheckpointFile: Equatable, Sendable {
  package static let suffix = ".checkpoints"

  /// Whether the disk is being written, as far as this file knows.
  package enum State: UInt32, Sendable {
    /// The bitmaps are exact, for files that are what ``CheckpointFile/chain`` says.
    case closed = 0
    /// Whatever is in a marked region may have been written too.
    case open = 1
  }

  /// What a file of the chain was when this was written.
  package struct Stamp: Equatable, Sendable {
    package var inode: UInt64
    package var sizeBytes: UInt64
    /// When its bytes were changed last.
    package var seconds: Int64
    package var nanoseconds: UInt32
    /// Its first 64 bytes; of a shorter file, with zeroes behind.
    package var header: [UInt8]

    package init(
      inode: UInt64, sizeBytes: UInt64, seconds: Int64, nanoseconds: UInt32, header: [UInt8]
    ) {
      precondition(header.count == Header.byteCount)
      self.inode = inode
      self.sizeBytes = sizeBytes
      self.seconds = seconds
      self.nanoseconds = nanoseconds
      self.header = header
    }
  }

  package struct Checkpoint: Equatable, Sendable {
    package var name: String
    /// Seconds since 1970.
    package var createdAt: Double
    /// log2 of the bytes that one bit stands for.
    package var granularityShift: Int
    /// The newest checkpoint that there was when this one was made.
    package var parent: String?
    /// Why the bitmap says nothing, if it does not.
    package var inconsistency: String?
    /// The request that made it, if that can come again: of 1 to 1024 bytes.
    package var request: String?
    /// Bit i is bit i % 8 of byte i / 8; what lies behind the end is clean.
    package var bits: [UInt8]

    package init(
      name: String, createdAt: Double, granularityShift: Int, parent: String? = nil,
      inconsistency: String? = nil, request: String? = nil, bits: [UInt8] = []
    ) {
      self.name = name
      self.createdAt = createdAt
      self.granularityShift = granularityShift
      self.parent = parent
      self.inconsistency = inconsistency
      self.request = request
      self.bits = bits
    }
  }

  package var state: State
  package let diskBytes: UInt64
  /// log2 of the bytes of a region.
  package let regionShift: Int
  /// Oldest to newest delta.
  package var chain: [Stamp]
  package var checkpoints: [Checkpoint]

  package init(
    state: State, diskBytes: UInt64, regionShift: Int, chain: [Stamp], checkpoints: [Checkpoint]
  ) {
    self.state = state
    self.diskBytes = diskBytes
    self.regionShift = regionShift
    self.chain = chain
    self.checkpoints = checkpoints
  }

  // MARK: Limits

  /// 4 KiB, as no host writes less, to 64 MiB, the largest region.
  package static let granularityShifts = 12...26
  /// 64 KiB to 64 MiB.
  package static let regionShifts = 16...26
  package static let regionLimit: UInt64 = 1 << 20
  package static let bitmapBytesLimit = 64 << 20
  package static let checkpointLimit = 1024
  /// Of all checkpoints of a disk.
  package static let bitmapsBytesLimit: UInt64 = 256 << 20
  /// Of the whole file.
  package static let byteLimit = 512 << 20
  static let deltaLimit = 256
  static let textLimit = 1024

  /// Regions of about a thousandth of the disk: few syncs while it is written from end to end, and
  /// little that is dirty in vain after a crash.
  ///
  /// - Returns: nil for a disk of more than 64 TiB, whose marks would be too many.
  package static func regionShift(forDiskBytes bytes: UInt64) -> Int? {
    let shift = regionShifts.first { pieces(bytes, $0) <= 1024 } ?? regionShifts.upperBound
    return regionCount(ofDiskBytes: bytes, shift: shift) <= regionLimit ? shift : nil
  }

  package static func regionCount(ofDiskBytes bytes: UInt64, shift: Int) -> UInt64 {
    pieces(bytes, shift)
  }

  /// Bytes that the bits of a disk take.
  package static func bitmapBytes(forDiskBytes bytes: UInt64, granularityShift: Int) -> UInt64 {
    pieces(pieces(bytes, granularityShift), 3)
  }

  private static func pieces(_ bytes: UInt64, _ shift: Int) -> UInt64 {
    (bytes >> UInt64(shift)) + (bytes & ((1 << UInt64(shift)) - 1) == 0 ? 0 : 1)
  }

  // MARK: Layout

  static let magic = Array("ploopdCP".utf8)
  /// 2 knows which requests made its checkpoints; otherwise it is the same as 1, which is read too.
  static let version: UInt32 = 2
  static let versions: ClosedRange<UInt32> = 1...version
  static let headBytes = 4096
  static let checkedHeadBytes = 56

  /// Where the mark of region 0 lies in the file.
  package static let marksOffset = UInt64(headBytes)
  /// The mark of a region that nobody has written.
  package static let clean: UInt8 = 0x55
  package static let written: UInt8 = 0xAA

  package var regionCount: Int {
    Int(CheckpointFile.regionCount(ofDiskBytes: diskBytes, shift: regionShift))
  }

  /// Bytes of the marks, filled up so that the body shares no page with them.
  package var marksBytes: Int { (regionCount + 4095) & ~4095 }

  /// Where the body lies in the file.
  package var bodyOffset: UInt64 { CheckpointFile.marksOffset + UInt64(marksBytes) }
}
