internal import Logging
internal import PloopIO

// What has failed of something that may pass is tried again, where its request says so. When the next
// attempt begins is written down with the failure, so it holds whatever happens to the process.

extension JobEngine {
  /// Puts a job back into the queue whose request allows it another attempt.
  ///
  /// - Returns: false when this failure is the last.
  func tryAgain(_ id: String, _ control: JobControl, _ error: ServiceError) -> Bool {
    guard state.withLock({ $0.jobs[id] })?.mayTryAgain(after: error) == true else { return false }
    var warning: String?
    do throws(ServiceError) {
      try update(id) { job in
        // Somebody may have cancelled it since.
        guard job.mayTryAgain(after: error) else { return }
        job.tryAgain(after: error, now: wallClockSeconds())
        let words =
          "\(error.detail); attempt \(job.attempt) begins in \(job.retry?.backoffSeconds ?? 0) s"
        job.warn(words)
        warning = words
      }
      guard let warning else { return false }
      try store.write { transaction throws(ServiceError) in
        try transaction.log(id, "warning", warning)
      }
    } catch {
      log.error(
        "a job cannot be written down", metadata: ["job": "\(id)", "reason": "\(error.detail)"])
      // Only the line of the log may be missing.
      guard state.withLock({ $0.jobs[id] })?.state == .queued else { return false }
    }
    leave(id, control)
    return true
  }
}

extension JobRecord {
  /// Whether an attempt before this one may have done all of the work: after a crash, or a failure to
  /// write its end down.
  var hasBeenTried: Bool { interruptions > 0 || attempt > 1 }

  /// Whether what it failed of may pass, and its request wants to see.
  func mayTryAgain(after error: ServiceError) -> Bool {
    guard let retry, attempt < retry.maxAttempts, state != .cancelling else { return false }
    return error.mayPass
  }

  mutating func tryAgain(after error: ServiceError, now: Double) {
    beginAnew()
    phase = "retrying"
    self.error = JobFailure(error)
    notBefore = now + Double(retry?.backoffSeconds ?? 0)
  }

  /// The next attempt, of which nothing is known yet.
  mutating func beginAnew() {
    state = .queued
    attempt += 1
    progress = JobProgress()
    // What was committed has failed since: it can be cancelled again.
    isCommitted = false
    error = nil
    result = nil
    finishedAt = nil
  }
}

extension ServiceError {
  /// Whether the same may succeed later, with nobody doing anything about it here.
  fileprivate var mayPass: Bool {
    let passing: Set<Code> = [
      .ioError, .insufficientSpace, .drainTimeout, .imageInUse, .deviceBusy, .targetUnreachable,
    ]
    return passing.contains(code)
  }
}
