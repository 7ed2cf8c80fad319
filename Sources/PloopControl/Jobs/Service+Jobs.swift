internal import FoundationEssentials
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What can be asked of the queue of jobs.

extension Service {
  /// Puts work into the queue; it is durable when this returns, and so is the answer that is kept.
  ///
  /// - Returns: the job, or one with the same `dedupe_key` that still waits.
  package func addJob(
    _ request: JobRequest, keeping keeper: AnswerKeeper<JobInfo>?
  ) async throws(ServiceError) -> JobInfo {
    try requireServing()
    try Names.require(labels: request.labels)
    let work = try jobs.registry.work(request)
    guard let device = request.device else {
      return try await clerk(of: request).run { () throws(ServiceError) in
        try self.add(request, work, keeping: keeper)
      }
    }
    let controller = try controller(device)
    let surveyed = try await survey(request, work, isPlanned: false)
    return try await controller.run { () throws(ServiceError) in
      try Service.require(request, of: controller)
      return try self.add(request, surveyed, keeping: keeper)
    }
  }

  /// Who looks at what a request names: the target, where it names one.
  private func clerk(of request: JobRequest) throws(ServiceError) -> Clerk {
    guard case .text(let target)? = request.parameters["target"] else { return rootsClerk }
    return try clerk(of: target, pointer: "/params/target")
  }

  /// Whoever wants something of the device does not wait for what a target does.
  private func survey(
    _ request: JobRequest, _ work: any QueuedWork, isPlanned: Bool
  ) async throws(ServiceError) -> any QueuedWork {
    if let place = work.ownPlace {
      defer { targets.dismissClerk(of: place) }
      return try await targets.clerk(of: place).run { () throws(ServiceError) in
        try work.surveyed(self, isPlanned: isPlanned)
      }
    }
    guard request.parameters["target"] != nil else { return work }
    return try await clerk(of: request).run { () throws(ServiceError) in
      try work.surveyed(self, isPlanned: isPlanned)
    }
  }

  private static func require(
    _ request: JobRequest, of controller: DeviceController
  ) throws(ServiceError) {
    guard let record = controller.now.record else { return }
    try require(request.ifRevision, is: record.revision)
  }

  func add(
    _ request: JobRequest, keeping keeper: AnswerKeeper<JobInfo>?
  ) throws(ServiceError) -> JobInfo {
    try add(request, jobs.registry.work(request), keeping: keeper)
  }

  private func add(
    _ request: JobRequest, _ work: any QueuedWork, keeping keeper: AnswerKeeper<JobInfo>?
  ) throws(ServiceError) -> JobInfo {
    let parameters = try work.pinned(self)
    for (index, id) in request.after.enumerated() where try job(id) == nil {
      throw ServiceError(
        .dependencyMissing, "there is no job \(id.prefix(80))",
        pointer: ServiceError.pointer(["after", String(index)]))
    }
    try requireSpace(for: request, parameters)
    let job = JobRecord(
      id: ULID.make(), type: request.type, device: request.device ?? work.newDevice,
      parameters: parameters,
      phases: jobs.phases(of: request.type), priority: request.priority, after: request.after,
      limits: request.limits, notBefore: request.notBefore, retry: request.retry,
      dedupeKey: request.dedupeKey,
      labels: request.labels, actor: Requester.name, createdAt: wallClockSeconds())
    let saved = try jobs.add(job) { (saved, transaction) throws(ServiceError) in
      var info = JobInfo(record: saved)
      info.isKnown = saved.id != job.id
      info.isResumable = jobs.isResumable(saved)
      try keeper?.keep(info, in: transaction)
    }
    var info = info(of: saved)
    info.isKnown = saved.id != job.id
    return info
  }

  /// What a job would do, without making one.
  package func planJob(_ request: JobRequest) async throws(ServiceError) -> JobPlan {
    try requireServing()
    let work = try jobs.registry.work(request)
    guard let device = request.device else {
      return try await clerk(of: request).run { () throws(ServiceError) in
        try self.plan(request, work)
      }
    }
    let controller = try controller(device)
    let surveyed = try await survey(request, work, isPlanned: true)
    return try await controller.run { () throws(ServiceError) in
      try Service.require(request, of: controller)
      return try self.plan(request, surveyed)
    }
  }

  private func plan(
    _ request: JobRequest, _ work: any QueuedWork
  ) throws(ServiceError) -> JobPlan {
    var plan = try work.plan(self)
    var limits = [request.limits, jobs.state.withLock { $0.settings.limits }]
    if case .text(let name)? = request.parameters["target"], let entry = targets.entry(name) {
      limits.append(entry.target.limits)
    }
    plan.estimatedSeconds = Service.seconds(for: plan, limits)
    if let free = plan.freeBytes, free < plan.leastBytes {
      plan.blockers.append(
        JobBlocker(
          kind: .space, id: nil,
          detail: "\(plan.leastBytes) bytes are needed, and \(free) are free"))
    }
    if let device = request.device, let holder = jobs.holder(of: device) {
      plan.blockers.append(
        JobBlocker(kind: .job, id: holder.id, detail: "it has the device \(device)"))
    }
    return plan
  }

  /// At the tightest of the limits, begun seconds counted whole.
  private static func seconds(for plan: JobPlan, _ limits: [JobLimits]) -> UInt64? {
    func seconds(_ count: UInt64, _ rates: [UInt64]) -> UInt64? {
      rates.filter { $0 > 0 }.min().map { count / $0 + (count % $0 == 0 ? 0 : 1) }
    }
    return [
      seconds(plan.bytes, limits.map(\.bytesPerSecond)),
      seconds(plan.clusters, limits.map(\.operationsPerSecond)),
    ].compactMap { $0 }.max()
  }

  // MARK: Looking

  package func jobs(
    before: String?, limit: Int, _ filter: JobFilter
  ) async throws(ServiceError) -> Page<JobInfo> {
    try await clerk.run { () throws(ServiceError) in
      let revision = self.store.shownRevision
      let found = try self.store.read { transaction throws(ServiceError) in
        try transaction.jobs(before: before, limit: limit + 1, filter)
      }
      let items = found.prefix(limit).map(self.info)
      return Page(
        items: items, next: found.count > limit ? items.last?.record.id : nil,
        revision: revision)
    }
  }

  package func job(_ id: String) async throws(ServiceError) -> JobInfo {
    try await clerk.run { () throws(ServiceError) in self.info(of: try self.existing(id)) }
  }

  func existing(_ id: String) throws(ServiceError) -> JobRecord {
    guard let job = try job(id) else {
      throw ServiceError(.jobNotFound, "there is no job \(id.prefix(80))", errno: "ENOENT")
    }
    return job
  }

  private func job(_ id: String) throws(ServiceError) -> JobRecord? {
    if let job = jobs.state.withLock({ $0.jobs[id] }) { return job }
    return try store.read { transaction throws(ServiceError) in try transaction.job(id) }
  }

  func info(of record: JobRecord) -> JobInfo {
    var info = JobInfo(record: record)
    info.isResumable = jobs.isResumable(record)
    let (control, waiting) = jobs.state.withLock {
      ($0.controls[record.id], $0.waitingFor[record.id])
    }
    if record.state == .queued { info.waitingFor = waiting ?? [] }
    info.isCancellable = !record.state.isFinal
    guard record.state.isActive, let now = control?.now else { return info }
    info.record.progress = now.progress
    info.waitingFor = now.blockers
    info.isCancellable = !now.isCommitted
    info.bytesPerSecond = now.bytesPerSecond
    let left = now.progress.totalBytes - min(now.progress.totalBytes, now.progress.doneBytes)
    if let rate = now.bytesPerSecond, rate > 0 { info.secondsLeft = left / rate }
    info.isStalled =
      record.state == .running
      && monotonicNanoseconds() - now.lastProgress > JobControl.stallNanoseconds
    return info
  }

  package func jobLog(
    _ id: String, after: UInt64, limit: Int
  ) async throws(ServiceError) -> [JobLogLine] {
    try await clerk.run { () throws(ServiceError) in
      _ = try self.existing(id)
      return try self.store.read { transaction throws(ServiceError) in
        try transaction.log(of: id, after: after, limit: limit)
      }
    }
  }

  // MARK: Changing

  package func changeJob(
    _ id: String, _ change: JobChange, ifRevision: UInt64?
  ) async throws(ServiceError) -> JobInfo {
    try await altering(id, ifRevision: ifRevision) { (job) throws(ServiceError) in
      var wanted = job
      wanted.isPaused = change.isPaused ?? job.isPaused
      wanted.priority = change.priority ?? job.priority
      wanted.limits = change.limits.applied(to: job.limits)
      if !change.parameters.isEmpty {
        let type = try self.jobs.registry.type(job.type)
        for name in change.parameters.keys.sorted() where !type.changeable.contains(name) {
          let isKnown = self.jobs.registry.changeable.contains(name)
          throw ServiceError(
            isKnown ? .valueImpossible : ServiceError.Code(rawValue: "unknown-field"),
            "\(name): no such parameter of the type \(job.type) can be changed",
            pointer: ServiceError.pointer(["params", name]))
        }
        wanted.parameters.merge(change.parameters) { $1 }
        _ = try type.make(wanted.parameters, device: job.device)
      }
      if wanted != job {
        try self.jobs.update(id) { job in
          job.parameters = wanted.parameters
          job.isPaused = wanted.isPaused
          job.priority = wanted.priority
          job.limits = wanted.limits
        }
      }
      let control = self.jobs.state.withLock { $0.controls[id] }
      control?.limit(wanted.limits)
      control?.change(wanted.parameters)
      control?.pause(wanted.isPaused || self.jobs.state.withLock { $0.settings.isPaused })
    }
  }

  /// Asks a job to end; it leaves a valid chain. Behind its commit point it is finished instead.
  package func cancelJob(_ id: String, ifRevision: UInt64?) async throws(ServiceError) -> JobInfo {
    try await altering(id, ifRevision: ifRevision) { (job) throws(ServiceError) in
      guard job.state != .cancelling else { return }
      guard job.state != .queued || !job.isCommitted || !self.jobs.endsWithoutDisk(job.type) else {
        throw ServiceError(
          .jobUncancellable,
          "the job \(id) has handed its disk over, and goes on when it is its turn")
      }
      // The state first: when the work has heard of it, it ends the job. It may have begun since the
      // job was looked at: only what still waits is over at once.
      let (wasQueued, now) = try self.jobs.cancel(id)
      guard !now.state.isFinal else { return }
      // It has run before: what that has left goes first.
      if wasQueued { return self.jobs.discard(id, self) }
      _ = self.jobs.state.withLock { $0.controls[id] }?.cancel()
    }
  }

  /// Tries a job anew that has failed or was cancelled.
  package func retryJob(_ id: String, ifRevision: UInt64?) async throws(ServiceError) -> JobInfo {
    try requireServing()
    return try await clerk.run { () throws(ServiceError) in
      var job = try self.existing(id)
      try Service.require(ifRevision, is: job.revision)
      guard job.state == .failed || job.state == .cancelled else {
        throw ServiceError(.jobNotFailed, "the job \(id) is \(job.state.rawValue)")
      }
      job.beginAnew()
      job.isPaused = false
      // What is done from now on is done for whoever has asked for it.
      job.actor = Requester.name
      return self.info(of: try self.jobs.add(job) { _, _ throws(ServiceError) in })
    }
  }

  /// Forgets a job that is over.
  package func removeJob(_ id: String, ifRevision: UInt64?) async throws(ServiceError) {
    try requireServing()
    try await clerk.run { () throws(ServiceError) in
      let job = try self.existing(id)
      try Service.require(ifRevision, is: job.revision)
      guard job.state.isFinal else {
        throw ServiceError(.jobActive, "the job \(id) is \(job.state.rawValue)")
      }
      if let successor = self.jobs.successor(of: id) {
        throw ServiceError(
          .jobActive, "the job \(successor.id) waits for the success of \(id)",
          holder: ServiceError.Holder(kind: "job", id: successor.id))
      }
      try self.store.write { transaction throws(ServiceError) in try transaction.removeJob(id) }
    }
  }

  private func altering(
    _ id: String, ifRevision: UInt64?,
    _ body: @Sendable (JobRecord) throws(ServiceError) -> Void
  ) async throws(ServiceError) -> JobInfo {
    try requireServing()
    return try await clerk.run { () throws(ServiceError) in
      let job = try self.existing(id)
      try Service.require(ifRevision, is: job.revision)
      guard !job.state.isFinal else {
        throw ServiceError(.jobFinished, "the job \(id) is \(job.state.rawValue)")
      }
      try body(job)
      self.jobs.lookAgain()
      return self.info(of: try self.existing(id))
    }
  }

  // MARK: The queue

  package func queue() async -> QueueInfo {
    let (settings, records) = jobs.state.withLock { ($0.settings, Array($0.jobs.values)) }
    let queued = records.filter { $0.state == .queued }
    return QueueInfo(
      settings: settings, running: records.filter(\.state.isActive).count, queued: queued.count,
      paused: records.filter(\.isPaused).count, oldestQueuedAt: queued.map(\.createdAt).min(),
      revision: store.lastRevision)
  }

  /// Changes what holds for all jobs. A paused queue begins none, and pauses those that run.
  package func changeQueue(_ change: QueueChange) async throws(ServiceError) -> QueueInfo {
    try requireServing()
    try await clerk.run { () throws(ServiceError) in
      var wanted = self.jobs.state.withLock { $0.settings }
      wanted.isPaused = change.isPaused ?? wanted.isPaused
      wanted.totalSlots = change.totalSlots ?? wanted.totalSlots
      wanted.slotsPerFilesystem = change.slotsPerFilesystem ?? wanted.slotsPerFilesystem
      wanted.limits = change.limits.applied(to: wanted.limits)
      let settings = wanted
      try self.store.write { transaction throws(ServiceError) in
        _ = try transaction.nextRevision()
        try transaction.save(settings)
      }
      let running = self.jobs.state.update { state -> [(JobControl, Bool)] in
        state.settings = settings
        state.changes += 1
        return state.controls.values.map { ($0, state.jobs[$0.id]?.isPaused ?? false) }
      }
      for (control, isPaused) in running { control.pause(isPaused || settings.isPaused) }
      self.jobs.throttle.withLock {
        $0.change(settings.limits, now: monotonicNanoseconds())
      }
    }
    tellChanged("", [])
    return await queue()
  }

  // MARK: Devices and their jobs

  /// - Throws: `device-busy` with the job that has the device.
  func requireNoJob(on device: String, but own: String? = nil) throws(ServiceError) {
    guard let job = jobs.holder(of: device), job.id != own else { return }
    throw ServiceError(
      .deviceBusy, "\(device) is held by the job \(job.id) (\(job.type))",
      cause: "one change of a chain at a time",
      remedy: "wait (Prefer: wait=30), or cancel the job", errno: "EBUSY",
      holder: ServiceError.Holder(kind: "job", id: job.id))
  }

  /// The file system of a device, and why no job can have it now.
  func readiness(of device: String) -> (filesystem: UInt64?, problem: String?) {
    guard let controller = state.withLock({ $0.devices[device] }),
      case .attached(let disk) = controller.now.phase
    else { return (nil, "\(device) is not attached") }
    if let failure = disk.failure { return (disk.filesystem, failure) }
    if let holder = controller.now.maintenance?.holder {
      return (disk.filesystem, "\(device) is held by \(holder.words)")
    }
    // A job that had begun would keep the disk from being detached, and the check from being given up.
    guard disk.isChecked else {
      return (disk.filesystem, "the index of \(device) is being checked")
    }
    return (disk.filesystem, disk.isSuspended ? "\(device) is suspended" : nil)
  }
}

/// Names that sort by the time at which they were made (ULID): 48 bits of milliseconds, 80 of chance.
enum ULID {
  private static let digits = Array("0123456789ABCDEFGHJKMNPQRSTVWXYZ")

  static func make() -> String {
    let milliseconds = UInt64(max(0, wallClockSeconds() * 1_000))
    var text = ""
    for index in (0..<10).reversed() {
      text.append(digits[Int(milliseconds >> UInt64(5 * index) & 31)])
    }
    for _ in 0..<16 { text.append(digits[Int.random(in: 0..<32)]) }
    return text
  }
}
