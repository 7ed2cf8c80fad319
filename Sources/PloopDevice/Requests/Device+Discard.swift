internal import PloopFormat
internal import PloopIO

extension Device {
  /// Gives space back. Whole clusters read as zero afterwards; of partly covered ones, only what
  /// the top holds is given back, and only within the range.
  ///
  /// A cluster is unmapped only where no lower delta's own index maps it: elsewhere an old content
  /// would come back, so it is zeroed in place.
  package func discard(
    offset: UInt64, length: UInt64, durable: Bool
  ) throws(DeviceError) {
    try change(.trim, offset: offset, length: length, durable: durable) {
      (piece, turn) throws(DeviceError) in
      if piece.isWhole {
        try clear(piece, &turn, keepAllocated: false)
      } else {
        try punchWithin(piece, turn.writing)
      }
    }
  }

  /// Makes the range read as zero.
  ///
  /// - Parameters:
  ///   - keepAllocated: every cluster of the range is allocated afterwards, and stays so.
  ///   - onlyIfFast: refused with `.slow`, before anything is changed, where bytes would have to be
  ///     copied or written one by one.
  package func writeZeroes(
    offset: UInt64, length: UInt64, keepAllocated: Bool, onlyIfFast: Bool, durable: Bool
  ) throws(DeviceError) {
    if onlyIfFast { try requireFastZero(offset: offset, length: length) }
    try change(.zero, offset: offset, length: length, durable: durable) {
      (piece, turn) throws(DeviceError) in
      if piece.isWhole {
        try clear(piece, &turn, keepAllocated: keepAllocated)
      } else if try isNeeded(piece.cluster, keepAllocated) {
        try putZeroes(piece, turn.writing, keepSpace: keepAllocated)
      }
    }
  }

  /// What ``writeZeroes(offset:length:keepAllocated:onlyIfFast:durable:)`` looks at first, for whoever makes a long
  /// range zero a part at a time and is not to find out in the middle.
  ///
  /// - Throws: `.slow` where bytes would have to be copied or written one by one.
  package func requireFastZero(offset: UInt64, length: UInt64) throws(DeviceError) {
    // Inside: what is read of an index out there could belong to a chain that is being replaced.
    let pass = try admitted()
    defer { gate.leave(pass) }
    let chain = self.chain
    guard let writing = chain.writing else { return }
    guard writing.canPunch else {
      throw DeviceError(.slow, "the file system cannot punch holes")
    }
    for piece in ClusterPieces.ends(chain.geometry, offset: offset, length: length)
    where !piece.isWhole {
      guard let place = try map.place(of: piece.cluster), place.delta != writing.number else {
        continue
      }
      throw DeviceError(.slow, "a part of a cluster in a lower delta would have to be copied")
    }
  }

  /// Whether a cluster has anything to be made zero, or is to be allocated.
  private func isNeeded(
    _ cluster: UInt64, _ keepAllocated: Bool
  ) throws(DeviceError) -> Bool {
    if keepAllocated { return true }
    return try map.place(of: cluster) != nil
  }

  /// Makes a whole cluster read as zero.
  private func clear(
    _ piece: ClusterPiece, _ turn: inout Turn, keepAllocated: Bool
  ) throws(DeviceError) {
    let writing = turn.writing
    guard try isNeeded(piece.cluster, keepAllocated) else { return }
    locks.lock(piece.cluster)
    defer { locks.unlock(piece.cluster) }
    // What is looked up is what is replaced.
    let page = Geometry.position(of: piece.cluster).page
    try map.pin(page)
    defer { map.unpin(page) }
    let owner = try map.place(of: piece.cluster)
    guard let owner, owner.delta == writing.number else {
      // In a lower delta, or nowhere and to be allocated: a cluster of the top that is all zero.
      if owner == nil, !keepAllocated { return }
      return try place(piece.cluster, writing, in: map) { (allocation, base) throws(DeviceError) in
        guard !allocation.isZero || keepAllocated else { return }
        try zero(
          writing, offset: base, length: clusterBytes, keepSpace: keepAllocated)
      }
    }
    let ownedBelow = try turn.owners.own(piece.cluster)
    guard keepAllocated || ownedBelow else {
      return try forget(piece.cluster, at: owner.physical, writing)
    }
    try zero(
      writing, offset: owner.physical << clusterShift,
      length: clusterBytes, keepSpace: keepAllocated)
    writing.index.noteWritten()
  }

  /// Takes a cluster out of the top, which has it there. The cluster's lock is held, or nobody writes to it.
  func forget(_ cluster: UInt64, at physical: UInt64, _ writing: Writing) throws(DeviceError) {
    let page = Geometry.position(of: cluster).page
    try map.pinning(page) {
      map.set(nil, for: cluster)
      writing.index.markDirty(page)
      writing.allocator.unmapped(physical)
      // A round that began in between has taken the page but not the cluster: ask for another.
      writing.index.noteWritten()
    }
  }

  /// Zeroes a part of a cluster; where it is in the top, its space is kept or given back as asked.
  private func putZeroes(
    _ piece: ClusterPiece, _ writing: Writing, keepSpace: Bool
  ) throws(DeviceError) {
    if keepSpace, let owner = try map.place(of: piece.cluster), owner.delta == writing.number {
      try zero(
        writing, offset: owner.physical << clusterShift + piece.offset,
        length: piece.length, keepSpace: true)
      return writing.index.noteWritten()
    }
    try put(.zeroes, piece, writing)
  }

  /// Punches the whole pages of a piece out of a cluster of the top; a hint, so nothing else.
  private func punchWithin(_ piece: ClusterPiece, _ writing: Writing) throws(DeviceError) {
    guard writing.canPunch, let owner = try map.place(of: piece.cluster),
      owner.delta == writing.number
    else {
      return
    }
    let page = UInt64(Geometry.pageBytes)
    let first = (piece.offset + page - 1) / page * page
    let end = (piece.offset + piece.length) / page * page
    guard first < end else { return }
    try zero(
      writing, offset: owner.physical << clusterShift + first,
      length: end - first, keepSpace: false)
    writing.index.noteWritten()
  }
}
