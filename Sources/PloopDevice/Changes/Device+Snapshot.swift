package import PloopFormat
package import PloopIO

extension Device {
  /// Freezes the state so far below a new, empty top, while requests go on.
  ///
  /// The order (docs/crash-safety.md, "Snapshot"): the new descriptor is durable beside the old one;
  /// the old top is flushed once ahead, so that little is left to do while requests wait; the gate is
  /// closed and what is left is flushed; the descriptor is renamed, durably; the chain is replaced;
  /// the gate is opened. Only then is the old top closed, as a lower delta.
  ///
  /// - Parameters:
  ///   - top: the new top; it stays the caller's if this throws.
  ///   - file: the disk's descriptor, whose lock the caller holds.
  ///   - changed: what it is to be.
  ///   - checkpoint: begins at the same instant.
  ///   - deadline: by when requests in flight have to end.
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: with the chain as it was; `.timeout` when requests did not end in time. If it cannot
  ///   be told which descriptor is there, the disk takes no more writes (``failure``).
  package func snapshot(
    onto top: NewTop, descriptor file: DescriptorFile, becoming changed: Descriptor,
    beginning checkpoint: NewCheckpoint? = nil, until deadline: Deadline
  ) throws(DeviceError) -> UInt64 {
    try checkpointing.withLock { _ throws(DeviceError) in
      let move = try CheckpointMove(of: self, to: top.source, beginning: checkpoint)
      let pause: UInt64
      do throws(DeviceError) {
        pause = try freeze(under: top, file, becoming: changed, move, until: deadline)
      } catch {
        // Where it is unknown which top a crash leaves, either has its file.
        if failure == nil { move?.abandon() }
        throw error
      }
      move?.finish()
      return pause
    }
  }

  private func freeze(
    under top: NewTop, _ file: DescriptorFile, becoming changed: Descriptor,
    _ move: CheckpointMove?, until deadline: Deadline
  ) throws(DeviceError) -> UInt64 {
    guard let old = chain.writing else {
      throw DeviceError(.readOnly, "the disk is read-only")
    }
    try condition.requireWritable()
    guard chain.deltas.count < ChainOpener.levelLimit else {
      throw DeviceError(.tooManyDeltas, "there are \(chain.deltas.count) deltas; that is the limit")
    }
    let pause: UInt64
    do throws(DeviceError) {
      try file.prepare(with: changed)
      try old.index.flush()
      let canPunch = Device.canPunch(top.source.file, at: geometry.headerBytes)
      pause = try change(until: deadline) { (chain) throws(DeviceError) in
        try old.index.flush()
        try publish(file)
        move?.begin()
        old.index.retire()
        return grown(chain, by: top.source, canPunch: canPunch)
      }
    } catch {
      try? file.abandon()
      throw error
    }
    freeze(old)
    return pause
  }

  /// The chain with another delta above its top.
  private func grown(_ chain: DeltaChain, by source: DeltaSource, canPunch: Bool) -> DeltaChain {
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
      canPunch: canPunch)
    return DeltaChain(deltas, geometry: geometry, writing: writing)
  }

  /// Makes a prepared descriptor the one that counts. The gate is closed.
  ///
  /// If the rename cannot be made durable, nobody knows which of the two a crash would leave. Both
  /// name chains with the same content, and it stays the same: the disk takes no more writes.
  func publish(_ file: DescriptorFile) throws(DeviceError) {
    try file.publish()
    do throws(IOError) { try file.folder.sync() } catch {
      condition.degrade("\(error); it is unknown which chain \(file.path) names after a crash")
      throw DeviceError(error)
    }
  }

  /// Closes what has been a top, as the lower delta that it is now: cut to what is referenced, its
  /// mark cleared. If that fails it stays marked: a detach tries again, and so does the repair of the
  /// next attach.
  func freeze(_ writing: Writing) {
    writing.allocator.reapAll()
    do throws(DeviceError) { try close(writing) } catch {
      unclosed.withLock { $0.append(writing) }
    }
    writing.file.expectAnyAccess()
    // Others may read it from now on.
    ImageLock.release(writing.file)
    try? ImageLock.acquire(writing.file, for: .read)
  }
}
