internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Makes the newest file of a disk smaller while guests use it: `what` says how, all but `defragment` if it is not
/// there.
///
/// Every step leaves the disk as it was, so it is begun anew after any interruption, and finds less to do.
struct CompactJob: JobWork {
  static let type = "compact"
  static let phases = Compaction.Part.allCases.map(\.rawValue)
  static let isResumable = true

  /// Clusters of one step: done before somebody is heard.
  private static let stepClusters = 32
  private static let usualParts: Set<Compaction.Part> = [.zeroes, .shrink, .holes]

  private let device: String
  private let parts: Set<Compaction.Part>

  init(_ parameters: [String: JobValue], device: String) throws(ServiceError) {
    self.device = device
    var parameters = JobParameters(parameters)
    var parts = CompactJob.usualParts
    if let names = try parameters.texts("what") {
      parts = Set(names.compactMap(Compaction.Part.init))
      guard parts.count == names.count, !parts.isEmpty else {
        throw parameters.wrong(
          "what", "some of \(CompactJob.phases.joined(separator: ", ")) are expected")
      }
    }
    try parameters.finish()
    self.parts = parts
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try service.writable(try service.controller(device))
    return ["what": .list(CompactJob.phases.filter { isWanted($0) }.map(JobValue.text))]
  }

  private func isWanted(_ name: String) -> Bool {
    Compaction.Part(rawValue: name).map(parts.contains) ?? false
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let (disk, _) = try service.writable(try service.controller(device))
    let outlook = try converting { () throws(DeviceError) in
      // What is free is known behind it, and nobody waits for a plan.
      try disk.requireChecked(until: .after(milliseconds: 0))
      return try Compaction.outlook(of: disk)
    }
    let mapped = disk.levels().last?.mappedClusters ?? 0
    var clusters: UInt64 = 0
    if parts.contains(.zeroes) { clusters += mapped }
    if parts.contains(.defragment), outlook.breaks > 0 { clusters += mapped }
    if parts.contains(.shrink) { clusters += outlook.tailBytes / disk.geometry.clusterBytes }
    if parts.contains(.holes) { clusters += outlook.idle }
    var plan = JobPlan(
      clusters: clusters, bytes: clusters * disk.geometry.clusterBytes, requiredBytes: 0,
      freeBytes: disk.space()?.freeBytes)
    plan.details = [
      "idle_clusters": .number(outlook.idle), "tail_bytes": .number(outlook.tailBytes),
      "breaks": .number(outlook.breaks),
    ]
    return plan
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let controller = try failing { () throws(ServiceError) in try service.controller(device) }
    let (id, parts) = (control.id, parts)
    let (compaction, clusterBytes) = try failing { () throws(ServiceError) in
      try controller.runAndWait { () throws(ServiceError) in
        try service.requireFree(controller, but: id)
        let (disk, _) = try service.writable(controller)
        return (
          try converting { () throws(DeviceError) in try Compaction(of: disk, parts) },
          disk.geometry.clusterBytes
        )
      }
    }
    let before = (file: compaction.fileBytes, disk: compaction.diskBytes)
    var total = (clusters: UInt64(0), progress: Compaction.Progress())
    while let (part, clusters) = try attempt(
      compaction, control, service,
      {
        (deadline) throws(DeviceError) in try compaction.begin(until: deadline)
      })
    {
      control.enter(phase: part.rawValue)
      total.clusters += clusters
      control.total(clusters: total.clusters, bytes: total.clusters * clusterBytes)
      control.log("\(part.rawValue): \(clusters) clusters")
      while let step = try attempt(
        compaction, control, service,
        {
          (deadline) throws(DeviceError) in
          try compaction.step(limit: CompactJob.stepClusters, until: deadline)
        })
      {
        total.progress += step
        control.advance(
          clusters: step.clusters, bytes: step.clusters * clusterBytes,
          charging: (step.copied + step.dropped + step.punched, step.readBytes))
        control.persist()
      }
    }
    let after = (file: compaction.fileBytes, disk: compaction.diskBytes)
    control.log("\(before.disk) bytes of disk before, \(after.disk) after")
    return [
      "clusters_copied": .number(total.progress.copied),
      "clusters_dropped": .number(total.progress.dropped),
      "clusters_punched": .number(total.progress.punched),
      "bytes_read": .number(total.progress.readBytes),
      "bytes_freed": .number(before.disk - min(before.disk, after.disk)),
      "file_bytes_before": .number(before.file), "file_bytes_after": .number(after.file),
    ]
  }

  /// A step, once it may be made; where it finds no room it is made again when there is some.
  private func attempt<Result>(
    _ compaction: Compaction, _ control: JobControl, _ service: Service,
    _ step: (Deadline) throws(DeviceError) -> Result
  ) throws(JobStop) -> Result {
    while true {
      try control.checkpoint()
      do throws(DeviceError) {
        return try step(.after(seconds: service.configuration.quiesceSeconds))
      } catch {
        switch error.kind {
        case .outOfSpace: try waitForSpace(compaction, control)
        case .detached: throw .interrupted
        default: throw .failed(ServiceError(error))
        }
      }
    }
  }

  private func waitForSpace(_ compaction: Compaction, _ control: JobControl) throws(JobStop) {
    let wanted = compaction.batchBytes
    let blocker = JobBlocker(
      kind: .space, id: nil,
      detail: "\(compaction.path): its file system is full; \(wanted) free bytes are wanted")
    try control.wait(for: blocker) { compaction.space.map { $0.freeBytes >= wanted } ?? true }
  }
}
