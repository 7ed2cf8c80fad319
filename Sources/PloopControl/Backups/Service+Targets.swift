internal import Logging
internal import PloopBackup
internal import PloopIO

// What can be asked of targets by name. Where they lie may not answer for long: all of it is done on a
// thread of the target's own, and who only looks is told after a while that there is no answer.

extension Service {
  package func targets(after: String?, limit: Int) async -> Page<TargetInfo> {
    let revision = store.shownRevision
    let found = targets.targets.filter { target in after.map { target.name > $0 } ?? true }
    let looks = found.prefix(limit).map { target in Task { await self.look(patientlyAt: target) } }
    var items: [TargetInfo] = []
    for look in looks { items.append(await look.value) }
    return Page(
      items: items, next: found.count > limit ? items.last?.target.name : nil,
      revision: revision)
  }

  package func target(_ name: String) async throws(ServiceError) -> TargetInfo {
    let target = try existing(target: name)
    return await look(patientlyAt: target)
  }

  /// Gives a place where backups are kept a name. Missing folders are made.
  package func addTarget(
    _ request: TargetRequest, keeping keeper: AnswerKeeper<TargetInfo>?
  ) async throws(ServiceError) -> TargetInfo {
    try Names.require(request.name, as: "the target", pointer: "/name")
    try requireServing()
    var target = Target(
      name: request.name, place: try canonical(request.place), createdAt: wallClockSeconds())
    target.slots = request.slots
    target.limits = request.limits
    target.tls = try canonical(request.tls, of: target.place)
    defer { targets.dismissClerk(of: request.name) }
    let info = try await targets.clerk(of: request.name).run { [target] () throws(ServiceError) in
      try self.requireFree(target)
      // Made before anything is written down: a place that cannot be used is refused, and not kept.
      var target = target
      target.mark = try self.prepare(target.place)
      let state = self.look(at: target)
      return try self.targets.adding.withLock { _ throws(ServiceError) in
        try self.requireFree(target)
        return try self.commit(target, state, as: .targetCreated, keeping: keeper)
      }
    }
    log.info("target added", metadata: ["target": "\(request.name)"])
    return info
  }

  package func changeTarget(
    _ name: String, _ change: TargetChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> TargetInfo {
    try requireServing()
    return try await clerk(of: name).run { () throws(ServiceError) in
      let target = try self.existing(target: name)
      try Service.require(ifRevision, is: target.revision)
      var wanted = target
      wanted.slots = change.slots ?? target.slots
      wanted.limits = change.limits.applied(to: target.limits)
      guard wanted != target else { return self.info(of: target) }
      // Looked at ahead: it may take its time, and nobody waits for it within a transaction.
      let info = try self.commit(
        wanted, self.look(at: target), as: .targetChanged, keeping: nil)
      self.jobs.lookAgain()
      return info
    }
  }

  /// Forgets a target; what lies there stays. One that cannot be reached is forgotten as well.
  package func removeTarget(
    _ name: String, leavingBackups: Bool, ifRevision: UInt64?
  ) async throws(ServiceError) {
    try requireServing()
    try await clerk(of: name).run { () throws(ServiceError) in
      let target = try self.existing(target: name)
      try Service.require(ifRevision, is: target.revision)
      if let job = self.jobs.user(of: name) {
        throw ServiceError(
          .targetInUse, "the job \(job.id) (\(job.type)) works with the target \(name)",
          errno: "EBUSY", holder: ServiceError.Holder(kind: "job", id: job.id))
      }
      if !leavingBackups, let usage = self.info(of: target).usage, usage.backups > 0 {
        throw ServiceError(
          .targetNotEmpty, "the target \(name) has \(usage.backups) backups", errno: "ENOTEMPTY",
          facts: ["backups": .number(UInt64(usage.backups))])
      }
      try self.store.write { transaction throws(ServiceError) in
        try transaction.removeTarget(name)
        try transaction.note(
          .targetDeleted, name, device: nil, at: try transaction.nextRevision())
      } show: {
        self.targets.remove(name)
      }
    }
    waiting.changed([.service, .target(name)])
    log.info("target removed", metadata: ["target": "\(name)"])
  }

  private func commit(
    _ target: Target, _ state: TargetState, as event: EventType,
    keeping keeper: AnswerKeeper<TargetInfo>?
  ) throws(ServiceError) -> TargetInfo {
    let info = try store.write { transaction throws(ServiceError) in
      var target = target
      target.revision = try transaction.nextRevision()
      try transaction.save(target)
      try transaction.note(event, target.name, device: nil, at: target.revision)
      let info = TargetInfo(target: target, conditions: state.conditions, usage: state.usage)
      try keeper?.keep(info, in: transaction)
      return info
    } show: { info in
      targets.keep(info.target)
    }
    waiting.changed([.service, .target(target.name)])
    return info
  }

  // MARK: Rules

  /// The place as it is written down: with its root, whatever roots there are later.
  func canonical(_ place: TargetPlace) throws(ServiceError) -> TargetPlace {
    switch place {
    case .directory(let path):
      return .directory(path: try roots.locate(path, pointer: "/path").path)
    case .file(let path, let format):
      let location = try roots.locate(path, pointer: "/path")
      guard location.name.utf8.count <= FilePointTarget.nameLimitBytes else {
        throw ServiceError(
          .valueImpossible,
          "path: the file's name has more than \(FilePointTarget.nameLimitBytes) bytes",
          pointer: "/path")
      }
      return .file(path: location.path, format: format)
    case .nbd(let uri):
      try requireAddress(uri, pointer: "/uri")
      return place
    }
  }

  func canonical(
    _ tls: TargetTLS?, of place: TargetPlace
  ) throws(ServiceError) -> TargetTLS? {
    var uri: String?
    if case .nbd(let address) = place { uri = address }
    return try canonical(tls, of: uri)
  }

  /// - Throws: `target-exists` when the name is taken, or the place belongs to another one: two that lie
  ///   within each other would take each other's folders for devices.
  private func requireFree(_ target: Target) throws(ServiceError) {
    for other in targets.targets {
      guard other.name == target.name || other.place.overlaps(target.place) else { continue }
      let words =
        other.name == target.name
        ? "the target \(other.name) exists" : "the target \(other.name) has that place"
      throw ServiceError(
        .targetExists, words, errno: "EEXIST",
        holder: ServiceError.Holder(kind: "target", id: other.name))
    }
    for (job, own) in placesOfJobs where own.place.overlaps(target.place) {
      throw Service.taken(by: job)
    }
  }

  // MARK: Looking

  private typealias TargetState = (
    conditions: [DeviceInfo.Condition], usage: TargetInfo.Usage?
  )

  /// For how long a target is waited for by who looks at it, and by how many.
  private static let patienceSeconds = 10
  private static let lookersLimit = 8

  /// - Throws: `target-not-found`.
  func clerk(of target: String, pointer: String? = nil) throws(ServiceError) -> Clerk {
    _ = try existing(target: target, pointer: pointer)
    return try targets.clerk(of: target)
  }

  /// A target as it is, or without an answer if there is none in time.
  private func look(patientlyAt target: Target) async -> TargetInfo {
    let name = target.name
    guard let clerk = try? targets.clerk(of: name),
      targets.beginLook(at: name, limit: Service.lookersLimit)
    else { return Service.unanswered(target, targets) }
    return await withCheckedContinuation { continuation in
      let waiting = Locked<CheckedContinuation<TargetInfo, Never>?>(continuation)
      let isAsked = { @Sendable in waiting.withLock { waiting in waiting.take() } }
      let patience = Task { [targets] in
        try? await Task.sleep(for: .seconds(Service.patienceSeconds))
        isAsked()?.resume(returning: Service.unanswered(target, targets))
      }
      Task {
        let info = await clerk.look { self.info(of: target) }
        targets.endLook(at: name)
        isAsked()?.resume(returning: info)
        // Not sooner: who is cancelled while he sleeps wakes up at once, and would answer first.
        patience.cancel()
      }
    }
  }

  private static func unanswered(_ target: Target, _ targets: TargetTable) -> TargetInfo {
    let condition = DeviceInfo.Condition(
      type: "Reachable", isTrue: false, reason: "NotAnswering",
      message: "no answer for \(patienceSeconds) s",
      since: targets.note(target.name, isReachable: false))
    return TargetInfo(target: target, conditions: [condition], usage: nil)
  }

  private func info(of target: Target) -> TargetInfo {
    let state = look(at: target)
    return TargetInfo(target: target, conditions: state.conditions, usage: state.usage)
  }

  /// Whether a target can be used now, and what lies there. Of an NBD server only jobs find that out.
  private func look(at target: Target) -> TargetState {
    let usage: TargetInfo.Usage?
    var (reason, message) = ("Opened", "")
    do throws(ServiceError) {
      usage = try self.usage(of: target)
    } catch {
      usage = nil
      switch error.cause {
      case "image-not-found": reason = "Missing"
      case "target-mismatch": reason = "Replaced"
      default: reason = "Unusable"
      }
      message = error.detail
    }
    if case .nbd = target.place { return ([], usage) }
    let isReachable = usage != nil
    let condition = DeviceInfo.Condition(
      type: "Reachable", isTrue: isReachable, reason: reason, message: message,
      since: targets.note(target.name, isReachable: isReachable))
    return ([condition], usage)
  }

  private func usage(of target: Target) throws(ServiceError) -> TargetInfo.Usage? {
    var usage = TargetInfo.Usage()
    switch try open(target) {
    case .directory(let directory):
      for chain in try chains(in: directory, of: nil) {
        for point in try backingUp({ () throws(BackupError) in try chain.chain.points() }) {
          usage.backups += 1
          usage.bytes += point.diskBytes
        }
      }
    case .single(let single):
      for point in try backingUp({ () throws(BackupError) in try single.points() }) {
        usage.backups += 1
        usage.bytes += point.diskBytes
      }
    }
    return usage
  }
}

extension TargetPlace {
  /// Whether one is the other, or lies within it.
  func overlaps(_ other: TargetPlace) -> Bool {
    switch (self, other) {
    case (.nbd(let one), .nbd(let other)):
      return one == other || ExportName(one).map { $0 == ExportName(other) } ?? false
    case (.nbd, _), (_, .nbd): return false
    default:
      let (one, other) = (words + "/", other.words + "/")
      return one.hasPrefix(other) || other.hasPrefix(one)
    }
  }
}
