package import PloopFormat
package import PloopIO

// How a merge ends, well or not.

extension DeltaMerge {
  /// Makes what was moved so far durable: a merge that is begun again after a crash skips it.
  package func flush() throws(DeviceError) {
    try receiver.writing.index.flush()
    receiver.writing.allocator.reap()
  }

  /// Drops the delta from the chain, once no step finds anything more.
  ///
  /// The order (docs/crash-safety.md, "Merge"): the receiver is flushed and the new descriptor
  /// durable beside the old one; the gate is closed, and what is left is flushed; the descriptor is
  /// renamed, durably; the chain is replaced; the gate is opened. The delta's file is the caller's to
  /// remove.
  ///
  /// - Returns: nanoseconds for which requests had to wait.
  /// - Throws: as ``Device/snapshot(onto:descriptor:using:until:)``, with the chain as it was.
  package func finish(
    descriptor file: DescriptorFile, becoming changed: Descriptor, until deadline: Deadline
  ) throws(DeviceError) -> UInt64 {
    let pause: UInt64
    do throws(DeviceError) {
      try file.prepare(with: changed)
      try receiver.writing.index.flush()
      try receiver.requireDurable()
      let epoch = receiver.repoint(from: source, isWhole: true)
      pause = try device.change(until: deadline) { (chain) throws(DeviceError) in
        try receiver.writing.index.flush()
        try receiver.requireDurable()
        try device.publish(file)
        return receiver.chain(chain, without: source)
      } repointing: {
        // What was read meanwhile was read with the source; it is little.
        receiver.repoint(from: source, isWhole: true, since: epoch)
      }
    } catch {
      try? file.abandon()
      throw error
    }
    // What could not be closed when it became a lower delta is removed now, and its number another one's.
    device.forgetUnclosed(source)
    receiver.countDropped()
    receiver.close(isInChain: true)
    ImageLock.release(source.file)
    return pause
  }

  /// Ends a merge that is not to go on: the chain has the deltas that it had. What was moved forward
  /// stays where it is now; backward, readers find it where it came from.
  package func abandon(until deadline: Deadline) {
    do throws(DeviceError) {
      receiver.pointBack(to: source)
      try flush()
      try receiver.requireDurable()
      try receiver.repointMoved()
      receiver.repoint(from: source, isWhole: false)
      if receiver.isReopened {
        _ = try device.change(until: deadline) { chain in receiver.chain(chain, without: nil) }
      }
      receiver.close(isInChain: true)
    } catch {
      // The chain goes on reading what it read before; what has been moved is in the index all the same, and nobody
      // else's doing.
      receiver.close(isInChain: false, isOurs: true)
    }
  }
}
