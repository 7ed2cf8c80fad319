internal import Logging
internal import PloopIO

// Whose turn it is, and what becomes of a job that has it.

extension JobEngine {
  func dispatch(_ service: Service) {
    let (jobs, leaving) = state.withLock { (Array($0.jobs.values), $0.leaving) }
    let entries = jobs.map { record in
      let (filesystem, problem) = service.readiness(of: record.device)
      let isLeaving = leaving.contains(record.device)
      return JobSchedule.Entry(
        record: record, filesystem: filesystem,
        deviceProblem: isLeaving ? "\(record.device) is being detached" : problem)
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
        !state.leaving.contains(record.device)
      else { return nil }
      let control = JobControl(record, queue: throttle) { [weak self] note in
        self?.take(note, id)
      }
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
      return state.update { $0.controls[id] = nil }
    }
    do throws(IOError) {
      try Thread(name: "ploopd-job", stackBytes: 1 << 20) { [self] in
        run(record, control, service)
      }.detach()
    } catch {
      end(id, .failed, error: ServiceError(error))
    }
  }

  private func run(_ record: JobRecord, _ control: JobControl, _ service: Service) {
    do throws(JobStop) {
      let work = try failing { () throws(ServiceError) in
        try self.work(record.type, record.parameters, device: record.device)
      }
      let result = try work.run(control, service)
      end(record.id, .succeeded, result: result)
    } catch {
      switch error {
      case .cancelled: end(record.id, .cancelled)
      case .interrupted: requeue(record.id)
      // Its device comes or goes, which it may do at any time.
      case .failed(let error) where error.code == .deviceBusy && error.holder == nil:
        requeue(record.id)
      case .failed(let error):
        if !tryAgain(record.id, error) { end(record.id, .failed, error: error) }
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
      case .committed: try update(id, event: false) { $0.isCommitted = true }
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

  private func end(
    _ id: String, _ final: JobState, result: [String: JobValue]? = nil, error: ServiceError? = nil
  ) {
    log.info(
      "job ended",
      metadata: [
        "job": "\(id)", "state": "\(final.rawValue)", "reason": "\(error?.detail ?? "")",
      ])
    let now = state.withLock { $0.controls[id] }?.now
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
    }
    state.update { state in
      state.jobs[id] = nil
      state.controls[id] = nil
      state.changes += 1
    }
    changed(id)
    let awaited = state.withLock { JobEngine.awaited(by: $0.jobs.values) }
    try? store.write { transaction throws(ServiceError) in
      try transaction.removeOldJobs(keeping: awaited)
    }
  }

  private func requeue(_ id: String) {
    do throws(ServiceError) { try update(id) { $0.comeBack() } } catch {
      log.error(
        "a job cannot be written down", metadata: ["job": "\(id)", "reason": "\(error.detail)"])
      // It has no thread, whether that can be written or not.
      state.withLock { $0.jobs[id]?.comeBack() }
    }
    state.update { state in
      if state.jobs[id]?.state.isFinal == true { state.jobs[id] = nil }
      state.controls[id] = nil
      state.changes += 1
    }
    changed(id)
  }
}
