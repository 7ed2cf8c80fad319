internal import PloopFormat
package import PloopIO

/// What a write puts into a piece of a cluster.
enum Content {
  /// The request's bytes.
  case bytes(ByteRegion)
  case zeroes
}

extension Device {
  /// Writes where that needs neither a wait nor a copy: into clusters of the top, and into clusters
  /// that no delta maps yet.
  ///
  /// - Returns: false when the request has to be made again with ``write(_:at:durable:)``, which
  ///   writes the same bytes once more; nobody has been told that they are there.
  package func writeNow(_ region: ByteRegion, at offset: UInt64) -> Bool {
    let start = monotonicNanoseconds()
    guard let pass = gate.enterNow() else { return false }
    defer { gate.leave(pass) }
    // Inside: a change of the chain that fails with the gate closed degrades the disk before it opens.
    guard condition.isWritable else { return false }
    let range = offset..<offset + UInt64(region.count)
    let isRecorded = !recorders.use { $0.isEmpty }
    if isRecorded, recorders.current.obstacle(to: range) != nil { return false }
    let isWritten = withChain { writeNow($0, region, at: offset) }
    // A part may be there even if not all is: its client may be gone before it is made again.
    if isRecorded { recordChange(range) }
    guard isWritten else { return false }
    counters.count(.write, at: offset, bytes: UInt64(region.count), since: start)
    return true
  }

  @inline(__always)
  private func writeNow(_ chain: DeltaChain, _ region: ByteRegion, at offset: UInt64) -> Bool {
    guard let writing = chain.borrowedWriting else { return false }
    for piece in ClusterPieces(chain.geometry, offset: offset, length: UInt64(region.count)) {
      let part = region.slice(Int(piece.start), Int(piece.length))
      guard !moving.contains(piece.cluster) else { return false }
      guard writing.use({ (try? writeNow(part, piece, $0)) == true }) else { return false }
    }
    return true
  }

  private func writeNow(
    _ part: ByteRegion, _ piece: ClusterPiece, _ writing: Writing
  ) throws(DeviceError) -> Bool {
    guard let found = map.runNow(from: piece.cluster, limit: 1) else { return false }
    if let place = found.place {
      guard place.delta == writing.number else { return false }
      try write(.bytes(part), piece, at: place.physical, writing)
      return true
    }
    guard !map.isCrowding, locks.tryLock(piece.cluster) else { return false }
    defer { locks.unlock(piece.cluster) }
    let page = Geometry.position(of: piece.cluster).page
    guard map.pinNow(page) else { return false }
    defer { map.unpin(page) }
    guard try map.place(of: piece.cluster) == nil else { return false }
    try firstTouch(.bytes(part), piece, writing)
    return true
  }

  /// - Parameter durable: the bytes, and the index entries that find them, are on stable storage
  ///   when this returns (FUA).
  package func write(
    _ region: ByteRegion, at offset: UInt64, durable: Bool
  ) throws(DeviceError) {
    try change(.write, offset: offset, length: UInt64(region.count), durable: durable) {
      (piece, turn) throws(DeviceError) in
      try put(
        .bytes(region.slice(Int(piece.start), Int(piece.length))), piece, turn.writing)
    }
  }

  // MARK: One cluster

  /// Puts content into a piece of a cluster, whoever owns the cluster now.
  func put(
    _ content: Content, _ piece: ClusterPiece, _ writing: Writing
  ) throws(DeviceError) {
    if try writeInPlace(content, piece, writing) { return }
    locks.lock(piece.cluster)
    defer { locks.unlock(piece.cluster) }
    // What is looked up is what is replaced.
    let page = Geometry.position(of: piece.cluster).page
    try map.pin(page)
    defer { map.unpin(page) }
    // Somebody may have allocated it meanwhile.
    if try writeInPlace(content, piece, writing) { return }
    if let lower = try map.place(of: piece.cluster) {
      try copyOnWrite(content, piece, from: lower, writing)
    } else {
      try firstTouch(content, piece, writing)
    }
  }

  /// - Returns: false when the cluster is not in the top.
  private func writeInPlace(
    _ content: Content, _ piece: ClusterPiece, _ writing: Writing
  ) throws(DeviceError) -> Bool {
    guard let place = try map.place(of: piece.cluster), place.delta == writing.number else {
      return false
    }
    try write(content, piece, at: place.physical, writing)
    return true
  }

  private func write(
    _ content: Content, _ piece: ClusterPiece, at physical: UInt64, _ writing: Writing
  ) throws(DeviceError) {
    let offset = physical << clusterShift + piece.offset
    switch content {
    case .bytes(let bytes):
      try converting { () throws(IOError) in try writing.file.write(bytes, at: offset) }
    case .zeroes: try zero(writing, offset: offset, length: piece.length, keepSpace: false)
    }
    writing.index.noteWritten()
  }

  /// Gives a cluster that no delta maps a place in the top. The cluster's lock is held.
  private func firstTouch(
    _ content: Content, _ piece: ClusterPiece, _ writing: Writing
  ) throws(DeviceError) {
    try place(piece.cluster, writing, in: map) { (allocation, base) throws(DeviceError) in
      try begin(content, piece, in: allocation, at: base, writing)
    }
  }

  /// Writes a cluster that holds nothing beside the new content.
  private func begin(
    _ content: Content, _ piece: ClusterPiece, in allocation: ClusterAllocator.Allocation,
    at base: UInt64, _ writing: Writing
  ) throws(DeviceError) {
    // A partial last cluster is zeroed behind the disk's end as well: a grown disk would show it.
    if !allocation.isZero, piece.length < clusterBytes {
      try zero(writing, offset: base, length: clusterBytes, keepSpace: false)
    }
    switch content {
    case .bytes(let bytes):
      try converting { () throws(IOError) in
        try writing.file.write(bytes, at: base + piece.offset)
      }
    case .zeroes where !allocation.isZero:
      try zero(writing, offset: base + piece.offset, length: piece.length, keepSpace: false)
    case .zeroes: break
    }
  }

  /// Copies a cluster of a lower delta into the top with the new content merged in. The cluster's
  /// lock is held. What the new content covers is not read, nor what is a hole, nor what can be shared.
  private func copyOnWrite(
    _ content: Content, _ piece: ClusterPiece, from lower: Place, _ writing: Writing
  ) throws(DeviceError) {
    let old = MergeContent(
      file: try chain.delta(lower.delta).file, offset: lower.physical << clusterShift,
      count: clusterBytes)
    let isAnew = piece.isWhole || old.isHole
    let isShared =
      !isAnew && clusterBytes - piece.length >= sharing.keptBytes
      && writing.file.mayShareBlocks(of: old.file)
    try place(piece.cluster, writing, in: map, reserving: !isShared) {
      (allocation, base) throws(DeviceError) in
      if isAnew {
        try begin(content, piece, in: allocation, at: base, writing)
      } else if isShared, try old.share(with: writing.file, at: base) {
        try overwrite(content, piece, at: base, writing)
      } else {
        try merge(content, piece, over: old, at: base, writing)
      }
      counters.countCopy()
    }
  }

  /// Writes over a part of a cluster whose blocks are another delta's as well: the file system sees to it that
  /// that keeps them.
  private func overwrite(
    _ content: Content, _ piece: ClusterPiece, at base: UInt64, _ writing: Writing
  ) throws(DeviceError) {
    switch content {
    case .bytes(let bytes):
      try converting { () throws(IOError) in
        try writing.file.write(bytes, at: base + piece.offset)
      }
    case .zeroes:
      // With space, as a copy would have it.
      try zero(writing, offset: base + piece.offset, length: piece.length, keepSpace: true)
    }
  }

  private func merge(
    _ content: Content, _ piece: ClusterPiece, over old: MergeContent, at base: UInt64,
    _ writing: Writing
  ) throws(DeviceError) {
    let buffer = AlignedBuffer(count: Int(min(clusterBytes, Device.copyBytes)))
    for start in stride(from: 0, to: clusterBytes, by: buffer.count) {
      let covered =
        max(
          start, piece.offset)..<max(
          max(start, piece.offset), min(start + UInt64(buffer.count), piece.offset + piece.length)
        )
      if covered.count < buffer.count {
        try converting { () throws(IOError) in
          try old.file.readOrZero(into: buffer.region, at: old.offset + start)
        }
      }
      if !covered.isEmpty {
        let part = buffer.region.slice(Int(covered.lowerBound - start), covered.count)
        switch content {
        case .bytes(let bytes):
          part.copy(from: bytes.slice(Int(covered.lowerBound - piece.offset), covered.count))
        case .zeroes: part.zero()
        }
      }
      try converting { () throws(IOError) in
        try writing.file.write(buffer.region, at: base + start)
      }
    }
  }

  static let copyBytes: UInt64 = 1 << 20

  /// Allocates a cluster, has `fill` write all of it, and only then publishes it in the map.
  ///
  /// Rule 1: the entry may be followed by a reader, and copied by a flush round, from the moment it
  /// is set. If filling fails the cluster goes back, and counts as holding anything; where there was no
  /// room for all of it, what a part has taken is given back to the file system as well.
  ///
  /// - Parameters:
  ///   - index: has the entries of the delta that is written.
  ///   - reserving: as of ``ClusterAllocator/allocate(reserving:)``.
  func place(
    _ cluster: UInt64, _ writing: Writing, in index: any EntryTable, reserving: Bool = true,
    fill: (ClusterAllocator.Allocation, _ base: UInt64) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    // The page first: what was allocated and cannot be published would have to be taken back.
    try index.pinning(Geometry.position(of: cluster).page) { () throws(DeviceError) in
      try placePinned(cluster, writing, in: index, reserving, fill: fill)
    }
  }

  private func placePinned(
    _ cluster: UInt64, _ writing: Writing, in index: any EntryTable, _ reserving: Bool,
    fill: (ClusterAllocator.Allocation, _ base: UInt64) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    let allocation = try writing.allocator.allocate(reserving: reserving)
    do throws(DeviceError) {
      try fill(allocation, allocation.physical << clusterShift)
    } catch {
      abandon(allocation, of: writing, after: error)
      throw error
    }
    counters.countAllocation()
    // It belongs to the file's content now, also where nothing had to be written to make it zero.
    writing.file.noteChange(
      offset: allocation.physical << clusterShift, length: clusterBytes)
    index.set(Place(delta: writing.number, physical: allocation.physical), for: cluster)
    writing.index.markDirty(Geometry.position(of: cluster).page)
  }

  /// Gives back a cluster that nobody was to find yet. What it took of a full file system goes with it:
  /// others need it.
  func abandon(
    _ allocation: ClusterAllocator.Allocation, of writing: Writing, after error: DeviceError
  ) {
    let base = allocation.physical << clusterShift
    let isEmpty =
      error.lacksRoom && writing.canPunch
      && (try? writing.file.punchHole(offset: base, length: clusterBytes)) != nil
    writing.allocator.abandon(allocation, isZero: isEmpty)
  }

  /// Makes a range of the top's file read as zero.
  ///
  /// - Parameter keepSpace: the range stays allocated on the host's disk (NO_HOLE).
  func zero(
    _ writing: Writing, offset: UInt64, length: UInt64, keepSpace: Bool
  ) throws(DeviceError) {
    let file = writing.file
    if writing.canPunch {
      do throws(IOError) {
        try file.punchHole(offset: offset, length: length)
        if keepSpace { try file.allocate(offset: offset, length: length) }
        return
      } catch  where !error.isUnsupported {
        throw DeviceError(error)
      } catch {
        // What is unsupported on the host is written out below.
      }
    }
    try converting { () throws(IOError) in
      try file.writeZeroes(from: offset, to: offset + length)
    }
  }
}
