internal import Logging
internal import PloopIO

// Whose turn it is, and what becomes of a job that has it.

extension JobEngine {
  func dispatch(_ service: Service) {
    guard service.fleet?.isHeld ?? true else { return }
    let (jobs, leaving) = state.withLock { (Array($0.jobs.values), $0.leaving) }
    let entries = jobs.map { record in
      var entry = JobSchedule.Entry(record: record)
      entry.targetSlots = service.target(of: record)?.jobsAtOnce
      guard let device = record.device, hasDevice(record) else { return entry }
      (entry.filesystem, entry.deviceProblem) = service.readiness(of: device)
      if endsWithoutDisk(record.type),
        record.isCommitted || service.isHandedOver(device, by: record.id)
      {
        entry.deviceProblem = nil
      }
      if leaving.contains(device) { entry.deviceProblem = "\(device) is being detached" }
      return entry
    }
    failOrphans(entries)
    let settings = state.withLock { $0.settings }
    let schedule = JobSchedule(settings: settings, now: wallClockSeconds()) { [self] id in
      ended(id)
    }
    let (start, waiting) = schedule.decide(entries)
    state.withLock { $0.waitingFor = waiting }
    for id in start { begin(id, service) }
  }

  private func ended(_ id: String) -> JobState? {
    if state.withLock({ $0.jobs[id] != nil }) { return nil }
    do throws(ServiceError) {
      let job = try store.read { transaction throws(ServiceError) in try transaction.job(id) }
      // Of one that nobody knows any more it cannot be said that it succeeded.
      return job?.state ?? .failed
    } catch { return nil }
  }

  /// A job that comes after one which did not succeed will never begin.
  private func failOrphans(_ entries: [JobSchedule.Entry]) {
    for entry in entries where entry.record.state == .queued {
      for id in entry.record.after {
        guard let state = ended(id), state != .succeeded else { continue }
        let error = ServiceError(
          .dependencyFailed, "the job \(id), which had to succeed first, is \(state.rawValue)")
        end(entry.record.id, .failed, error: error)
        break
      }
    }
  }

  private func begin(_ id: String, _ service: Service) {
    // Known before it runs: a cancel that comes in between finds whom to tell.
    let control = state.withLock { state -> JobControl? in
      guard let record = state.jobs[id], record.state == .queued, !state.isStopping,
        !state.settings.isPaused, record.device.map({ !state.leaving.contains($0) }) ?? true
      else { return nil }
      let target = record.target.flatMap { service.targets.entry($0)?.throttle }
      let control = JobControl(
        record, queue: throttle, target: target, mayGoOn: service.isOurs(record.device)
      ) { [weak self] note in self?.take(note, id) }
      state.controls[id] = control
      return control
    }
    guard let control else { return }
    let record: JobRecord
    do throws(ServiceError) {
      record = try update(id) { job in
        if job.state == .queued { job.state = .running }
        job.startedAt = job.startedAt ?? wallClockSeconds()
      }
    } catch {
      log.error(
        "a job cannot be begun", metadata: ["job": "\(id)", "reason": "\(error.detail)"])
      // Tried again in a moment, and not at once.
      return state.update { state in
        if state.controls[id] === control { state.controls[id] = nil }
      }
    }
    guard record.state == .running else {
      // Cancelled a moment ago by somebody who ends it, since it did not run.
      return state.update { state in
        if state.controls[id] === control { state.controls[id] = nil }
      }
    }
    do throws(IOError) {
      try Thread(name: "ploopd-job", stackBytes: 1 << 20) { [self] in
        // What it does to disks happens for whoever has asked for it.
        Requester.$name.withValue(record.actor) { run(record, control, service) }
      }.detach()
    } catch {
      end(id, .failed, control, error: ServiceError(error))
    }
  }

  private func run(_ record: JobRecord, _ control: JobControl, _ service: Service) {
    do throws(JobStop) {
      let work = try failing { () throws(ServiceError) in
        try self.work(record.type, record.parameters, device: record.device)
      }
      let result = try work.run(control, service)
      end(record.id, .succeeded, control, result: result)
    } catch {
      switch error {
      case .cancelled: end(record.id, .cancelled, control)
      case .interrupted: requeue(record.id, control)
      case .failed(let error) where error.isInterruption: requeue(record.id, control)
      case .failed(let error):
        if !tryAgain(record.id, control, error) {
          end(record.id, .failed, control, error: error)
        }
      }
    }
  }

  /// Writes down what a running job says of itself. What cannot be written is said in the log: the
  /// job goes on, and is begun again after a crash from what is known then.
  private func take(_ note: JobControl.Note, _ id: String) {
    do throws(ServiceError) {
      switch note {
      case .progress(let progress):
        progressed(try update(id, event: false) { $0.progress = progress })
      case .phase(let phase): try update(id) { $0.phase = phase }
      case .paused(let isPaused):
        try update(id) { job in
          if job.state != .cancelling { job.state = isPaused ? .paused : .running }
        }
      case .resting: state.update { $0.changes += 1 }
      case .committed(let isCommitted):
        try update(id, event: false) { $0.isCommitted = isCommitted }
      case .owning(let isOwn): try update(id, event: false) { $0.ownsWhatItMakes = isOwn }
      case .told(let isTold): try update(id, event: false) { $0.hasTold = isTold ? true : nil }
      case .log(let level, let message):
        if level == "warning" { try update(id) { $0.warn(message) } }
        try store.write { transaction throws(ServiceError) in
          try transaction.log(id, level, message)
        }
        changed(id)
      }
    } catch {
      log.error(
        "a job cannot be written down", metadata: ["job": "\(id)", "reason": "\(error.detail)"])
    }
  }

  /// Ends a job that does not run and was cancelled, once nothing is left of it. Where that may wait for a
  /// target, or for another service, nobody waits for it here.
  func discard(_ id: String, _ service: Service) {
    guard let job = state.withLock({ $0.jobs[id] }) else { return }
    // One that cannot be made has done nothing.
    let work = try? work(job.type, job.parameters, device: job.device)
    state.withLock { $0.discards += 1 }
    let body = { @Sendable [self] in
      work?.discard(job: id, service)
      end(id, .cancelled)
      state.update { $0.discards -= 1 }
    }
    let mayWait = job.target != nil || endsWithoutDisk(job.type)
    guard mayWait, let thread = try? Thread(name: "ploopd-job", stackBytes: 1 << 20, body)
    else { return body() }
    thread.detach()
  }

  private func end(
    _ id: String, _ final: JobState, _ control: JobControl? = nil,
    result: [String: JobValue]? = nil, error: ServiceError? = nil
  ) {
    log.info(
      "job ended",
      metadata: [
        "job": "\(id)", "state": "\(final.rawValue)", "reason": "\(error?.detail ?? "")",
      ])
    let now = control?.now
    var result = result
    if final == .succeeded, now?.isCancelled == true {
      result?["completed_before_cancel"] = .flag(true)
    }
    do throws(ServiceError) {
      try update(id) { [result] job in
        if let now { job.progress = now.progress }
        job.finish(final)
        job.result = result
        job.error = error.map(JobFailure.init)
      }
    } catch {
      log.error(
        "a job's end cannot be written down; the next start does it again",
        metadata: ["job": "\(id)", "reason": "\(error.detail)"])
      // Nobody carries it out any more.
      if error.code != .jobFinished { state.withLock { $0.jobs[id] = nil } }
    }
    leave(id, control)
    let awaited = state.withLock { JobEngine.awaited(by: $0.jobs.values) }
    try? store.write { transaction throws(ServiceError) in
      try transaction.removeOldJobs(keeping: awaited)
    }
  }

  private func requeue(_ id: String, _ control: JobControl) {
    do throws(ServiceError) { try update(id) { $0.comeBack() } } catch {
      log.error(
        "a job cannot be written down", metadata: ["job": "\(id)", "reason": "\(error.detail)"])
      // It has no thread, whether that can be written or not.
      state.withLock { state in
        state.jobs[id]?.comeBack()
        if state.jobs[id]?.state.isFinal == true { state.jobs[id] = nil }
      }
    }
    leave(id, control)
  }

  /// An attempt at a job is over. As soon as that is written down another one may begin, so what is
  /// known of the job now may be the other one's.
  func leave(_ id: String, _ control: JobControl?) {
    state.update { state in
      if let control, state.controls[id] === control { state.controls[id] = nil }
      state.changes += 1
    }
    changed(id)
  }
}
