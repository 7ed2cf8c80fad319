internal import PloopFormat
internal import PloopIO

/// Where the content of a disk lies, range by range, in the words of `qemu-img map`.
package struct ImageMap: Sendable {
  package enum Kind: Sendable {
    /// Mapped, and the file has written bytes there.
    case data
    /// Mapped, but the file has only a hole or reserved space there; reads as zeroes.
    case zero
    /// In no image of the chain; reads as zeroes.
    case hole
  }

  package struct Run: Equatable, Sendable {
    package var start: UInt64
    package var length: UInt64
    package var kind: Kind
    /// Nil for ``Kind/hole``.
    package var place: Position?
  }

  /// A place in one of the files; level 0 is the oldest.
  package struct Position: Equatable, Sendable {
    package var level: Int
    package var offset: UInt64
  }

  private let sources: [DeltaSource]
  private let map: ClusterMap

  /// Reads the indexes, with QEMU's locks held as long as the files are open.
  ///
  /// - Parameter sources: oldest first, opened for reading. They may be unclean, not corrupt.
  package init(_ sources: [DeltaSource]) throws(DeviceError) {
    let opener = ChainOpener.forLooking(at: sources)
    try opener.checkSources()
    try ChainOpener.lockForReading(sources)
    var (geometry, levels) = try opener.readHeaders()
    map = ClusterMap(geometry)
    try opener.readIndexes(&levels, into: map)
    self.sources = sources
  }

  /// Where the clusters from `cluster` on lie, of those that lie behind each other, or in no image.
  ///
  /// - Parameter limit: most clusters, at least 1; not beyond the disk.
  package func run(
    from cluster: UInt64, limit: UInt64
  ) -> (position: Position?, count: UInt64) {
    let found = map.run(from: cluster, limit: limit)
    let position = found.place.map { place in
      Position(level: place.delta, offset: place.physical << UInt64(map.geometry.clusterShift))
    }
    return (position, found.count)
  }

  /// Hands out all runs in order; together they are the disk. Each is as long as it can be.
  package func forEachRun<Failure>(_ body: (Run) throws(Failure) -> Void) throws(Failure) {
    let geometry = map.geometry
    var cluster: UInt64 = 0
    while cluster < geometry.clusterCount {
      let found = map.run(from: cluster, limit: geometry.clusterCount - cluster)
      let start = cluster << UInt64(geometry.clusterShift)
      let length = min(
        found.count << UInt64(geometry.clusterShift), geometry.sizeBytes - start)
      if let place = found.place {
        let position = Position(
          level: place.delta, offset: place.physical << UInt64(geometry.clusterShift))
        try split(start: start, length: length, at: position, body)
      } else {
        try body(Run(start: start, length: length, kind: .hole, place: nil))
      }
      cluster += found.count
    }
  }

  /// Hands out a mapped run in parts, by what the file has there.
  private func split<Failure>(
    start: UInt64, length: UInt64, at position: Position, _ body: (Run) throws(Failure) -> Void
  ) throws(Failure) {
    let file = sources[position.level].file
    let end = position.offset + length
    var offset = position.offset
    while offset < end {
      let data = min(file.nextData(from: offset) ?? end, end)
      let kind: Kind = data > offset ? .zero : .data
      let next = kind == .zero ? data : min(file.nextHole(from: offset) ?? end, end)
      try body(
        Run(
          start: start + (offset - position.offset), length: next - offset, kind: kind,
          place: Position(level: position.level, offset: offset)))
      offset = next
    }
  }
}
