internal import PloopFormat
internal import PloopIO

// Where the disk's readers find what a merge has moved into a lower delta. All of it is durable by then, so whatever
// of the map is not in memory comes from the files with the new places.

extension MergeReceiver {
  /// What was written is in the file for good: no sync of it has failed. Readers are sent to nothing else.
  func requireDurable() throws(DeviceError) { try own?.condition.requireWritable() }

  /// Has readers find what was copied in its new place; the top's was found from the start.
  ///
  /// - Parameters:
  ///   - isWhole: whether no step has found anything more: what the receiver lacks then is all zero, with
  ///     nothing beneath.
  ///   - epoch: what an earlier call has returned: only what has come into memory since is looked at.
  @discardableResult
  func repoint(from source: Delta, isWhole: Bool, since epoch: UInt64 = 0) -> UInt64 {
    guard let own else {
      // What the top has not is all zero, and has come back into memory behind the step that dropped it.
      return device.map.repoint(since: epoch, with: device.locks) { _, place in
        isWhole && place?.delta == source.number ? PagedMap.Replacement(place: nil) : nil
      }
    }
    // What an older receiver has may not be what was merged, until all of it was.
    guard isWhole || !own.isOlder else { return epoch }
    return device.map.repoint(since: epoch, with: device.locks) { cluster, place in
      guard place?.delta == source.number else { return nil }
      let found = own.index.place(of: cluster)
      return found != nil || isWhole ? PagedMap.Replacement(place: found) : nil
    }
  }

  /// The opposite: the merged delta stays, and with it what it holds.
  func pointBack(to source: Delta) {
    guard let own, own.isOlder else { return }
    device.map.repoint(with: device.locks) { cluster, place in
      // Nobody unmaps what the merged delta has, so nothing but a whole merge can have dropped it.
      guard place == nil || place?.delta == own.original.number else { return nil }
      return own.merged.place(of: cluster).map { PagedMap.Replacement(place: $0) }
    }
  }

  /// What is read from a delta, as far as that is in memory, its index has, also where nobody knows what it had before.
  static func requireRead(
    _ delta: Delta, in map: PagedMap, _ index: ClusterMap
  ) throws(DeviceError) {
    let lost = map.firstInMemory(of: delta.number) { index.place(of: $0) == nil }
    guard let lost else { return }
    throw lostByReaders(lost, delta.file.path)
  }

  private static func lostByReaders(_ cluster: UInt64, _ path: String) -> DeviceError {
    DeviceError(
      .refused(.mismatch), "\(path) has lost what is read from it: the cluster \(cluster)")
  }

  /// Has readers find clusters of the receiver that were moved within its file.
  ///
  /// - Throws: `.refused(.mismatch)` where its index has no more what is read from there, which stays as it is.
  func repointMoved() throws(DeviceError) {
    guard let own else { return }
    var lost: UInt64?
    device.map.repoint(with: device.locks) { cluster, place in
      guard place?.delta == own.original.number else { return nil }
      guard let found = own.index.place(of: cluster) else {
        lost = lost ?? cluster
        return nil
      }
      return found == place ? nil : PagedMap.Replacement(place: found)
    }
    if let lost { throw MergeReceiver.lostByReaders(lost, own.source.file.path) }
  }
}
