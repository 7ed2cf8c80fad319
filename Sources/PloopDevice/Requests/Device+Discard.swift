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
      } else if map[piece.cluster] != nil || keepAllocated {
        try putZeroes(piece, turn.writing, keepSpace: keepAllocated)
      }
    }
  }

  /// What ``writeZeroes(offset:length:keepAllocated:onlyIfFast:durable:)`` looks at first, for whoever makes a long
  /// range zero a part at a time and is not to find out in the middle.
  ///
  /// - Throws: `.slow` where bytes would have to be copied or written one by one.
  package func requireFastZero(offset: UInt64, length: UInt64) throws(DeviceError) {
    let chain = self.chain
    guard let writing = chain.writing else { return }
    guard writing.canPunch else {
      throw DeviceError(.slow, "the file system cannot punch holes")
    }
    for piece in ClusterPieces.ends(chain.geometry, offset: offset, length: length)
    where !piece.isWhole {
      guard let place = map[piece.cluster], place.delta != writing.number else { continue }
      throw DeviceError(.slow, "a part of a cluster in a lower delta would have to be copied")
    }
  }

  /// Makes a whole cluster read as zero.
  private func clear(
    _ piece: ClusterPiece, _ turn: inout Turn, keepAllocated: Bool
  ) throws(DeviceError) {
    let writing = turn.writing
    guard map[piece.cluster] != nil || keepAllocated else { return }
    locks.lock(piece.cluster)
    defer { locks.unlock(piece.cluster) }
    let owner = map[piece.cluster]
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
      map[piece.cluster] = nil
      writing.index.markDirty(Geometry.position(of: piece.cluster).page)
      writing.allocator.unmapped(owner.physical)
      // A round that began in between has taken the page but not the cluster: ask for another.
      writing.index.noteWritten()
      return
    }
    try zero(
      writing, offset: owner.physical << clusterShift,
      length: clusterBytes, keepSpace: keepAllocated)
    writing.index.noteWritten()
  }

  /// Zeroes a part of a cluster; where it is in the top, its space is kept or given back as asked.
  private func putZeroes(
    _ piece: ClusterPiece, _ writing: Writing, keepSpace: Bool
  ) throws(DeviceError) {
    if keepSpace, let owner = map[piece.cluster], owner.delta == writing.number {
      try zero(
        writing, offset: owner.physical << clusterShift + piece.offset,
        length: piece.length, keepSpace: true)
      return writing.index.noteWritten()
    }
    try put(.zeroes, piece, writing)
  }

  /// Punches the whole pages of a piece out of a cluster of the top; a hint, so nothing else.
  private func punchWithin(_ piece: ClusterPiece, _ writing: Writing) throws(DeviceError) {
    guard writing.canPunch, let owner = map[piece.cluster], owner.delta == writing.number else {
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
