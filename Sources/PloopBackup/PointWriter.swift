internal import PloopFormat
package import PloopIO

/// A point of a chain that is being written.
package final class PointWriter: BackupSink {
  package let manifest: PointManifest
  private let image: ImageWriter
  private let below: Bitmap?
  private let chain: BackupChain

  init(
    _ manifest: PointManifest, _ image: ImageWriter, below: Bitmap?, chain: BackupChain
  ) {
    self.manifest = manifest
    self.image = image
    self.below = below
    self.chain = chain
  }

  package var cursor: UInt64 { image.cursor }
  package var totals: StepJournal.Totals { image.totals }

  /// A zero cluster is left out where no older point has the cluster.
  package func zeroesNeeded(in range: Range<UInt64>) -> [Range<UInt64>] {
    below?.runs(in: range) ?? []
  }

  package func store(_ region: ByteRegion, at cluster: UInt64) throws(BackupError) {
    try image.store(region, at: cluster)
  }

  package func storeZeroes(_ clusters: Range<UInt64>) throws(BackupError) {
    try image.storeZeroes(clusters)
  }

  package func commit(
    cursor: UInt64, _ totals: StepJournal.Totals
  ) throws(BackupError) {
    try image.commit(cursor: cursor, totals)
  }

  package func finish() throws(BackupError) -> PointManifest.Result? {
    guard image.cursor == image.geometry.clusterCount else {
      throw BackupError(.mismatch, "\(manifest.id): not everything has been copied")
    }
    try image.close()
    let whole = try chain.records.completed(
      manifest, clusterBytes: image.geometry.clusterBytes, storedClusters: image.entryCount,
      image.totals)
    try chain.publish(whole)
    image.letGo()
    return whole.result
  }

  package func letGo() { image.letGo() }
}

extension Bitmap {
  /// Runs of true bits within a range, in order.
  func runs(in range: Range<UInt64>) -> [Range<UInt64>] {
    var runs: [Range<UInt64>] = []
    var place = Int(range.lowerBound)
    while let start = firstSet(from: place), start < range.upperBound {
      let end = min(firstClear(from: start) ?? count, Int(range.upperBound))
      runs.append(UInt64(start)..<UInt64(end))
      place = end
    }
    return runs
  }
}
