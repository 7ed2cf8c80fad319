package import PloopFormat
package import PloopIO

extension Device {
  /// Closes the disk: requests drain, everything is flushed, the file is cut to what is referenced,
  /// and the in-use mark is cleared, durably.
  ///
  /// - Throws: `.timeout`, with everything as it was, when requests do not end in time. Any other
  ///   error leaves the disk closed and its image marked as in use, to be repaired at the next
  ///   attach; so does a disk that was degraded before, without an error.
  package func detach(until deadline: Deadline) throws(DeviceError) {
    try beginClosing(until: deadline)
    let isUnchecked = condition.giveUpCheck()
    checks.remove(self)
    let chain = self.chain
    defer {
      gate.shutForGood()
      // Whoever still punches freed clusters does so before another may open the image.
      chain.writing?.allocator.reap()
      chain.deltas.forEach { ImageLock.release($0.file) }
      _ = descriptorLocks.withLock { locks in
        defer { locks = [] }
        return locks
      }
    }
    guard let writing = chain.writing, failure == nil else { return }
    do {
      // Nobody has written anything, and where its file ends nobody knows better than before.
      guard !isUnchecked else { return try closeUnchanged(writing.file) }
      try writing.index.flush()
      // Nobody is inside: every freed cluster's readers have left.
      writing.allocator.reap()
      try close(writing, with: bitmapsInImage(writing))
      try closeUnclosed(chain)
      closeCheckpoints()
    } catch {
      condition.degrade("closing failed: \(error)")
      throw error
    }
  }

  /// Closes the disk without writing anything: it may be somebody else's by now. Its image stays marked as in use.
  ///
  /// - Throws: `.timeout` when requests do not end in time; nothing is written any more then, either.
  package func abandon(until deadline: Deadline) throws(DeviceError) {
    condition.degrade("the disk was given up: it may be another node's")
    try detach(until: deadline)
  }

  /// Closes what snapshots have made lower deltas, as far as that is left to do; what is being done is waited for.
  private func closeUnclosed(_ chain: DeltaChain) throws(DeviceError) {
    try freezing.withLock { _ throws(DeviceError) in
      for writing in unclosed.withLock({ $0 }) where chain.has(writing) { try close(writing) }
    }
  }

  /// Clears the mark of an image of which nothing has been changed.
  private func closeUnchanged(_ file: ImageFile) throws(DeviceError) {
    var header = try Device.header(of: file)
    header.inUse = Header.InUse.closed
    try Device.write(header, to: file)
    closeCheckpoints()
  }

  /// Closes an image that is written no more, and whose content is durable.
  ///
  /// - Parameter bitmaps: what is to be found in it as a format extension, if anything.
  func close(_ writing: Writing, with bitmaps: ImageBitmaps? = nil) throws(DeviceError) {
    let needed = writing.allocator.neededBytes
    let file = writing.file
    try converting { () throws(IOError) in
      if try file.size() != needed { try file.truncate(to: needed) }
      try bitmaps?.write(to: file, at: needed)
      // Before the mark: a closed image has its whole length.
      try file.sync()
    }
    var header = try Device.header(of: file)
    header.inUse = bitmaps == nil ? Header.InUse.closed : Header.InUse.closedWithExtension
    header.extensionSector = bitmaps?.sector(at: needed) ?? 0
    header.flags =
      writing.allocator.dataClusters == 0
      ? header.flags | Header.Flags.empty : header.flags & ~Header.Flags.empty
    try Device.write(header, to: file)
  }

  /// The geometry of an image as its header has it; a raw one is as large as its file, and else like
  /// another.
  package static func geometry(
    of file: ImageFile, isRaw: Bool, like other: Geometry
  ) throws(DeviceError) -> Geometry {
    let bytes = try converting { () throws(IOError) in try file.size() }
    guard !isRaw else {
      return Geometry(version: other.version, clusterShift: other.clusterShift, sizeBytes: bytes)
    }
    let header = try header(of: file)
    do { return try header.geometry(fileBytes: bytes) } catch {
      throw DeviceError(error, level: 0, path: file.path)
    }
  }

  static func header(of file: ImageFile) throws(DeviceError) -> Header {
    let buffer = AlignedBuffer(count: Header.byteCount)
    try converting { () throws(IOError) in try file.readOrZero(into: buffer.region, at: 0) }
    do { return try Header(parsing: buffer.region.bytes) } catch {
      throw DeviceError(error, level: 0, path: file.path)
    }
  }
}
