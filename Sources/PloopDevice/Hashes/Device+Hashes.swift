internal import PloopFormat
internal import PloopIO

// Whoever copies what a disk holds, and is believed afterwards, asks first.

extension Device {
  /// Holds what lower deltas have of a range against their hashes, where they have any. Guests' own reads do
  /// not ask: they get what is there.
  ///
  /// - Throws: `.rotten` for a cluster that is not what it was when its delta was hashed; `.io`.
  package func requireSound(offset: UInt64, length: UInt64) throws(DeviceError) {
    let pass = try admitted()
    defer { gate.leave(pass) }
    let chain = self.chain
    var buffer: AlignedBuffer?
    var cursors: [Int: DeltaHashes.Cursor] = [:]
    for piece in ClusterPieces(chain.geometry, offset: offset, length: length) {
      guard let place = try map.place(of: piece.cluster), place.delta != chain.writing?.number,
        let hashes = try hashes(of: try chain.delta(place.delta), chain)
      else { continue }
      let space = buffer ?? AlignedBuffer(count: Int(min(clusterBytes, Device.copyBytes)))
      buffer = space
      let content = MergeContent(
        file: try chain.delta(place.delta).file, offset: place.physical << clusterShift,
        count: clusterBytes)
      var cursor = cursors[place.delta] ?? DeltaHashes.Cursor()
      try hashes.require(piece.cluster, content, space, &cursor)
      cursors[place.delta] = cursor
    }
  }

  /// Opened once for each delta, until ``forgetHashes()``.
  func hashes(
    of delta: Delta, _ chain: DeltaChain
  ) throws(DeviceError) -> DeltaHashes? {
    try knownHashes.withLock { known throws(DeviceError) in
      if let found = known[delta.number] { return found }
      let found = try DeltaHashes.of(delta, like: chain.geometry)
      known[delta.number] = .some(found)
      return found
    }
  }

  /// A number may mean another delta, or a delta may have got hashes.
  func forgetHashes() { knownHashes.withLock { $0 = [:] } }
}
