package import PloopBackup
package import PloopFormat
package import PloopIO

/// A disk of which every cluster is one number: nil where nothing is, 0 for zeroes, else what its bytes
/// are made of.
package struct ModelDisk: Sendable, Equatable {
  package let geometry: Geometry
  package var clusters: [UInt64?]

  package init(clusterShift: Int = 12, sizeBytes: UInt64) {
    geometry = Geometry(version: .v2, clusterShift: clusterShift, sizeBytes: sizeBytes)
    clusters = Array(repeating: nil, count: Int(geometry.clusterCount))
  }

  /// The same disk, larger.
  package func grown(to sizeBytes: UInt64) -> ModelDisk {
    var disk = ModelDisk(clusterShift: geometry.clusterShift, sizeBytes: sizeBytes)
    disk.clusters.replaceSubrange(0..<clusters.count, with: clusters)
    return disk
  }

  /// Whether another one reads the same: that nothing is there cannot be told from zeroes.
  package func reads(like other: [UInt64]) -> Bool { clusters.map { $0 ?? 0 } == other }

  package static func fill(_ region: ByteRegion, with value: UInt64) {
    guard value != 0 else { return region.zero() }
    for word in 0..<region.count / 8 {
      region.setLittleEndian(value &+ UInt64(word) << 32, at: word * 8)
    }
  }

  /// - Returns: nil when the bytes are no cluster of any model.
  package static func value(of region: ByteRegion) -> UInt64? {
    let value = region.littleEndian(at: 0, as: UInt64.self)
    let expected = AlignedBuffer(count: region.count)
    fill(expected.region, with: value)
    return expected.region.equals(region) ? value : nil
  }

  /// What a source holds, cluster by cluster.
  ///
  /// - Returns: nil when some cluster is of no model.
  package static func values(of source: any BackupSource) throws(BackupError) -> [UInt64]? {
    let geometry = source.geometry
    let buffer = AlignedBuffer(count: Int(geometry.clusterBytes))
    var values: [UInt64] = []
    for cluster in 0..<geometry.clusterCount {
      buffer.region.fill(0xEE)
      try source.read(into: buffer.region, from: cluster)
      let start = cluster << UInt64(geometry.clusterShift)
      let count = Int(min(geometry.clusterBytes, geometry.sizeBytes - start))
      guard let value = value(of: buffer.region.slice(0, count)),
        buffer.region.slice(count, buffer.count - count).isZero
      else { return nil }
      values.append(value)
    }
    return values
  }
}

/// A ``ModelDisk`` that is copied, and what was asked of it.
package final class ModelSource: BackupSource {
  package let disk: ModelDisk
  package let wanted: Bitmap?
  private let reads = Locked<[UInt64]>([])
  private let releases = Locked<[Range<UInt64>]>([])

  package init(_ disk: ModelDisk, wanted: [Int]? = nil) {
    self.disk = disk
    self.wanted = wanted.map { clusters in
      var bits = Bitmap(count: disk.clusters.count)
      for cluster in clusters { bits[cluster] = true }
      return bits
    }
  }

  package var geometry: Geometry { disk.geometry }
  /// The clusters that were read, in no order; more than once if they were.
  package var readClusters: [UInt64] { reads.withLock { $0 } }
  package var released: [Range<UInt64>] { releases.withLock { $0 } }

  package func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    let isAbsent = disk.clusters[Int(cluster)] == nil
    let run = disk.clusters[Int(cluster)...].prefix(Int(limit)).prefix { ($0 == nil) == isAbsent }
    return (UInt64(run.count), isAbsent)
  }

  package func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    let bytes = Int(geometry.clusterBytes)
    region.zero()
    for index in 0..<region.count / bytes {
      let number = cluster + UInt64(index)
      reads.withLock { $0.append(number) }
      let count = min(UInt64(bytes), geometry.sizeBytes - number * UInt64(bytes))
      ModelDisk.fill(
        region.slice(index * bytes, Int(count)), with: disk.clusters[Int(number)] ?? 0)
    }
  }

  package func release(_ clusters: Range<UInt64>) { releases.withLock { $0.append(clusters) } }
}
