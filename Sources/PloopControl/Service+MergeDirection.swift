internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// Which of two deltas receives the other: both give the same disk and the same snapshots
// (docs/decisions/0009-direction-of-a-merge.md).

/// A direction, why it is that one, and what it takes.
struct MergeChoice {
  let direction: MergeDirection
  let reason: String
  let size: DeltaMerge.Size
}

extension Service {
  /// Chooses the direction in which a snapshot is merged away.
  ///
  /// - Parameters:
  ///   - wanted: what was asked for; nil for that with fewer clusters to copy.
  ///   - level: of the snapshot's delta in the device's chain.
  ///   - keeps: whether its file is one that other disks may build on.
  /// - Throws: `merge-direction-invalid` and `image-has-children` where it was asked for the one that
  ///   is not possible.
  func choose(
    _ wanted: MergeDirection?, for guid: GUID?, at level: Int, of record: DeviceRecord,
    _ device: Device, keeps: Bool
  ) throws(ServiceError) -> MergeChoice {
    let name = guid?.description ?? "level \(level)"
    func size(_ direction: MergeDirection) throws(ServiceError) -> DeltaMerge.Size {
      try converting { () throws(DeviceError) in
        try DeltaMerge.size(in: device, level: level, direction)
      }
    }
    func forward(_ reason: String) throws(ServiceError) -> MergeChoice {
      MergeChoice(
        direction: .forward, reason: try Service.onlyForward(wanted, reason),
        size: try size(.forward))
    }
    guard level + 1 < record.deltas.count - 1 else {
      return try forward("what builds on \(name) is the top, which guests write")
    }
    guard !record.deltas[level].isRaw else {
      return try forward("\(name) is raw, and has no index to write")
    }
    guard !keeps else {
      if wanted == .backward {
        throw ServiceError(
          .imageHasChildren, "\(record.deltas[level].path) was there before its descriptor",
          cause: "other disks may build on it, and a merge would write it",
          remedy: "merge forward", errno: "EBUSY",
          holder: .init(kind: "image", id: record.deltas[level].path))
      }
      return try forward("other disks may build on the file of \(name)")
    }
    let (up, down) = (try size(.forward), try size(.backward))
    let direction = wanted ?? (down.clusters < up.clusters ? .backward : .forward)
    let reason =
      "\(up.clusters) clusters to copy forward, \(down.clusters) backward"
      + (wanted == nil ? "" : "; \(direction.rawValue) was asked for")
    return MergeChoice(
      direction: direction, reason: reason, size: direction == .forward ? up : down)
  }

  /// The direction with less to copy now; forward of one that is gone.
  func cheaperDirection(
    of guid: GUID, _ controller: DeviceController
  ) throws(ServiceError) -> MergeDirection {
    do throws(ServiceError) {
      return try mergePlan(controller, guid, nil).direction.flatMap(MergeDirection.init) ?? .forward
    } catch {
      guard error.code == .snapshotNotFound else { throw error }
      return .forward
    }
  }

  /// - Returns: the reason.
  /// - Throws: `merge-direction-invalid` when backward was asked for.
  static func onlyForward(
    _ wanted: MergeDirection?, _ reason: String
  ) throws(ServiceError) -> String {
    guard wanted == .backward else { return reason }
    throw ServiceError(
      .mergeDirectionInvalid, "only forward: \(reason)", remedy: "leave the direction out",
      errno: "EINVAL", pointer: "/params/direction")
  }
}
