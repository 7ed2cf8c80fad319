internal import PloopFormat
package import PloopIO

// Which files a state of the disk consists of, and what of it lies in which, for who has copied an older state.

extension Device {
  /// Of each file of the chain, oldest first, a digest of which file it is, how long, when it was written last, and
  /// what its header says. Whoever has written a file since, or put another one in its place, has made it another one.
  ///
  /// - Throws: `.io` when a file cannot be looked at.
  package func fileDigests() throws(DeviceError) -> [String] {
    let chain = self.chain
    var digests: [String] = []
    for delta in chain.deltas {
      digests.append(
        try HashFile.Subject(
          delta.file, isRaw: delta.isRaw, DeltaHashes.geometry(of: delta, like: chain.geometry)
        ).digest)
    }
    return digests
  }

  /// The clusters of the disk whose content lies in a file above a level: all others the state of that level has
  /// too, and reads the same.
  ///
  /// - Parameter level: 0 is the oldest delta.
  /// - Throws: `.detached`.
  package func clusters(aboveLevel level: Int) throws(DeviceError) -> Bitmap {
    let pass = try admitted()
    defer { gate.leave(pass) }
    let chain = self.chain
    let count = chain.geometry.clusterCount
    var clusters = Bitmap(count: Int(count))
    var cluster: UInt64 = 0
    var places = map.walk()
    while cluster < count {
      let run = try places.run(from: cluster, limit: count - cluster)
      if let place = run.place, let owner = chain.level(of: place.delta), owner > level {
        for index in cluster..<cluster + run.count { clusters[Int(index)] = true }
      }
      cluster += run.count
    }
    return clusters
  }
}
