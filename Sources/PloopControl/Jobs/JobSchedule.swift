/// Which of the jobs that wait may begin, and what the others wait for. Values only: nothing here
/// knows a thread or a clock.
struct JobSchedule {
  /// A job as far as its turn depends on it.
  struct Entry {
    var record: JobRecord
    /// The file system that it works on, where that is known.
    var filesystem: UInt64?
    /// How many jobs may work with its target at a time, if it has one.
    var targetSlots: Int?
    /// Why its device cannot be used now.
    var deviceProblem: String?
  }

  /// Waiting for so long is worth one step of priority, so that nothing waits for ever.
  static let secondsPerStep = 600.0

  let settings: QueueSettings
  /// Seconds since 1970.
  let now: Double
  /// How jobs that others come after have ended; nil for those that have not.
  let ended: (String) -> JobState?

  /// - Parameter entries: all jobs that are not over.
  /// - Returns: ids of jobs that may begin, in order, and what each of the others waits for.
  func decide(_ entries: [Entry]) -> (start: [String], waiting: [String: [JobBlocker]]) {
    var running = entries.filter(\.record.state.isActive)
    var start: [String] = []
    var waiting: [String: [JobBlocker]] = [:]
    let queued = entries.filter { $0.record.state == .queued }.sorted(by: precedes)
    for entry in queued {
      let blockers = blockers(of: entry, running)
      if blockers.isEmpty {
        start.append(entry.record.id)
        running.append(entry)
      } else {
        waiting[entry.record.id] = blockers
      }
    }
    return (start, waiting)
  }

  private func precedes(_ one: Entry, _ other: Entry) -> Bool {
    let (a, b) = (weight(one.record), weight(other.record))
    return a == b ? one.record.id < other.record.id : a > b
  }

  private func weight(_ record: JobRecord) -> Double {
    Double(record.priority) + max(0, now - record.createdAt) / JobSchedule.secondsPerStep
  }

  private func blockers(of entry: Entry, _ running: [Entry]) -> [JobBlocker] {
    let record = entry.record
    var blockers: [JobBlocker] = []
    if settings.isPaused {
      blockers.append(JobBlocker(kind: .queuePaused, id: nil, detail: "the queue is paused"))
    }
    if record.isPaused {
      blockers.append(JobBlocker(kind: .queuePaused, id: record.id, detail: "the job is paused"))
    }
    for id in record.after where ended(id) != .succeeded {
      blockers.append(JobBlocker(kind: .job, id: id, detail: "it has to succeed first"))
    }
    if let time = record.notBefore, time > now {
      blockers.append(JobBlocker(kind: .time, id: nil, detail: "it is not to begin yet"))
    }
    if let problem = entry.deviceProblem {
      blockers.append(JobBlocker(kind: .device, id: record.device, detail: problem))
    }
    if let device = record.device,
      let other = running.first(where: { $0.record.device == device })
    {
      blockers.append(
        JobBlocker(kind: .job, id: other.record.id, detail: "it has the device \(device)"))
    }
    if running.count >= settings.totalSlots {
      blockers.append(
        JobBlocker(kind: .slot, id: nil, detail: "\(running.count) jobs run; that is the limit"))
    }
    if let target = record.target, let slots = entry.targetSlots {
      let count = running.filter { $0.record.target == target }.count
      if count >= slots {
        blockers.append(
          JobBlocker(
            kind: .target, id: target, detail: "\(count) jobs work with it; that is its limit"))
      }
    }
    if let filesystem = entry.filesystem {
      let count = running.filter { $0.filesystem == filesystem }.count
      if count >= settings.slotsPerFilesystem {
        blockers.append(
          JobBlocker(
            kind: .filesystem, id: nil, detail: "\(count) jobs work on its file system already"))
      }
    }
    return blockers
  }
}
