internal import PloopDevice
internal import PloopIO

/// The work of a job that makes checksums of a disk's read-only deltas, and holds those that have some
/// against them. It fails, at its end, if a cluster is not what it was.
struct DeltaHashing {
  private static let stepBytes: UInt64 = 8 << 20
  /// How far it is is written down so often.
  private static let tellNanoseconds: UInt64 = 1_000_000_000
  /// Clusters that one line of the log names.
  private static let clustersOfLine = 50

  private let run: HashRun

  init(_ disk: Device) throws(ServiceError) {
    run = try converting { () throws(DeviceError) in try HashRun(of: disk) }
  }

  var plan: JobPlan {
    JobPlan(clusters: run.totalClusters, bytes: run.totalBytes, requiredBytes: 0)
  }

  func run(_ control: JobControl) throws(JobStop) -> [String: JobValue] {
    control.total(clusters: run.totalClusters, bytes: run.totalBytes)
    let clusterBytes = run.totalClusters == 0 ? 0 : run.totalBytes / run.totalClusters
    do throws(JobStop) { try read(control, clusterBytes) } catch {
      run.abandon()
      throw error
    }
    for level in run.levels { tell(level, control) }
    let damaged = run.levels.filter { $0.damagedCount > 0 }
    if let first = damaged.first, let cluster = first.damaged.first {
      let count = damaged.reduce(0) { $0 &+ $1.damagedCount }
      throw .failed(
        ServiceError(
          .deltaDamaged,
          "\(first.path): cluster \(cluster) of the disk is not what it was when the delta was "
            + "hashed; \(count) clusters are damaged",
          cause: "the disk that it lies on has changed it by itself",
          remedy: "the job's log names every cluster; restore them from a backup", errno: "EIO"))
    }
    return [
      "deltas": .list(run.levels.enumerated().map { .object(members(of: $1, number: $0)) }),
      "bytes_read": .number(run.levels.reduce(0) { $0 + $1.clusters } * clusterBytes),
    ]
  }

  private func read(_ control: JobControl, _ clusterBytes: UInt64) throws(JobStop) {
    var toldAt = monotonicNanoseconds()
    while true {
      try control.checkpoint()
      let read = try control.untilThereIsRoom { () throws(ServiceError) in
        try converting { () throws(DeviceError) in
          try run.step(limitBytes: DeltaHashing.stepBytes)
        }
      }
      guard let read else { return }
      control.advance(clusters: read, bytes: read * clusterBytes)
      let now = monotonicNanoseconds()
      if now - toldAt >= DeltaHashing.tellNanoseconds {
        control.persist()
        toldAt = now
      }
    }
  }

  private func tell(_ level: HashRun.Level, _ control: JobControl) {
    let isSound = level.outcome == .hashed || level.outcome == .verified
    control.log(
      "\(level.path): \(level.outcome.rawValue), \(level.clusters) clusters",
      level: isSound ? "info" : "warning")
    if level.unknownCount > 0 {
      control.log(
        "\(level.path): \(level.unknownCount) clusters are not verified, their hashes are damaged; "
          + "remove \(level.path)\(HashRun.fileSuffix) to have them made anew", level: "warning")
    }
    var rest = level.damaged[...]
    while !rest.isEmpty {
      let names = rest.prefix(DeltaHashing.clustersOfLine).map(String.init).joined(separator: ", ")
      control.log("\(level.path): damaged clusters: \(names)", level: "warning")
      rest = rest.dropFirst(DeltaHashing.clustersOfLine)
    }
  }

  private func members(of level: HashRun.Level, number: Int) -> [String: JobValue] {
    [
      "level": .number(UInt64(number)), "file": .text(level.path),
      "state": .text(level.outcome.rawValue), "clusters": .number(level.clusters),
      "unverified_clusters": .number(level.unknownCount),
    ]
  }
}
