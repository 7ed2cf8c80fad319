internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Copies into a linked clone's own files what it shares with the disk that it was made of, while it is used; it is a
/// full one then. What it shares stays as it is.
///
/// Each snapshot that it shares is merged into what builds on it, the newest first: so whatever receives is the
/// disk's own. An interrupted job goes on with those that are left.
struct CopyUpJob: JobWork {
  static let type = "copy_up"
  static let phases = MergeJob.phases
  static let isResumable = true

  private let device: String

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {
    self.device = device
    try JobParameters(parameters).finish()
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try plan(service)
    return [:]
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let controller = try service.controller(device)
    let shared = try service.sharedSnapshots(controller)
    guard !shared.isEmpty else {
      throw ServiceError(
        .nothingToMerge, "the device \(device) shares no snapshot with another disk",
        errno: "ENOENT", pointer: "/device")
    }
    var plan = JobPlan(
      clusters: 0, bytes: 0, requiredBytes: 0,
      freeBytes: try? controller.device().space()?.freeBytes)
    for guid in shared {
      // By itself: what an older one has as well is not copied from there.
      let merge = try service.mergePlan(controller, guid, .forward)
      plan.clusters += merge.clusters
      plan.bytes += merge.bytes
      plan.requiredBytes += merge.requiredBytes
    }
    return plan
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let controller = try failing { () throws(ServiceError) in try service.controller(device) }
    var sums: [String: UInt64] = ["clusters_copied": 0, "clusters_dropped": 0, "bytes_read": 0]
    var merged: [JobValue] = []
    while let guid = try next(controller, service) {
      // Between two of them it can be cancelled.
      if !merged.isEmpty { control.reopen() }
      control.log("\(guid) is copied")
      let result = try SnapshotMerge(
        device: device, guid: guid, direction: .forward, isOfClone: true
      ).run(control, service)
      for name in sums.keys {
        if case .number(let count)? = result[name] { sums[name, default: 0] += count }
      }
      merged.append(.text(guid.description))
    }
    return sums.mapValues(JobValue.number).merging(["removed": .list(merged)]) { $1 }
  }

  private func next(
    _ controller: DeviceController, _ service: Service
  ) throws(JobStop) -> GUID? {
    try failing { () throws(ServiceError) in
      try controller.runAndWait { () throws(ServiceError) in
        try service.sharedSnapshots(controller).first
      }
    }
  }
}

extension Service {
  /// The snapshots of a linked clone's chain that are another disk's as well, the newest first.
  fileprivate func sharedSnapshots(
    _ controller: DeviceController
  ) throws(ServiceError) -> [GUID] {
    guard let record = controller.now.record, let path = record.descriptor else { return [] }
    let location = try roots.locate(path, pointer: "")
    let folder = try roots.folder(of: location, pointer: "")
    let descriptor = try read(location, in: folder)
    let notes = notes(
      beside: DescriptorFile(in: folder, name: location.name), of: record.id)
    let chain: [Descriptor.Shot]
    do throws(DescriptorError) { chain = try descriptor.chain(to: descriptor.topGUID) } catch {
      throw ServiceError(DeviceError(error, path: location.path))
    }
    return chain.map(\.guid).filter { notes[$0].isLinked == true }.reversed()
  }
}
