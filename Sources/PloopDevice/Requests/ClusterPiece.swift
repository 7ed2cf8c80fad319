internal import PloopFormat

/// The part of a request that lies in one logical cluster.
struct ClusterPiece {
  let cluster: UInt64
  /// First byte within the cluster.
  let offset: UInt64
  let length: UInt64
  /// From the start of the request.
  let start: UInt64
  /// Whether it covers every byte that the disk has of this cluster.
  let isWhole: Bool
}

/// Cuts a range of the disk at cluster borders.
struct ClusterPieces: Sequence, IteratorProtocol {
  private let geometry: Geometry
  private let offset: UInt64
  private let length: UInt64
  private var done: UInt64 = 0

  init(_ geometry: Geometry, offset: UInt64, length: UInt64) {
    self.geometry = geometry
    self.offset = offset
    self.length = length
  }

  /// The first piece of a range, and the last one: all others are whole clusters.
  static func ends(_ geometry: Geometry, offset: UInt64, length: UInt64) -> [ClusterPiece] {
    var pieces = ClusterPieces(geometry, offset: offset, length: length)
    guard let first = pieces.next() else { return [] }
    guard first.length < length else { return [first] }
    let inLast = (offset + length - 1) & (geometry.clusterBytes - 1)
    pieces.done = Swift.max(first.length, length - 1 - Swift.min(inLast, length - 1))
    return [first] + (pieces.next().map { [$0] } ?? [])
  }

  mutating func next() -> ClusterPiece? {
    guard done < length else { return nil }
    let position = offset + done
    let inCluster = position & (geometry.clusterBytes - 1)
    let count = Swift.min(length - done, geometry.clusterBytes - inCluster)
    defer { done += count }
    let end = position + count
    return ClusterPiece(
      cluster: position >> UInt64(geometry.clusterShift), offset: inCluster, length: count,
      start: done,
      isWhole: inCluster == 0 && (count == geometry.clusterBytes || end == geometry.sizeBytes))
  }
}
