internal import PloopFormat

/// A format extension. Input: which cluster size; whether magic and checksum are made right; sectors of the disk (4
/// bytes); the cluster.
enum ExtensionTarget {
  static func run(_ input: [UInt8]) throws {
    var head = InputHead(input)
    let shift = 12 + Int(head.byte() & 3)
    let isMended = head.byte() & 1 == 1
    let sectors = max(1, UInt64(head.number(UInt32.self)))
    let geometry = Geometry(
      version: .v2, clusterShift: shift, sizeBytes: sectors * Geometry.sectorBytes)
    let body = head.body.prefix(Int(geometry.clusterBytes))
    var cluster = body + [UInt8](repeating: 0, count: Int(geometry.clusterBytes) - body.count)
    if isMended {
      cluster.replaceSubrange(0..<8, with: littleEndian(FormatExtension.magic))
      cluster.replaceSubrange(8..<24, with: MD5.digest(cluster[24...]))
    }
    guard let found = try? FormatExtension(parsing: Array(cluster), of: geometry) else { return }
    for bitmap in found.bitmaps {
      try promise(FormatExtension.canName(bitmap.id), "\(bitmap.id) is no name of a bitmap")
      let count = FormatExtension.partCount(
        granularityBytes: bitmap.granularityBytes, of: geometry)
      try promise(count == bitmap.parts.count, "\(bitmap.parts.count) parts, not \(count)")
      try promise(bitmap.sectors.count <= count, "more places than parts")
    }
    // One that fills its cluster to the last byte has no room for the end that is written behind it.
    guard let written = found.encoded(of: geometry) else { return }
    let again = try FormatExtension(parsing: written, of: geometry)
    try promise(again == found, "an extension changes when it is written")
  }
}
