package import PloopFormat
package import PloopIO

/// Any export as a disk to be copied. Nobody may write it meanwhile.
package final class ExportSource: BackupSource {
  package let geometry: Geometry
  package var wanted: Bitmap? { nil }
  private let export: any BlockExport
  private let map: ExportMap

  /// - Parameter clusterShift: by how much is copied at once, at least.
  /// - Throws: `.mismatch` when the export is no disk that an image could hold.
  package init(_ export: any BlockExport, clusterShift: Int = 20) throws(BackupError) {
    let size = export.facts.sizeBytes
    let limit = Geometry.sizeLimit(version: .v2, clusterShift: clusterShift)
    guard size > 0, size <= limit else {
      throw BackupError(.mismatch, "\(export.name) has \(size) bytes, and a disk has 1 to \(limit)")
    }
    guard export.facts.blockBytes <= 1 << UInt64(clusterShift) else {
      throw BackupError(
        .mismatch, "\(export.name) takes no request under \(export.facts.blockBytes) bytes")
    }
    // A last sector that is no whole one ends with zeroes.
    let sectors = (size - 1) / Geometry.sectorBytes + 1
    geometry = Geometry(
      version: .v2, clusterShift: clusterShift, sizeBytes: sectors * Geometry.sectorBytes)
    self.export = export
    map = ExportMap(export, geometry)
  }

  /// An export of an NBD server.
  ///
  /// - Throws: `.target` when the server cannot be reached; `.mismatch` when it may not be.
  package convenience init(
    nbd uri: String, _ options: NBDOptions = NBDOptions(), clusterShift: Int = 20
  ) throws(BackupError) {
    try self.init(try NBDConnection(uri, options), clusterShift: clusterShift)
  }

  package func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    try map.content(from: cluster, limit: limit)
  }

  package func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    try export.readOrZero(into: region, at: cluster << UInt64(geometry.clusterShift))
  }
}

/// Where an export says that it is zero. It is asked in ascending order, by one thread.
final class ExportMap: Sendable {
  /// How far it is asked at once; a server may say less.
  private static let rangeBytes: UInt64 = 1 << 30

  private struct Run {
    var range: Range<UInt64>
    var isZero: Bool
  }

  private let export: any BlockExport
  private let geometry: Geometry
  /// What the export has said of a part of it: runs behind each other, neighbours unlike.
  private let runs = Locked<[Run]>([])

  init(_ export: any BlockExport, _ geometry: Geometry) {
    self.export = export
    self.geometry = geometry
  }

  /// As ``BackupSource/content(from:limit:)``.
  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    guard export.facts.tellsZeroes else { return (limit, false) }
    let shift = UInt64(geometry.clusterShift)
    let start = cluster << shift
    // Behind the export's end nothing is.
    guard start < export.facts.sizeBytes else { return (limit, true) }
    let run = try run(at: start)
    let isLast = run.range.upperBound >= export.facts.sizeBytes
    let whole =
      isLast ? geometry.clusterCount - cluster : (run.range.upperBound - start) >> shift
    if run.isZero, whole > 0 { return (min(limit, whole), true) }
    // A cluster of which a part is data is data.
    return (min(limit, isLast ? whole : (run.range.upperBound - start - 1) >> shift + 1), false)
  }

  private func run(at offset: UInt64) throws(BackupError) -> Run {
    if let known = runs.withLock({ ExportMap.run(at: offset, in: $0) }) { return known }
    let size = export.facts.sizeBytes
    let end = offset + min(ExportMap.rangeBytes, size - offset)
    var found: [Run] = []
    var next = offset
    for extent in try export.extents(in: offset..<end) where next < size {
      let end = next + min(extent.length, size - next)
      guard end > next else { continue }
      if let last = found.last, last.isZero == extent.isZero {
        found[found.count - 1].range = last.range.lowerBound..<end
      } else {
        found.append(Run(range: next..<end, isZero: extent.isZero))
      }
      next = end
    }
    let runs = found
    self.runs.withLock { $0 = runs }
    // Where it says nothing it has data.
    return runs.first ?? Run(range: offset..<end, isZero: false)
  }

  private static func run(at offset: UInt64, in runs: [Run]) -> Run? {
    var (low, high) = (0, runs.count)
    while low < high {
      let middle = (low + high) / 2
      if runs[middle].range.upperBound <= offset { low = middle + 1 } else { high = middle }
    }
    guard low < runs.count, runs[low].range.contains(offset) else { return nil }
    return runs[low]
  }
}
