internal import PloopFormat
internal import PloopIO

extension MergeReceiver {
  private static let timeout = DeviceError(
    .timeout, "requests in flight did not end in time, or clients did not take their replies")

  /// Waits until nobody reads a cluster that is free in a lower delta: it was freed when the delta was the top, or is
  /// in the shadow of a newer one, and a client may hold a page of it (docs/locking.md, "Lent pages"); or it was moved
  /// by a change that failed before it had told the readers.
  ///
  /// - Throws: `.timeout`, and as ``repointMoved()``.
  func awaitHolders(until deadline: Deadline) throws(DeviceError) {
    guard own != nil else { return }
    try repointMoved()
    guard device.gate.awaitHolders(until: deadline) else { throw MergeReceiver.timeout }
  }

  /// Makes a lower delta one of a larger disk: as large as that which is merged into it.
  ///
  /// The order (docs/crash-safety.md, "A lower delta grows"): clusters that lie where the larger index
  /// will be are copied away, a round makes copies and entries durable, readers are sent there and
  /// those of the old places have left; all of the new index that no entry has is zeroed, durably; one
  /// sector of header makes it count.
  ///
  /// - Parameter deadline: by when requests in flight have to end.
  /// - Throws: with the delta as it was, but for clusters that lie elsewhere.
  func grow(until deadline: Deadline) throws(DeviceError) {
    guard let own else { return }
    let (old, new) = (own.layout.withLock { $0 }, own.index.geometry)
    guard old != new else { return }
    let growth = IndexGrowth(file: writing.file, old: old, new: new)
    try moveAway(own, behind: new.headerClusters)
    try writing.index.flush()
    try requireDurable()
    // Also where nothing lies there any more: whoever has moved it may have failed behind that.
    try awaitHolders(until: deadline)
    try growth.zero()
    try converting { () throws(IOError) in try writing.file.sync() }
    try growth.commit()
    own.layout.withLock { $0 = new }
  }

  private func moveAway(_ own: Own, behind limit: UInt64) throws(DeviceError) {
    let geometry = own.index.geometry
    let shift = UInt64(geometry.clusterShift)
    let buffer = AlignedBuffer(count: Int(min(geometry.clusterBytes, Device.copyBytes)))
    for cluster in 0..<geometry.clusterCount {
      guard let place = own.index[cluster], place.physical < limit else { continue }
      // The old place is never given back: it is the index's.
      try device.place(cluster, writing, in: own.index) { (_, base) throws(DeviceError) in
        let content = MergeContent(
          file: writing.file, offset: place.physical << shift, count: geometry.clusterBytes)
        try content.copy(to: writing.file, at: base, buffer, sharing: device.sharing)
      }
    }
  }
}
