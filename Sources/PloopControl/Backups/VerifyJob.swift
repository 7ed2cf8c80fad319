internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// Reads stored points again, and holds all of their bytes against the checksums: `backup` and what it builds
/// on, or all of a `device`, or all that lie on the `target`.
///
/// What was found of each point is written down at once, so an interrupted job goes on with the next one. It
/// fails, at its end, if a byte is not what was stored.
struct VerifyJob: QueuedWork {
  static let type = "verify"
  static let phases = ["reading"]
  static let isResumable = true
  static let device = JobDevice.none

  private static let stepBytes: UInt64 = 8 << 20
  /// Clusters that one line of the log names.
  private static let clustersOfLine = 50

  private let target: String
  private let backup: String?
  private let device: String?

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> VerifyJob {
    var parameters = JobParameters(parameters)
    let job = VerifyJob(
      target: try parameters.requiredText("target"), backup: try parameters.text("backup"),
      device: try parameters.name("device"))
    try parameters.finish()
    guard job.backup == nil || job.device == nil else {
      throw parameters.wrong("device", "only one of backup and device is expected")
    }
    return job
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    _ = try points(service)
    var parameters = ["target": JobValue.text(target)]
    if let backup { parameters["backup"] = .text(backup) }
    if let device { parameters["device"] = .text(device) }
    return parameters
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let sizes = try points(service).map { ($0.checkedBytes ?? 0, $0.clusterBytes ?? 1) }
    return JobPlan(
      clusters: sizes.reduce(0) { $0 + $1.0 / $1.1 },
      bytes: sizes.reduce(0) { (sum: UInt64, size) in
        // Manifests are what anybody may have written.
        let (bytes, isTooMuch) = sum.addingReportingOverflow(size.0)
        return isTooMuch ? .max : bytes
      },
      requiredBytes: 0)
  }

  /// Whole ones and those that a look has found damaged; who has begun one will go on with it.
  private func points(_ service: Service) throws(ServiceError) -> [BackupInfo] {
    guard let backup else {
      return try service.backups(on: target, of: device).filter { $0.state != .partial }
    }
    let info = try service.backup(backup, on: target, pointer: "/params/backup").info
    guard info.isWhole else {
      throw ServiceError(
        .backupIncomplete, "\(backup) is not verified: \(info.problem ?? info.state.rawValue)",
        pointer: "/params/backup")
    }
    return try service.backups(on: target, of: info.device).filter {
      $0.chain == info.chain && (1...info.chainLength).contains($0.chainLength)
    }
  }

  // MARK: Doing it

  /// Why the reading of a point did not come to its end.
  private enum Stop: Error {
    case job(JobStop)
    case copy(BackupError)
  }

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    let (points, since) = try failing { () throws(ServiceError) in
      (try self.points(service), try service.existing(control.id).createdAt)
    }
    // What an earlier attempt has found right is not read again.
    let rest = points.filter { $0.problem != nil || $0.verifiedAt ?? 0 < since }
    control.enter(phase: "reading")
    let plan = try failing { () throws(ServiceError) in try self.plan(service) }
    control.total(clusters: plan.clusters, bytes: plan.bytes)
    let skipped = points.count - rest.count
    if skipped > 0 {
      let done = points.filter { point in !rest.contains { $0.id == point.id } }
      for point in done { tell(point.checkedBytes ?? 0, of: point, isCharged: false, control) }
      control.log("\(skipped) backups were verified by an earlier attempt")
    }
    var problems: [String] = []
    var bytesRead: UInt64 = 0
    for point in rest {
      let problem = try verify(point, &bytesRead, control, service)
      if let problem { problems.append(problem) }
    }
    guard let first = problems.first else {
      return [
        "backups": .number(UInt64(points.count)), "bytes_read": .number(bytesRead),
      ]
    }
    throw .failed(
      ServiceError(
        .backupCorrupt, "\(problems.count) of \(points.count) backups are damaged: \(first)",
        remedy: "the job's log names every cluster; back the disk up anew", errno: "EIO"))
  }

  /// - Returns: what is wrong with it, in words.
  private func verify(
    _ point: BackupInfo, _ bytesRead: inout UInt64, _ control: JobControl, _ service: Service
  ) throws(JobStop) -> String? {
    var problem: String?
    let store = try failing { () throws(ServiceError) in try service.store(of: point) }
    do throws(Stop) {
      let wrong = try check(point, in: store, &bytesRead, control, service)
      if !wrong.isEmpty {
        let error = ServiceError(
          BackupError(
            .corrupt(clusters: wrong),
            "\(store.name(of: point.id)): \(wrong.count) clusters are not what was stored"))
        problem = error.detail
        log(wrong, of: point, control)
      }
    } catch {
      switch error {
      case .job(let stop): throw stop
      case .copy(let error):
        switch error.kind {
        case .corrupt, .notFound, .mismatch: problem = error.detail
        default: throw .failed(ServiceError(error))
        }
        control.log(error.detail, level: "warning")
      }
    }
    let verdict = StateTransaction.Verdict(verifiedAt: wallClockSeconds(), problem: problem)
    try failing { () throws(ServiceError) in
      try service.store.write { transaction throws(ServiceError) in
        try transaction.save(verdict, of: point.id, on: target)
        try transaction.note(
          .backupVerified, point.id, device: point.device, at: try transaction.nextRevision())
      }
    }
    control.persist()
    return problem
  }

  /// - Returns: clusters that are not what was stored.
  private func check(
    _ point: BackupInfo, in store: PointStore, _ bytesRead: inout UInt64, _ control: JobControl,
    _ service: Service
  ) throws(Stop) -> [UInt64] {
    let check: PointCheck
    do throws(BackupError) { check = try store.check(point.id) } catch { throw .copy(error) }
    var isMore = check.totalBytes > 0
    while isMore {
      do throws(JobStop) { try control.checkpoint() } catch { throw .job(error) }
      let before = check.checkedBytes
      do throws(BackupError) {
        isMore = try check.step(limitBytes: VerifyJob.stepBytes, on: service.engine)
      } catch { throw .copy(error) }
      let read = check.checkedBytes - before
      bytesRead += read
      tell(read, of: point, isCharged: true, control)
    }
    return check.wrongClusters
  }

  private func tell(
    _ bytes: UInt64, of point: BackupInfo, isCharged: Bool, _ control: JobControl
  ) {
    let clusters = bytes / (point.clusterBytes ?? 1)
    control.advance(
      clusters: clusters, bytes: bytes, charging: isCharged ? (clusters, bytes) : (0, 0))
  }

  private func log(_ wrong: [UInt64], of point: BackupInfo, _ control: JobControl) {
    var rest = wrong[...]
    while !rest.isEmpty {
      let names = rest.prefix(VerifyJob.clustersOfLine).map(String.init).joined(separator: ", ")
      control.log("\(point.id): wrong clusters: \(names)", level: "warning")
      rest = rest.dropFirst(VerifyJob.clustersOfLine)
    }
  }
}
