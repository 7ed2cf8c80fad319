internal import Logging
internal import PloopIO

// Jobs whose device goes, or is about to be suspended.

extension JobEngine {
  /// Has the job of a device end at its next step, and waits for it; it waits for its device then.
  /// None begins until ``admit(device:)``.
  func interrupt(device: String, until deadline: Deadline) {
    let control = state.withLock { state in
      state.leaving.insert(device)
      // One that is just being begun is not written down as running yet.
      return state.controls.values.first { state.jobs[$0.id]?.device == device }
    }
    guard let control else { return }
    control.interrupt()
    _ = state.wait(until: deadline) { $0.controls[control.id] !== control ? true : nil }
  }

  /// The disk of a device is about to be suspended: its job is between two steps when this returns, until
  /// ``admit(device:)``, or has been interrupted if it cannot wait there. None begins meanwhile.
  func rest(device: String, until deadline: Deadline) {
    let (control, job) = state.withLock { state in
      state.leaving.insert(device)
      let control = state.controls.values.first { state.jobs[$0.id]?.device == device }
      return (control, control.flatMap { state.jobs[$0.id] })
    }
    guard let control, let job, (try? registry.type(job.type).waitsForResume) == true else {
      return interrupt(device: device, until: deadline)
    }
    control.hold(true)
    while !deadline.hasPassed {
      let (seen, isThere) = state.withLock { ($0.changes, $0.controls[control.id] === control) }
      if !isThere || control.now.isAtRest { return }
      _ = state.wait(until: deadline) { $0.changes == seen ? nil : true }
    }
    interrupt(device: device, until: deadline)
  }

  /// Jobs of a device may begin, and go on.
  func admit(device: String) {
    let control = state.update { state -> JobControl? in
      state.leaving.remove(device)
      state.changes += 1
      return state.controls.values.first { state.jobs[$0.id]?.device == device }
    }
    control?.hold(false)
  }

  // MARK: Devices of a fleet

  /// Takes up the jobs of a device that another node has had, as those of an earlier life.
  func adopt(_ jobs: [JobRecord]) {
    let known = Set(jobs.map(\.id)).union(open.map(\.id))
    let adopted = jobs.filter { !isOpen($0.id) && !$0.state.isFinal }.map { job in
      var job = job
      // Those that are not there have succeeded where they were: their failure would have been this one's.
      job.after.removeAll { !known.contains($0) }
      if job.state.isActive {
        job.warn(JobRecord.interruption)
        job.comeBack()
      }
      return job
    }
    guard !adopted.isEmpty else { return }
    do throws(ServiceError) {
      let saved = try store.write { transaction throws(ServiceError) in
        var saved: [JobRecord] = []
        for var job in adopted {
          job.revision = try transaction.nextRevision()
          try transaction.save(job)
          try transaction.note(.jobState, job.id, device: job.device, at: job.revision)
          saved.append(job)
        }
        return saved
      } show: { saved in
        // All at once: none is found without those that it comes after.
        state.update { state in
          for job in saved where !job.state.isFinal { state.jobs[job.id] = job }
          state.changes += 1
        }
      }
      saved.map(\.id).forEach(changed)
    } catch {
      log.error(
        "jobs of another node cannot be taken up", metadata: ["reason": "\(error.detail)"])
    }
  }

  /// Forgets the jobs of a device that is another node's: they go on there. None of them runs any more.
  func dismiss(device: String) {
    let jobs = state.withLock { state in
      state.jobs.values.filter { $0.device == device && state.controls[$0.id] == nil }.map(\.id)
    }
    guard !jobs.isEmpty else { return }
    do throws(ServiceError) {
      try store.write { transaction throws(ServiceError) in
        for id in jobs { try transaction.removeJob(id) }
      } show: {
        state.update { state in
          for id in jobs { state.jobs[id] = nil }
          state.changes += 1
        }
      }
      jobs.forEach(changed)
    } catch {
      log.error(
        "jobs of a device that is another node's cannot be forgotten",
        metadata: ["device": "\(device)", "reason": "\(error.detail)"])
    }
  }

  /// Jobs that are not over.
  var open: [JobRecord] { state.withLock { Array($0.jobs.values) } }

  /// Whether a job is known, and not over.
  func isOpen(_ id: String) -> Bool { state.withLock { $0.jobs[id] != nil } }

  /// What a job waits for that is not over.
  func obstacles(of id: String) -> [JobBlocker] {
    state.withLock { $0.controls[id]?.now.blockers ?? $0.waitingFor[id] ?? [] }
  }
}
