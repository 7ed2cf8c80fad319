extension FormatExtension {
  /// How many clusters of bits a bitmap has; those that are all clean or all dirty are not stored.
  package static func partCount(granularityBytes: UInt64, of geometry: Geometry) -> Int {
    let bits = (geometry.sizeBytes - 1) / granularityBytes + 1
    return Int((bits - 1) / (geometry.clusterBytes * 8) + 1)
  }

  /// Whether a checkpoint of this name can be in an extension at all: its names are UUIDs, in the form
  /// that QEMU and OpenVZ's tools write.
  package static func canName(_ id: String) -> Bool { uuidBytes(id) != nil }

  /// The cluster that the header is to point to.
  ///
  /// - Returns: nil when the bitmaps' heads do not fit into one cluster, or a name is no UUID.
  package func encoded(of geometry: Geometry) -> [UInt8]? {
    var features: [UInt8] = []
    func append<Number: FixedWidthInteger>(_ number: Number, to bytes: inout [UInt8]) {
      for index in 0..<MemoryLayout<Number>.size {
        bytes.append(UInt8(truncatingIfNeeded: number >> Number(8 * index)))
      }
    }
    for bitmap in bitmaps {
      guard let id = FormatExtension.uuidBytes(bitmap.id) else { return nil }
      append(FormatExtension.dirtyBitmapMagic, to: &features)
      append(0 as UInt64, to: &features)
      append(UInt32(32 + bitmap.parts.count * 8), to: &features)
      append(0 as UInt32, to: &features)
      append(geometry.sizeBytes / Geometry.sectorBytes, to: &features)
      features += id
      append(UInt32(bitmap.granularityBytes / Geometry.sectorBytes), to: &features)
      append(UInt32(bitmap.parts.count), to: &features)
      for part in bitmap.parts { append(part.entry, to: &features) }
    }
    // Behind the last feature stands one whose magic is 0.
    let room = Int(geometry.clusterBytes) - FormatExtension.checkedFrom
    guard features.count + FormatExtension.headBytes <= room else { return nil }
    features += [UInt8](repeating: 0, count: room - features.count)
    var cluster: [UInt8] = []
    append(FormatExtension.magic, to: &cluster)
    return cluster + MD5.digest(features[...]) + features
  }

  private static func uuidBytes(_ text: String) -> [UInt8]? {
    let characters = Array(text.utf8)
    let dashes = [8, 13, 18, 23]
    guard characters.count == 36, dashes.allSatisfy({ characters[$0] == UInt8(ascii: "-") }) else {
      return nil
    }
    let digits = characters.enumerated().filter { !dashes.contains($0.offset) }.map(\.element)
    var bytes: [UInt8] = []
    for index in stride(from: 0, to: digits.count, by: 2) {
      guard let high = nibble(digits[index]), let low = nibble(digits[index + 1]) else {
        return nil
      }
      bytes.append(high << 4 | low)
    }
    return bytes
  }

  /// Lower case only: a name that would come back in another case is another checkpoint.
  private static func nibble(_ digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    default: nil
    }
  }
}
