internal import Glibc
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// Removes files that nobody needs: the `paths` of orphans, each looked at once more when its turn comes.
///
/// A path means the file that was there when the job was asked for: another one under its name stays. What is
/// not orphaned any more stays, too, and the job fails at its end; all others are removed.
struct CleanJob: QueuedWork {
  static let type = "clean"
  static let phases = ["removing"]
  static let isResumable = true
  static let device = JobDevice.none

  /// As many are looked at and removed in one go.
  private static let batch = 64
  private static let pathLimit = 1_000

  private struct Item: Sendable {
    let path: String
    /// Of the file that is meant; nil until the job is accepted.
    var inode: UInt64?
  }

  private let items: [Item]

  static func make(
    _ parameters: [String: JobValue], device: String?
  ) throws(ServiceError) -> CleanJob {
    var parameters = JobParameters(parameters)
    guard let paths = try parameters.list("paths") else {
      throw parameters.wrong("paths", "is missing")
    }
    guard (1...pathLimit).contains(paths.count) else {
      throw parameters.wrong("paths", "1 to \(pathLimit) paths are expected")
    }
    var items: [Item] = []
    for (index, value) in paths.enumerated() {
      switch value {
      case .text(let path): items.append(Item(path: path))
      case .object(let members):
        var member = JobParameters(members, at: ["paths", String(index)], of: parameters)
        items.append(
          Item(path: try member.requiredText("path"), inode: try member.number("inode")))
        try member.finish()
      default: throw parameters.wrong("paths", "a list of paths is expected")
      }
    }
    try parameters.finish()
    return CleanJob(items: items)
  }

  func pinned(_ service: Service) throws(ServiceError) -> [String: JobValue] {
    let found = try judge(service, items)
    return [
      "paths": .list(
        found.map { .object(["path": .text($0.image.path), "inode": .number($0.inode)]) })
    ]
  }

  func plan(_ service: Service) throws(ServiceError) -> JobPlan {
    let found = try judge(service, items)
    var plan = JobPlan(
      clusters: UInt64(found.count), bytes: found.reduce(0) { $0 &+ $1.image.diskBytes },
      requiredBytes: 0)
    plan.removes = found.map { ($0.image.path, $0.image.diskBytes) }
    return plan
  }

  // MARK: Judging

  private struct Found: Sendable {
    let image: ImageInfo
    let location: Roots.Location
    let inode: UInt64
  }

  /// - Throws: `image-in-use`, `image-not-found` or `image-not-orphaned` for the first that is not to go.
  private func judge(_ service: Service, _ items: [Item]) throws(ServiceError) -> [Found] {
    let scan = ImageScan(service.roots)
    let users = ImageUsers(scan, of: service)
    var found: [Found] = []
    for (index, item) in items.enumerated() {
      let pointer = ServiceError.pointer(["params", "paths", String(index)])
      found.append(try CleanJob.judge(item, scan, users, service, pointer: pointer))
    }
    return found
  }

  private static func judge(
    _ item: Item, _ scan: ImageScan, _ users: ImageUsers, _ service: Service, pointer: String
  ) throws(ServiceError) -> Found {
    let location = try service.roots.locate(item.path, pointer: pointer)
    guard let file = scan.files.first(where: { $0.location == location }) else {
      throw ServiceError(
        .imageNotFound, "\(location.path) is no image beneath a root", errno: "ENOENT",
        pointer: pointer)
    }
    guard item.inode ?? file.stamp.inode == file.stamp.inode else {
      throw ServiceError(
        .imageNotOrphaned, "\(location.path) is another file than the one that was named",
        errno: "EBUSY", pointer: pointer)
    }
    let image = users.judged(file)
    guard image.state == .orphaned else {
      let user = image.users.first
      throw ServiceError(
        .imageNotOrphaned,
        image.reason.map { "\(location.path): \($0)" }
          ?? "\(location.path) is used by the \(user?.kind ?? "") \(user?.id ?? "")",
        errno: "EBUSY", holder: user.map { ServiceError.Holder(kind: $0.kind, id: $0.id) },
        pointer: pointer)
    }
    return Found(image: image, location: location, inode: file.stamp.inode)
  }

  // MARK: Doing it

  func run(_ control: JobControl, _ service: Service) throws(JobStop) -> [String: JobValue] {
    control.enter(phase: CleanJob.phases[0])
    control.total(clusters: UInt64(items.count), bytes: 0)
    var (removed, freed): (UInt64, UInt64) = (0, 0)
    var refusals: [ServiceError] = []
    var rest = items[...]
    while !rest.isEmpty {
      try control.checkpoint()
      let batch = Array(rest.prefix(CleanJob.batch))
      rest = rest.dropFirst(batch.count)
      for outcome in remove(batch, service, job: control.id) {
        switch outcome {
        case .success(let image):
          removed += 1
          freed &+= image.diskBytes
          control.log("\(image.path): removed, \(image.diskBytes) bytes")
        case .failure(let error):
          // An earlier attempt has removed it.
          if error.code == .imageNotFound, control.hasProgressedBefore { continue }
          refusals.append(error)
          control.log(error.detail, level: "warning")
        }
      }
      control.advance(clusters: UInt64(batch.count), bytes: 0)
      control.persist()
    }
    guard let first = refusals.first else {
      return ["removed": .number(removed), "bytes_freed": .number(freed)]
    }
    throw .failed(
      ServiceError(
        first.code,
        "\(refusals.count) of \(items.count) files stay, \(removed) are removed: \(first.detail)",
        remedy: "the job's log names each", errno: first.errno, holder: first.holder))
  }

  /// A file that is about to go: nobody opens it from now on.
  private struct Held {
    let file: ImageFile
    let folder: ImageFolder
    let location: Roots.Location
  }

  /// Nobody has them and nobody can take them while they are looked at once more and removed.
  private func remove(
    _ batch: [Item], _ service: Service, job: String
  ) -> [Result<ImageInfo, ServiceError>] {
    var outcomes: [Result<ImageInfo, ServiceError>] = []
    var held: [(item: Item, held: Held)] = []
    for item in batch {
      do throws(ServiceError) { held.append((item, try hold(item, service, job))) } catch {
        outcomes.append(.failure(error))
      }
    }
    defer {
      service.state.withLock { $0.files.release(.job(job, of: job)) }
      held.forEach { ImageLock.release($0.held.file) }
    }
    guard !held.isEmpty else { return outcomes }
    let scan = ImageScan(service.roots)
    let users = ImageUsers(scan, of: service, ignoring: job)
    for (item, held) in held {
      do throws(ServiceError) {
        let found = try CleanJob.judge(item, scan, users, service, pointer: "")
        guard held.file.identity.inode == found.inode else {
          throw ServiceError(
            .imageNotOrphaned, "\(item.path) is another file than the one that was named")
        }
        try CleanJob.unlink(held)
        outcomes.append(.success(found.image))
      } catch { outcomes.append(.failure(error)) }
    }
    return outcomes
  }

  private func hold(
    _ item: Item, _ service: Service, _ job: String
  ) throws(ServiceError) -> Held {
    let location = try service.roots.locate(item.path, pointer: "")
    let folder = try service.roots.folder(of: location, pointer: "")
    let file = try service.roots.open(location, in: folder, writable: true, pointer: "")
    try service.state.withLock { state throws(ServiceError) in
      try state.files.claim(
        [(location, file.identity)], for: .job(job, of: job), readonly: false)
    }
    do throws(LockError) { try ImageLock.acquire(file, for: .write) } catch {
      throw ServiceError(DeviceError(error))
    }
    return Held(file: file, folder: folder, location: location)
  }

  /// What belongs to it first: an image without it is still an orphan, and it alone would be nothing.
  private static func unlink(_ held: Held) throws(ServiceError) {
    do throws(IOError) {
      for suffix in [CheckpointFile.suffix, HashRun.fileSuffix] {
        try held.folder.removeIfThere("\(held.location.name)\(suffix)")
      }
      try held.folder.unlink(held.location.name)
      try held.folder.sync()
    } catch { throw ServiceError(error) }
  }
}
