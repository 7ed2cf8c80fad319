package import PloopFormat
package import PloopIO

/// A whole backup in an export: what a restore reads.
///
/// Nothing that is not what was stored is handed out. What was zero is known here, and not asked for.
package final class ExportPoint: BackupSource {
  package let geometry: Geometry
  package let manifest: PointManifest
  package var wanted: Bitmap? { nil }
  private let export: any BlockExport
  private let stored: StoredClusters
  private let map: ExportMap
  /// Kept open, since a lock hangs on it.
  private let lock: ImageFile

  /// - Throws: `.corrupt` when its records are damaged, or the export is too short for it.
  init(
    _ manifest: PointManifest, _ records: PointRecords, _ export: any BlockExport, _ lock: ImageFile
  ) throws(BackupError) {
    guard let geometry = manifest.geometry else {
      throw BackupError(.mismatch, "\(manifest.id): no backup can be so")
    }
    guard export.facts.sizeBytes >= geometry.sizeBytes else {
      throw BackupError(
        .corrupt(clusters: []),
        "\(export.name) has \(export.facts.sizeBytes) bytes, and \(geometry.sizeBytes) were stored")
    }
    stored = StoredClusters(try records.entries(of: manifest, geometry))
    map = ExportMap(export, geometry)
    self.geometry = geometry
    self.manifest = manifest
    self.export = export
    self.lock = lock
  }

  package func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    stored.content(from: cluster, limit: limit)
  }

  /// - Throws: `.corrupt` when one of the clusters is not what was stored.
  package func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    let wrong = try stored.read(into: region, from: cluster, of: geometry, in: export)
    guard wrong.isEmpty else {
      throw BackupError(
        .corrupt(clusters: wrong), "\(export.name): \(wrong.count) clusters are not what was stored"
      )
    }
  }

  /// Reads all of it and holds it against the checksums. What the export says is zero is not read, and
  /// wrong where it should not be.
  package func check() -> PointCheck { PointCheck(self) }
}

extension ExportPoint: CheckedContent {
  var clusterShift: Int { geometry.clusterShift }
  var places: Range<UInt64> { 0..<geometry.clusterCount }

  func known(
    from place: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, wrong: [UInt64]?) {
    let content = try map.content(from: place, limit: limit)
    guard content.isAbsent else { return (content.count, nil) }
    return (content.count, stored.clusters(in: place..<place + content.count))
  }

  func wrong(in places: Range<UInt64>) throws(BackupError) -> [UInt64] {
    let buffer = AlignedBuffer(unfilled: places.count << geometry.clusterShift)
    return try stored.read(
      into: buffer.region, from: places.lowerBound, of: geometry, in: export)
  }
}

/// Which clusters of a copy are other than zero, with their checksums.
struct StoredClusters: Sendable {
  /// Cluster and checksum in one word, in ascending order.
  private let words: [UInt64]

  init(_ entries: [StepJournal.Entry]) {
    words = entries.map { UInt64($0.cluster) << 32 | UInt64($0.checksum) }.sorted()
  }

  /// The place of the first that is not before a cluster.
  private func place(of cluster: UInt64) -> Int {
    var (low, high) = (0, words.count)
    while low < high {
      let middle = (low + high) / 2
      if words[middle] >> 32 < cluster { low = middle + 1 } else { high = middle }
    }
    return low
  }

  func clusters(in range: Range<UInt64>) -> [UInt64] {
    words[place(of: range.lowerBound)..<place(of: range.upperBound)].map { $0 >> 32 }
  }

  /// As ``BackupSource/content(from:limit:)``.
  func content(from cluster: UInt64, limit: UInt64) -> (count: UInt64, isAbsent: Bool) {
    var place = place(of: cluster)
    guard place < words.count else { return (limit, true) }
    let first = words[place] >> 32
    guard first == cluster else { return (min(limit, first - cluster), true) }
    var end = cluster
    while end - cluster < limit, place < words.count, words[place] >> 32 == end {
      end += 1
      place += 1
    }
    return (end - cluster, false)
  }

  /// Reads whole clusters.
  ///
  /// - Returns: those that are not what was stored.
  func read(
    into region: ByteRegion, from cluster: UInt64, of geometry: Geometry, in export: any BlockExport
  ) throws(BackupError) -> [UInt64] {
    let shift = geometry.clusterShift
    let offset = cluster << UInt64(shift)
    try export.readOrZero(into: region, at: offset)
    // What the export has behind the disk's end is nobody's.
    let count = Int(min(UInt64(region.count), geometry.sizeBytes - offset))
    region.slice(count, region.count - count).zero()
    var place = place(of: cluster)
    return (0..<region.count >> shift).compactMap { index in
      let slice = region.slice(index << shift, 1 << shift)
      let number = cluster + UInt64(index)
      guard place < words.count, words[place] >> 32 == number else {
        return slice.isZero ? nil : number
      }
      defer { place += 1 }
      return words[place] & 0xFFFF_FFFF == UInt64(CRC32C.checksum(slice)) ? nil : number
    }
  }
}
