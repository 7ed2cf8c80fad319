internal import PloopFormat
internal import PloopIO

extension MergeReceiver {
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
    if try moveAway(own, behind: new.headerClusters) {
      try writing.index.flush()
      try repointMoved()
      _ = try device.change(until: deadline) { chain in chain }
    }
    let file = writing.file
    try converting { () throws(IOError) in
      if try file.size() < new.headerBytes { try file.truncate(to: new.headerBytes) }
      try file.writeZeroes(
        from: (Geometry.headerSlots + old.clusterCount) * 4, to: new.headerBytes)
      try file.sync()
    }
    var header = try Device.header(of: file)
    header.resize(to: new)
    try Device.write(header, to: file)
    own.layout.withLock { $0 = new }
  }

  /// - Returns: whether anything lay there.
  private func moveAway(_ own: Own, behind limit: UInt64) throws(DeviceError) -> Bool {
    let geometry = own.index.geometry
    let shift = UInt64(geometry.clusterShift)
    let buffer = AlignedBuffer(count: Int(min(geometry.clusterBytes, Device.copyBytes)))
    var hasMoved = false
    for cluster in 0..<geometry.clusterCount {
      guard let place = own.index[cluster], place.physical < limit else { continue }
      hasMoved = true
      // The old place is never given back: it is the index's.
      try device.place(cluster, writing, in: own.index) { (_, base) throws(DeviceError) in
        let content = MergeContent(
          file: writing.file, offset: place.physical << shift, count: geometry.clusterBytes)
        try content.copy(to: writing.file, at: base, buffer)
      }
    }
    return hasMoved
  }
}
