package import PloopFormat
package import PloopIO

// Changes that another program has made in the files already, and the descriptor that follows
// (docs/crash-safety.md, "Files that other programs write").

extension ChainChange {
  /// Drops a delta that another program has merged into a neighbour's file
  /// (``Device/takeMerged(level:_:until:at:)``).
  ///
  /// - Parameters:
  ///   - level: in the chain of the descriptor's top.
  ///   - gone: the snapshot whose state no file holds any more.
  ///   - isDescribed: whether that program has changed the descriptor as well.
  package func takeMerged(
    _ device: Device, level: Int, _ direction: MergeDirection, without gone: GUID,
    isDescribed: Bool, until deadline: Deadline
  ) throws(DeviceError) -> Made {
    let before = try ChainChange.settle(file)
    var changed = before.descriptor
    if !isDescribed {
      try describing { () throws(DescriptorError) in
        switch direction {
        case .forward: _ = try changed.mergeForward(gone)
        case .backward:
          let chain = try changed.chain(to: changed.topGUID)
          guard chain.indices.contains(level) else {
            throw DescriptorError(.notPossible, "the chain has no level \(level)")
          }
          _ = try changed.mergeIntoParent(chain[level].guid)
        }
      }
    }
    return try publishing(changed, intent(.merge, gone, before, files: []), device) {
      (moment) throws(DeviceError) in
      try device.takeMerged(level: level, direction, until: deadline, at: moment)
    }
  }

  /// Reads a snapshot from another file with the same content
  /// (``Device/replaceFile(level:with:isContentChecked:until:at:)``).
  ///
  /// - Parameter name: the file as the descriptor is to name it.
  package func replaceFile(
    _ device: Device, level: Int, of guid: GUID, with source: DeltaSource, named name: String,
    isContentChecked: Bool, until deadline: Deadline
  ) throws(DeviceError) -> Made {
    let before = try ChainChange.settle(file)
    var changed = before.descriptor
    try describing { () throws(DescriptorError) in try changed.replaceFile(of: guid, by: name) }
    return try publishing(changed, intent(.replace, guid, before, files: []), device) {
      (moment) throws(DeviceError) in
      try device.replaceFile(
        level: level, with: source, isContentChecked: isContentChecked, until: deadline,
        at: moment)
    }
  }

  /// A change that makes no files: the new descriptor is durable beside the old one before requests have
  /// to wait, and renamed at the moment that `change` is given.
  private func publishing(
    _ changed: Descriptor, _ intent: ChainIntent, _ device: Device,
    _ change: (
      _ moment: ([Device.LevelStatus]) throws(DeviceError) -> Void
    ) throws(DeviceError) -> UInt64
  ) throws(DeviceError) -> Made {
    try making(intent) { () throws(DeviceError) in
      do throws(DeviceError) {
        try file.prepare(with: changed)
        let pause = try change { (_) throws(DeviceError) in try device.publish(file) }
        return Made(descriptor: changed, pauseNanoseconds: pause, intent: intent)
      } catch {
        try? file.abandon()
        throw error
      }
    } keepIf: {
      device.failure != nil
    }
  }
}
