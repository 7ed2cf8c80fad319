internal import PloopFormat

// Where the disk's readers find what a merge into a lower delta has moved. All of it is durable by then.

extension MergeReceiver {
  /// Has readers find what was copied in its new place; the top's was found from the start.
  ///
  /// - Parameter isWhole: whether no step has found anything more: what the receiver lacks then is
  ///   all zero, with nothing beneath.
  func repoint(from source: Delta, isWhole: Bool) throws(DeviceError) {
    guard let own else { return }
    try own.condition.requireWritable()
    // What an older receiver has may not be what was merged, until all of it was.
    guard isWhole || !own.isOlder else { return }
    forEach(in: own.merged) { cluster in
      guard device.map[cluster]?.delta == source.number else { return }
      let place = own.index[cluster]
      if place != nil || isWhole { device.map[cluster] = place }
    }
  }

  /// The opposite: the merged delta stays, and with it what it holds.
  func pointBack(to source: Delta) {
    guard let own, own.isOlder else { return }
    forEach(in: own.merged) { cluster in
      // Nobody unmaps what the merged delta has, so nothing but a whole merge can have dropped it.
      let owner = device.map[cluster]?.delta
      guard owner == nil || owner == own.original.number else { return }
      device.map[cluster] = own.merged[cluster]
    }
  }

  /// Has readers find clusters of the receiver that were moved within its file.
  func repointMoved() throws(DeviceError) {
    guard let own else { return }
    try own.condition.requireWritable()
    forEach(in: own.index) { cluster in
      guard device.map[cluster]?.delta == own.original.number else { return }
      device.map[cluster] = own.index[cluster]
    }
  }

  /// Runs `body` for each cluster of an index, with the cluster's lock.
  private func forEach(in index: ClusterMap, _ body: (UInt64) -> Void) {
    let count = min(index.geometry.clusterCount, device.geometry.clusterCount)
    var cluster: UInt64 = 0
    while cluster < count {
      let run = index.run(from: cluster, limit: count - cluster)
      if run.place != nil {
        for member in cluster..<(cluster + run.count) {
          device.locks.lock(member)
          body(member)
          device.locks.unlock(member)
        }
      }
      cluster += run.count
    }
  }
}
