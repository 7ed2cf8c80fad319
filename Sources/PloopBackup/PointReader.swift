internal import PloopDevice
package import PloopFormat
package import PloopIO

/// A whole point as a disk that can be copied: what a restore reads.
///
/// Nothing that is not what was stored is handed out.
package final class PointReader: BackupSource {
  package let geometry: Geometry
  package let manifest: PointManifest
  package var wanted: Bitmap? { nil }
  private let deltas: [PointDelta]
  private let map: ImageMap

  /// - Throws: as ``PointDelta/init(_:of:)`` for the point and all that it builds on.
  package convenience init(_ id: String, of chain: BackupChain) throws(BackupError) {
    let ids = try chain.ids(chain.descriptor())
    guard let place = ids.firstIndex(of: id) else {
      throw BackupError(.notFound, "\(chain.folder.path): there is no whole backup \(id)")
    }
    var deltas: [PointDelta] = []
    for id in ids[...place] { deltas.append(try PointDelta(id, of: chain)) }
    for (delta, next) in zip(deltas, deltas.dropFirst())
    where next.manifest.parent != delta.manifest.id {
      throw BackupError(
        .corrupt(clusters: []),
        "\(chain.folder.path): \(next.manifest.id) does not build on \(delta.manifest.id)")
    }
    try self.init(deltas, of: deltas[place])
  }

  /// A point that builds on nothing.
  convenience init(_ delta: PointDelta) throws(BackupError) { try self.init([delta], of: delta) }

  /// - Parameter deltas: oldest first; `newest` is the last.
  private init(_ deltas: [PointDelta], of newest: PointDelta) throws(BackupError) {
    let sources = deltas.map(\.source)
    map = try onImages { () throws(DeviceError) in try ImageMap(sources) }
    geometry = newest.geometry
    manifest = newest.manifest
    self.deltas = deltas
  }

  package func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    let run = map.run(from: cluster, limit: limit)
    return (run.count, run.position == nil)
  }

  /// - Throws: `.corrupt` when one of the clusters is not what was stored.
  package func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    let shift = UInt64(geometry.clusterShift)
    let end = cluster + UInt64(region.count) >> shift
    var next = cluster
    while next < end {
      let run = map.run(from: next, limit: end - next)
      let part = region.slice(
        Int((next - cluster) << shift), Int(run.count << shift))
      try read(part, run.position, from: next)
      next += run.count
    }
  }

  private func read(
    _ part: ByteRegion, _ position: ImageMap.Position?, from cluster: UInt64
  ) throws(BackupError) {
    guard let position else { return part.zero() }
    let delta = deltas[position.level]
    let physical = position.offset >> UInt64(geometry.clusterShift)
    var wrong = Set(try delta.read(into: part, physical: physical))
    for index in 0..<part.count >> geometry.clusterShift
    where delta.entry(at: physical + UInt64(index))
      .map({ UInt64($0.cluster) != cluster + UInt64(index) }) ?? true
    {
      wrong.insert(index)
    }
    guard wrong.isEmpty else {
      throw BackupError(
        .corrupt(clusters: wrong.map { cluster + UInt64($0) }.sorted()),
        "\(delta.source.file.path): \(wrong.count) clusters are not what was stored")
    }
  }
}
