internal import PloopFormat
package import PloopIO

extension Device {
  /// Has a range of another file hold whole clusters, by sharing the blocks that they have in the files of this disk.
  ///
  /// - Parameter offset: in bytes, a multiple of the cluster size.
  /// - Returns: false, perhaps with a part of them there, where they have to be read: not all of them are in files, or
  ///   these cannot share, or they have hashes that what is read is held against.
  package func share(
    _ clusters: Range<UInt64>, with file: ImageFile, at offset: UInt64
  ) throws(DeviceError) -> Bool {
    guard clusterBytes >= sharing.movedBytes else { return false }
    let pass = try admitted()
    defer { gate.leave(pass) }
    let chain = self.chain
    var cluster = clusters.lowerBound
    while cluster < clusters.upperBound {
      let run = try map.run(from: cluster, limit: clusters.upperBound - cluster)
      guard let place = run.place else { return false }
      let delta = try chain.delta(place.delta)
      if place.delta != chain.writing?.number, try hashes(of: delta, chain) != nil { return false }
      let content = MergeContent(
        file: delta.file, offset: place.physical << clusterShift, count: run.count << clusterShift)
      let start = offset + (cluster - clusters.lowerBound) << clusterShift
      guard try content.share(with: file, at: start) else { return false }
      cluster += run.count
    }
    return true
  }
}
