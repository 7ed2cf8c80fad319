internal import PloopFormat

/// Cuts a request into pieces that lie in one file behind each other, or in none.
struct Pieces {
  struct Piece {
    /// In the request's memory.
    let start: Int
    let count: Int
    let place: Place?
    /// In the file of `place`.
    let fileOffset: UInt64
  }

  private let geometry: Geometry
  private let offset: UInt64
  private let count: Int
  private var done = 0

  init(_ geometry: Geometry, offset: UInt64, count: Int) {
    self.geometry = geometry
    self.offset = offset
    self.count = count
  }

  var isDone: Bool { done == count }

  /// - Throws: what reading an index fails with.
  mutating func next(in map: PagedMap) throws(DeviceError) -> Piece? {
    guard !isDone else { return nil }
    let (cluster, limit) = rest
    return take(try map.run(from: cluster, limit: limit))
  }

  /// The same; nil also when it would have to wait, or fails.
  @inline(__always)
  mutating func nextNow(in map: PagedMap) -> Piece? {
    guard !isDone else { return nil }
    let (cluster, limit) = rest
    return map.runNow(from: cluster, limit: limit).map { take($0) }
  }

  /// The clusters that are not dealt with.
  private var rest: (first: UInt64, count: UInt64) {
    let shift = UInt64(geometry.clusterShift)
    let cluster = (offset + UInt64(done)) >> shift
    return (cluster, (offset + UInt64(count) - 1) >> shift - cluster + 1)
  }

  private mutating func take(_ run: PagedMap.Run) -> Piece {
    let position = offset + UInt64(done)
    let shift = UInt64(geometry.clusterShift)
    let inCluster = position & (geometry.clusterBytes - 1)
    let bytes = Int(min(UInt64(count - done), run.count << shift - inCluster))
    defer { done += bytes }
    return Piece(
      start: done, count: bytes, place: run.place,
      fileOffset: run.place.map { $0.physical << shift + inCluster } ?? 0)
  }
}
