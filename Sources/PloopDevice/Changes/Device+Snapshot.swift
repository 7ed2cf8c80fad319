internal import PloopFormat
package import PloopIO

extension Device {
  /// Freezes the state so far below a new, empty top, while requests go on.
  ///
  /// The order (docs/crash-safety.md, "Snapshot"): the gate is closed; the descriptor is renamed, what the
  /// old top has not written yet is taken, the chain is replaced; the gate is opened. Then the renaming
  /// and what was taken are made durable; until they are, no flush of the disk ends, and nothing that
  /// the new top maps is written. Only then may the old top be closed, as a lower delta
  /// (``closeFrozen()``).
  ///
  /// - Parameters:
  ///   - top: the new top; it stays the caller's if this throws.
  ///   - file: the disk's descriptor, whose lock the caller holds; what it is to be is prepared.
  ///   - checkpoint: begins at the same instant.
  ///   - helpers: do at the same time what can be.
  ///   - deadline: by when requests in flight have to end.
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: with the chain as it was; `.timeout` when requests did not end in time. If it cannot
  ///   be made durable, the disk takes no more writes (``failure``).
  package func snapshot(
    onto top: NewTop, descriptor file: DescriptorFile, beginning checkpoint: NewCheckpoint? = nil,
    using helpers: Helpers, until deadline: Deadline
  ) throws(DeviceError) -> UInt64 {
    try requireChecked(until: deadline)
    return try checkpointing.withLock { _ throws(DeviceError) in
      let move = try CheckpointMove(of: self, to: top.source, beginning: checkpoint)
      let pause: UInt64
      do throws(DeviceError) {
        pause = try freeze(under: top, file, move, using: helpers, until: deadline)
      } catch {
        // Where it is unknown which top a crash leaves, either has its file.
        if failure == nil { move?.abandon() }
        throw error
      }
      move?.finish()
      return pause
    }
  }

  /// - Returns: when it is durable, and so nobody needs the old top's checkpoints any more.
  private func freeze(
    under top: NewTop, _ file: DescriptorFile, _ move: CheckpointMove?, using helpers: Helpers,
    until deadline: Deadline
  ) throws(DeviceError) -> UInt64 {
    guard let old = chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    try condition.requireWritable()
    guard chain.deltas.count < ChainOpener.levelLimit else {
      throw DeviceError(.tooManyDeltas, "there are \(chain.deltas.count) deltas; that is the limit")
    }
    let canPunch = Device.canPunch(top.source.file, at: geometry.headerBytes)
    var moment: SideWork<Void, DeviceError>?
    let pause = try change(until: deadline) { (chain) throws(DeviceError) in
      try file.publish()
      move?.begin()
      let last = old.index.beginLast()
      let durable = helpers.begin { [self] () throws(DeviceError) in
        try makeDurable(file, last, of: old.index, using: helpers, until: deadline)
      }
      moment = durable
      unclosed.withLock { $0.append(old) }
      return grown(chain, by: top.source, above: durable, canPunch: canPunch)
    }
    try moment?.result()
    return pause
  }

  /// Makes the renaming of the descriptor durable, and what the old top has taken until then. Neither
  /// waits for the other: whichever a power failure leaves undone, the new top is still empty on the
  /// disk, and both chains read the same.
  private func makeDurable(
    _ file: DescriptorFile, _ last: IndexWriter.Round, of index: IndexWriter,
    using helpers: Helpers, until deadline: Deadline
  ) throws(DeviceError) {
    let folder = helpers.begin { [self] () throws(DeviceError) in try syncFolder(of: file) }
    defer { folder.end() }
    try index.end(last, until: deadline)
    try folder.result()
  }

  /// Makes durable what was written so far, so that little is left to do while requests wait.
  func flushAhead() throws(DeviceError) { try chain.writing?.index.flush() }

  /// The chain with another delta above its top.
  private func grown(
    _ chain: DeltaChain, by source: DeltaSource, above below: SideWork<Void, DeviceError>,
    canPunch: Bool
  ) -> DeltaChain {
    var deltas = chain.deltas
    let (old, geometry) = (chain.top, chain.geometry)
    deltas[deltas.count - 1] = Delta(
      number: old.number, source: old.source, layout: old.layout,
      mappedClusters: chain.writing?.allocator.dataClusters ?? old.mappedClusters)
    let top = Delta(
      number: chain.freeNumber, source: source, layout: .ploop(geometry), mappedClusters: 0)
    deltas.append(top)
    var used = Bitmap(count: Int(geometry.headerClusters))
    for cluster in 0..<used.count { used[cluster] = true }
    let writing = Writing(
      top, geometry: geometry, used: used, map: map, gate: gate, condition: condition,
      canPunch: canPunch, above: below)
    return DeltaChain(deltas, geometry: geometry, writing: writing)
  }

  /// Makes a prepared descriptor the one that counts. The gate is closed.
  ///
  /// If the rename cannot be made durable, nobody knows which of the two a crash would leave. Both
  /// name chains with the same content, and it stays the same: the disk takes no more writes.
  func publish(_ file: DescriptorFile) throws(DeviceError) {
    try file.publish()
    try syncFolder(of: file)
  }

  private func syncFolder(of file: DescriptorFile) throws(DeviceError) {
    do throws(IOError) { try file.folder.sync() } catch {
      condition.degrade("\(error); it is unknown which chain \(file.path) names after a crash")
      throw DeviceError(error)
    }
  }

  /// Closes what snapshots have made lower deltas. Requests go on.
  func closeFrozen() {
    freezing.withLock { _ in
      // A detach closes them itself.
      guard !suspension.isClosing else { return }
      let left = unclosed.withLock { unclosed in
        defer { unclosed = [] }
        return unclosed
      }
      for writing in left where chain.has(writing) { freeze(writing) }
    }
  }

  /// A delta has gone, or somebody else writes and closes it from now on.
  func forgetUnclosed(_ delta: Delta) {
    let identity = delta.file.identity
    unclosed.withLock { $0.removeAll { $0.file.identity == identity } }
  }

  /// Closes what has been a top, as the lower delta that it is now: cut to what is referenced, its
  /// mark cleared. If that fails it stays marked: a detach tries again, and so does the repair of the
  /// next attach.
  ///
  /// - Parameter isOurs: whether its index is as the disk itself has made it, or found it and told readers.
  func freeze(_ writing: Writing, isOurs: Bool = true) {
    writing.allocator.reapAll()
    do throws(DeviceError) { try close(writing) } catch {
      unclosed.withLock { $0.append(writing) }
    }
    // Before anybody else may write it.
    if isOurs, let delta = chain.delta(of: writing), case .ploop(let geometry) = delta.layout {
      delta.had.read(writing.file, geometry)
    }
    writing.file.expectAnyAccess()
    // Others may read it from now on.
    ImageLock.release(writing.file)
    try? ImageLock.acquire(writing.file, for: .read)
  }
}
