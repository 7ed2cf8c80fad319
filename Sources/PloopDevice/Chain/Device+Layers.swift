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
    while true {
      let chain = self.chain
      var clusters = Bitmap(count: Int(chain.geometry.clusterCount))
      var next: UInt64? = 0
      while let start = next, start < chain.geometry.clusterCount {
        next = try note(&clusters, from: start, in: chain, above: level)
      }
      if next != nil { return clusters }
    }
  }

  /// Clusters of one step: nobody who closes the gate waits for a whole index to be read.
  private static let stepClusters: UInt64 = 64 << 10

  /// - Returns: the first cluster that was not looked at; nil where the disk has another chain by now.
  private func note(
    _ clusters: inout Bitmap, from start: UInt64, in chain: DeltaChain, above level: Int
  ) throws(DeviceError) -> UInt64? {
    let pass = try admitted()
    defer { gate.leave(pass) }
    guard self.chain === chain else { return nil }
    let end = min(chain.geometry.clusterCount, start + Device.stepClusters)
    var places = map.walk()
    var cluster = start
    while cluster < end {
      let run = try places.run(from: cluster, limit: end - cluster)
      if let place = run.place, let owner = chain.level(of: place.delta), owner > level {
        for index in cluster..<cluster + run.count { clusters[Int(index)] = true }
      }
      cluster += run.count
    }
    return end
  }
}
