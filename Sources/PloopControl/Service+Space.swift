internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// Room on the file systems that disks lie on. Which one that is, the file or folder itself is asked:
// others may be mounted beneath a root.

extension Service {
  /// What cannot fit is refused before anything is changed; the same for all that needs room.
  ///
  /// - Parameters:
  ///   - free: bytes where it is to lie; nil where that is not known, and the file system has the last word.
  ///   - what: it is, for people.
  /// - Throws: `insufficient-space` with both figures.
  static func requireSpace(
    _ needed: UInt64, of free: UInt64?, for what: String
  ) throws(ServiceError) {
    guard let free, free < needed else { return }
    throw ServiceError(
      .insufficientSpace,
      "\(what) needs \(needed) bytes; \(free) are free where it is to lie",
      errno: "ENOSPC", facts: ["required_bytes": .number(needed), "free_bytes": .number(free)])
  }

  /// Refuses a change of a chain for which the descriptor's folder has no room.
  ///
  /// - Parameter imageBytes: what a new image takes.
  func requireSpace(
    _ imageBytes: UInt64, beside descriptor: Descriptor, of chain: ChangeableChain,
    for what: String
  ) throws(ServiceError) {
    // Beside the image: the next descriptor, an intent, notes.
    let texts = UInt64(descriptor.file.count) + 3 * UInt64(Geometry.pageBytes)
    try Service.requireSpace(
      imageBytes + texts, of: try? chain.file.folder.space().freeBytes, for: what)
  }

  /// Refuses a job that could not be done now.
  ///
  /// What other jobs of its device free before its turn comes is not known: one that comes after another
  /// waits for room when it needs it.
  ///
  /// - Parameter parameters: of the job, with everything said.
  func requireSpace(
    for request: JobRequest, _ parameters: [String: JobValue]
  ) throws(ServiceError) {
    guard request.after.isEmpty, jobs.isIdle(device: request.device),
      jobs.canLackRoom(request.type)
    else { return }
    // What a disk takes is known behind the check of its index, for which nobody waits here.
    if let device = request.device, let disk = try? controller(device).device(), !disk.isChecked {
      return
    }
    var request = request
    request.parameters = parameters
    // Whatever else keeps it from being planned is told when its turn comes, or was told already.
    guard let plan = try? jobs.registry.work(request).plan(self) else { return }
    try Service.requireSpace(plan.leastBytes, of: plan.freeBytes, for: "the job \(request.type)")
  }

  // MARK: Merges

  /// What a merge takes, and where.
  ///
  /// - Parameters:
  ///   - source: what is merged, and the one that receives it.
  ///   - space: around the latter.
  static func plan(
    _ choice: MergeChoice, _ geometry: Geometry, from source: Device.LevelStatus,
    into receiver: Device.LevelStatus, in space: FilesystemSpace?
  ) -> JobPlan {
    let clusterBytes = geometry.clusterBytes
    let bytes = choice.size.newClusters * clusterBytes
    var plan = JobPlan(
      clusters: choice.size.clusters, bytes: choice.size.clusters * clusterBytes,
      requiredBytes: bytes, freeBytes: space?.freeBytes)
    plan.direction = choice.direction.rawValue
    plan.reason = choice.reason
    guard space?.copiesTakeRoom == true else { return plan }
    // What is all zero is not copied, and what nothing references may have its room already: a merge is
    // refused only where not even the rest would fit.
    let most = min(bytes, source.diskBytes)
    plan.leastBytes = most - min(most, receiver.idleBytes(geometry))
    return plan
  }
}

/// How little room there is for a disk.
enum Shortage: String, Sendable {
  /// Not even for a cluster.
  case full = "Full"
  case low = "Low"

  /// Below a twentieth of the file system there is little, and below so many clusters too.
  private static let clusters: UInt64 = 64
  private static let share: UInt64 = 20

  /// - Returns: nil when there is enough.
  init?(of space: FilesystemSpace, clusterBytes: UInt64) {
    if space.freeBytes < clusterBytes {
      self = .full
    } else if space.freeBytes / clusterBytes < Shortage.clusters
      || space.freeBytes < space.totalBytes / Shortage.share
    {
      self = .low
    } else {
      return nil
    }
  }
}

extension Device.LevelStatus {
  /// What the file has beside header, index and the clusters that it maps: room that it may take.
  func idleBytes(_ geometry: Geometry) -> UInt64 {
    let used = (mappedClusters + geometry.headerClusters) * geometry.clusterBytes
    return fileBytes - min(fileBytes, used)
  }
}
