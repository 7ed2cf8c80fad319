internal import PloopFormat
internal import PloopIO

// The frame of every request that changes the disk: gate, recorders, clusters that move, statistics, flush.

extension Device {
  /// Makes a request that changes the disk, piece by piece.
  ///
  /// When there is no room, clusters that wait to be freed may help: the request leaves the gate,
  /// a flush round frees them, and it is made once more from its start.
  func change(
    _ operation: Statistics.Operation, offset: UInt64, length: UInt64, durable: Bool,
    _ body: (ClusterPiece, inout Turn) throws(DeviceError) -> Void
  ) throws(DeviceError) {
    let start = monotonicNanoseconds()
    var waits = RequestWaits()
    do throws(DeviceError) {
      // Outside the gate: whoever closes it may wait for the check as well.
      try condition.requireWritable()
      makeRoomInMemory()
      var writing: Writing
      do throws(DeviceError) {
        writing = try repeating(offset, length, &waits, body)
      } catch {
        guard error.lacksRoom, let full = chain.writing else { throw error }
        try waits.timing(\.flush) { () throws(DeviceError) in try full.index.flush() }
        full.allocator.reap()
        writing = try repeating(offset, length, &waits, body)
      }
      if durable {
        try waits.timing(\.flush) { () throws(DeviceError) in try writing.index.flush() }
      }
    } catch {
      counters.count(
        operation, at: offset, bytes: length, since: start, failed: true, waits: waits)
      throw error
    }
    counters.count(operation, at: offset, bytes: length, since: start, waits: waits)
  }

  /// Writes what the index has in memory only, if that is too much. Whether it can be written is told to those
  /// who ask for it.
  func makeRoomInMemory() {
    if map.isCrowding { try? chain.writing?.index.flush() }
  }

  /// What a request that changes the disk finds inside the gate.
  struct Turn {
    let chain: DeltaChain
    let writing: Writing
    /// Which clusters the deltas below the top map.
    var owners: LowerOwners
  }

  /// Makes a request, as often as it meets a cluster that is just being moved.
  private func repeating(
    _ offset: UInt64, _ length: UInt64, _ waits: inout RequestWaits,
    _ body: (ClusterPiece, inout Turn) throws(DeviceError) -> Void
  ) throws(DeviceError) -> Writing {
    while true {
      switch try pass(offset, length, &waits, body) {
      case .done(let writing): return writing
      case .moving(let cluster):
        try waits.timing(\.moving) { () throws(DeviceError) in moving.wait(for: cluster) }
      }
    }
  }

  private enum Outcome {
    /// With the top that was written.
    case done(Writing)
    /// The request has to be made again, from its start, once this cluster has its new place.
    case moving(UInt64)
  }

  private func pass(
    _ offset: UInt64, _ length: UInt64, _ waits: inout RequestWaits,
    _ body: (ClusterPiece, inout Turn) throws(DeviceError) -> Void
  ) throws(DeviceError) -> Outcome {
    let range = offset..<offset + length
    let pass = try admitted(toChange: range, &waits)
    defer { gate.leave(pass) }
    let chain = self.chain
    guard let writing = chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    try condition.requireWritable()
    // Also where it fails: some of it may have changed.
    defer { recordChange(range) }
    var turn = Turn(
      chain: chain, writing: writing,
      owners: LowerOwners(below: chain.topLevel, of: chain))
    for piece in ClusterPieces(chain.geometry, offset: offset, length: length) {
      guard !moving.contains(piece.cluster) else { return .moving(piece.cluster) }
      try body(piece, &turn)
    }
    return .done(writing)
  }
}
