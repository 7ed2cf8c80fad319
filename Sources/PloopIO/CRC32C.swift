internal import CLinux

/// The checksum of RFC 3720 (Castagnoli). Processors have an instruction for it, so it costs a small part
/// of what copying the bytes does.
package enum CRC32C {
  /// - Parameter before: the checksum of the bytes that come before these.
  package static func checksum(_ region: ByteRegion, continuing before: UInt32 = 0) -> UInt32 {
    clinux_crc32c(before, region.start, region.count)
  }

  package static func checksum(_ bytes: [UInt8], continuing before: UInt32 = 0) -> UInt32 {
    bytes.withUnsafeBytes { clinux_crc32c(before, $0.baseAddress, $0.count) }
  }

  /// The same without the processor's instruction.
  package static func plainChecksum(_ region: ByteRegion, continuing before: UInt32 = 0) -> UInt32 {
    clinux_crc32c_plain(before, region.start, region.count)
  }
}
