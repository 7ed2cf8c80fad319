internal import PloopControl
internal import PloopIO

// Requests that would rather wait than hear that something goes on (RFC 7240, `Prefer: wait=30`).

extension Call {
  /// Seconds for which the caller wants to wait. What a header says that nobody understands is
  /// ignored, as it is to be.
  var patienceSeconds: Int? {
    for value in request.values(of: "prefer") {
      for preference in value.split(whereSeparator: { $0 == "," || $0 == ";" }) {
        let parts = preference.filter { $0 != " " }.split(separator: "=")
        guard parts.count == 2, parts[0].lowercased() == "wait",
          let seconds = Int(parts[1].filter { $0 != "\"" }), seconds >= 0
        else { continue }
        return min(seconds, longestPatience)
      }
    }
    return nil
  }

  /// Waits for a job's end, if that is preferred.
  ///
  /// - Parameter seconds: for how long, where the caller has said nothing.
  /// - Returns: the job as it is then, over or not.
  func awaiting(_ job: JobInfo, orFor seconds: Int = 0) async throws(Problem) -> JobInfo {
    var job = job
    let deadline = Deadline.after(
      seconds: patienceSeconds ?? min(seconds, longestPatience))
    while !job.record.state.isFinal {
      let changes = service.changes
      job = try await converting { [job] () async throws(ServiceError) in
        try await service.job(job.record.id)
      }
      let left = deadline.millisecondsLeft
      guard !job.record.state.isFinal, left > 0 else { break }
      switch try await change(
        of: .job(job.record.id), since: changes, milliseconds: left)
      {
      case .changed, .timeout: continue
      // It was accepted, which is answer enough.
      case .closed, .full, .gone: return job
      }
    }
    return job
  }

  /// Makes a request again when what has its device is over, as long as its caller waits.
  func patiently<Result>(
    _ body: () async throws(Problem) -> Result
  ) async throws(Problem) -> Result {
    let deadline = Deadline.after(seconds: patienceSeconds ?? 0)
    while true {
      let changes = service.changes
      do throws(Problem) { return try await body() } catch {
        let left = deadline.millisecondsLeft
        guard error.error.code == .deviceBusy, left > 0 else { throw error }
        // A device that comes or goes has no holder; it is told as any change of a device.
        let holder = error.error.holder
        let topic: Topic = holder?.kind == "job" ? .job(holder?.id ?? "") : .service
        switch try await change(of: topic, since: changes, milliseconds: left) {
        case .changed, .timeout: continue
        case .closed: throw Problem("shutting-down", "the service is shutting down")
        case .full, .gone: throw error
        }
      }
    }
  }

  /// The reply that shows a job, after waiting for it if that is preferred.
  func reply(_ job: JobInfo) async throws(Problem) -> HTTPReply {
    guard let seconds = patienceSeconds else { return HTTPReply(job) }
    let job = try await awaiting(job)
    guard job.record.state.isFinal else { return HTTPReply(job) }
    return HTTPReply(200, job.json).with(revision: job.record.revision)
      .with("Location", "/v1/jobs/\(job.record.id)")
      .with("Preference-Applied", "wait=\(seconds)")
  }

  /// Whether only a plan is wanted.
  func isDryRun() throws(Problem) -> Bool {
    switch parameter("dry_run") {
    case nil, "false"?: return false
    case "true"?: return true
    default: throw Problem("invalid-value", "dry_run is true or false")
    }
  }
}

extension HTTPReply {
  /// A job that was accepted.
  init(_ job: JobInfo) {
    self.init(job.isKnown || job.record.state.isFinal ? 200 : 202, job.json)
    self = with(revision: job.record.revision).with("Location", "/v1/jobs/\(job.record.id)")
  }
}
