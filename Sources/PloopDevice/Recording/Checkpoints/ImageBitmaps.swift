internal import PloopFormat
internal import PloopIO

/// Checkpoints as the dirty bitmaps of an image's own format extension: as many clusters of bits as are
/// neither all clean nor all dirty, then the cluster that the header points to.
struct ImageBitmaps {
  private let geometry: Geometry
  /// One cluster each.
  private let stored: [[UInt8]]
  private let bitmaps: [(id: String, granularityBytes: UInt64, parts: [Int?])]

  /// A part that is not stored.
  private static let clean = -1

  /// - Returns: nil when none of the checkpoints can be in an image: its version has no extension,
  ///   their names are no UUIDs, or their heads do not fit.
  init?(_ checkpoints: [CheckpointFile.Checkpoint], of geometry: Geometry) {
    guard geometry.version == .v2 else { return nil }
    self.geometry = geometry
    var stored: [[UInt8]] = []
    var bitmaps: [(id: String, granularityBytes: UInt64, parts: [Int?])] = []
    for checkpoint in checkpoints
    where checkpoint.inconsistency == nil && FormatExtension.canName(checkpoint.name) {
      let granularity = UInt64(1) << UInt64(checkpoint.granularityShift)
      let bitCount = Int((geometry.sizeBytes - 1) / granularity + 1)
      let size = Int(geometry.clusterBytes)
      var parts: [Int?] = []
      for part in 0..<FormatExtension.partCount(granularityBytes: granularity, of: geometry) {
        let low = min(part * size, checkpoint.bits.count)
        let bits = Array(checkpoint.bits[low..<min(low + size, checkpoint.bits.count)])
        let here = min(size * 8, bitCount - part * size * 8)
        switch bits.reduce(0, { $0 + $1.nonzeroBitCount }) {
        case 0: parts.append(ImageBitmaps.clean)
        case here: parts.append(nil)
        default:
          parts.append(stored.count)
          stored.append(bits + [UInt8](repeating: 0, count: size - bits.count))
        }
      }
      bitmaps.append((checkpoint.name, granularity, parts))
    }
    guard !bitmaps.isEmpty else { return nil }
    self.stored = stored
    self.bitmaps = bitmaps
    guard head(at: 0).encoded(of: geometry) != nil else { return nil }
  }

  private func head(at offset: UInt64) -> FormatExtension {
    FormatExtension(
      bitmaps.map { bitmap in
        FormatExtension.DirtyBitmap(
          id: bitmap.id, granularityBytes: bitmap.granularityBytes,
          parts: bitmap.parts.map { place in
            switch place {
            case nil: .dirty
            case ImageBitmaps.clean: .clean
            case let place?:
              .stored(
                sector: offset / Geometry.sectorBytes + UInt64(place) * geometry.clusterSectors)
            }
          })
      })
  }

  /// Where the header is to point to.
  ///
  /// - Parameter offset: where in the file the clusters lie, a whole cluster.
  func sector(at offset: UInt64) -> UInt64 {
    offset / Geometry.sectorBytes + UInt64(stored.count) * geometry.clusterSectors
  }

  /// Writes all clusters; the file's end has to be at `offset`.
  func write(to file: ImageFile, at offset: UInt64) throws(IOError) {
    for (index, bits) in stored.enumerated() {
      try file.write(
        AlignedBuffer(bits).region, at: offset + UInt64(index) << UInt64(geometry.clusterShift))
    }
    guard let head = head(at: offset).encoded(of: geometry) else { return }
    try file.write(
      AlignedBuffer(head).region, at: offset + UInt64(stored.count) << UInt64(geometry.clusterShift)
    )
  }

  // MARK: Reading

  /// What a good extension says, as checkpoints; bitmaps with bits for more or less than a checkpoint
  /// can have are left out.
  static func read(
    _ found: FormatExtension, from file: ImageFile, of geometry: Geometry, at seconds: Double
  ) throws(DeviceError) -> [CheckpointFile.Checkpoint] {
    var checkpoints: [CheckpointFile.Checkpoint] = []
    let buffer = AlignedBuffer(count: Int(geometry.clusterBytes))
    for bitmap in found.bitmaps {
      let shift = bitmap.granularityBytes.trailingZeroBitCount
      let size = CheckpointFile.bitmapBytes(
        forDiskBytes: geometry.sizeBytes, granularityShift: shift)
      guard CheckpointFile.granularityShifts.contains(shift),
        size <= UInt64(CheckpointFile.bitmapBytesLimit),
        !checkpoints.contains(where: { $0.name == bitmap.id })
      else { continue }
      var bits: [UInt8] = []
      for part in bitmap.parts {
        switch part {
        case .clean: buffer.region.zero()
        case .dirty: buffer.region.fill(0xFF)
        case .stored(let sector):
          try converting { () throws(IOError) in
            try file.readOrZero(into: buffer.region, at: sector * Geometry.sectorBytes)
          }
        }
        bits += buffer.region.slice(0, min(buffer.count, Int(size) - bits.count)).bytes
      }
      checkpoints.append(
        CheckpointFile.Checkpoint(
          name: bitmap.id, createdAt: seconds, granularityShift: shift,
          parent: checkpoints.last?.name, bits: bits))
    }
    return checkpoints
  }
}
