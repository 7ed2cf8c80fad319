/// A value of a job's parameters or result. What it is called outside is for whoever shows it.
package enum JobValue: Codable, Sendable, Equatable {
  case text(String)
  case number(UInt64)
  case flag(Bool)
  case list([JobValue])
  case object([String: JobValue])
}

package enum JobState: String, Codable, Sendable, CaseIterable {
  case queued, running, paused, cancelling, succeeded, failed, cancelled

  /// Over: such a job is never changed again, unless it is tried anew.
  package var isFinal: Bool {
    switch self {
    case .succeeded, .failed, .cancelled: true
    case .queued, .running, .paused, .cancelling: false
    }
  }

  /// Whether it has its device.
  var isActive: Bool { !isFinal && self != .queued }
}

/// How far a job is; all of it is known before the first copy.
package struct JobProgress: Codable, Sendable, Equatable {
  package var doneClusters: UInt64 = 0
  package var totalClusters: UInt64 = 0
  package var doneBytes: UInt64 = 0
  package var totalBytes: UInt64 = 0
  /// Seconds since 1970; nil before the first step.
  package var lastProgressAt: Double?

  package init() {}
}

package struct JobLimits: Codable, Sendable, Equatable {
  /// Bytes copied or read in a second; 0 is no limit.
  package var bytesPerSecond: UInt64 = 0
  /// Clusters copied or read in a second; 0 is no limit.
  package var operationsPerSecond: UInt64 = 0

  package init() {}

  /// Jobs that were written down by a service that did not know of operations have no limit of them.
  package init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    bytesPerSecond = try values.decodeIfPresent(UInt64.self, forKey: .bytesPerSecond) ?? 0
    operationsPerSecond =
      try values.decodeIfPresent(UInt64.self, forKey: .operationsPerSecond) ?? 0
  }
}

/// What PATCH may change of limits; nil leaves one as it is.
package struct JobLimitsChange: Sendable, Equatable {
  package var bytesPerSecond: UInt64?
  package var operationsPerSecond: UInt64?

  package init() {}

  package func applied(to limits: JobLimits) -> JobLimits {
    var limits = limits
    limits.bytesPerSecond = bytesPerSecond ?? limits.bytesPerSecond
    limits.operationsPerSecond = operationsPerSecond ?? limits.operationsPerSecond
    return limits
  }
}

/// How often a job is tried that fails for a reason which may pass.
package struct JobRetry: Codable, Sendable, Equatable {
  /// All attempts, the first included.
  package var maxAttempts = 1
  /// From one attempt's failure to the next one's beginning.
  package var backoffSeconds = 60

  package init() {}
}

/// Why a job did not succeed.
package struct JobFailure: Codable, Sendable, Equatable {
  package var code: String
  package var detail: String
  package var cause: String?
  package var remedy: String?
  package var errno: String?

  init(_ error: ServiceError) {
    code = error.code.rawValue
    detail = error.detail
    cause = error.cause
    remedy = error.remedy
    errno = error.errno
  }
}

extension ServiceError {
  /// What a job has failed of, for those who wait for its end.
  package init(_ failure: JobFailure) {
    self.init(
      Code(rawValue: failure.code), failure.detail, cause: failure.cause, remedy: failure.remedy,
      errno: failure.errno)
  }
}

/// Long work, as it is written down: it survives the process, and says what has become of it.
package struct JobRecord: Codable, Sendable, Equatable {
  /// Sorts by the time at which it was made.
  package var id: String
  package var type: String
  /// That it works on, or that it makes; nil for work on no device.
  package var device: String?
  package var parameters: [String: JobValue]
  package var state = JobState.queued
  /// Nil until it runs for the first time.
  package var phase: String?
  package var phases: [String]
  package var progress = JobProgress()
  /// 0 to 100; the highest comes first.
  package var priority: Int
  /// Jobs that have to succeed first.
  package var after: [String]
  package var limits: JobLimits
  /// Seconds since 1970; not begun before.
  package var notBefore: Double?
  /// Nil where the first failure is the last.
  package var retry: JobRetry?
  package var dedupeKey: String?
  package var labels: [String: String]
  /// Who has asked for it, as ``Requester`` has it; nil where nobody knows.
  package var actor: String?
  /// Behind its commit point it is finished, also after a crash, whatever anybody wants.
  package var isCommitted = false
  /// What lies where it makes something is its own, whatever else says so; nil where that was never known.
  var ownsWhatItMakes: Bool?
  /// Whether the other side knows that a disk is its own now; nil where there is none, or where it may not know.
  var hasTold: Bool?
  /// What somebody wants, whatever it is doing now.
  package var isPaused = false
  package var attempt = 1
  /// How often the service ended while it ran.
  package var interruptions = 0
  package var result: [String: JobValue]?
  /// Of the last attempt that failed.
  package var error: JobFailure?
  /// What people should know of how it went, newest last; nil where there was nothing.
  package var warnings: [String]?
  /// Seconds since 1970.
  package var createdAt: Double
  package var startedAt: Double?
  package var finishedAt: Double?
  package var revision: UInt64 = 0

  /// The target that it works with, by name, or the place of its own, whatever else it does.
  var target: String? {
    if let own = BackupDestination(self) { return own.name }
    var members = parameters
    // What is copied, of a job that makes a disk.
    if case .object(let from)? = parameters["from"] { members = from }
    guard case .text(let name)? = members["target"] else { return nil }
    return name
  }
}

/// What a job waits for.
package struct JobBlocker: Sendable, Equatable {
  package enum Kind: String, Sendable {
    case job, device, slot, filesystem, target, time, space
    case queuePaused = "queue_paused"
  }

  package var kind: Kind
  package var id: String?
  package var detail: String
}

/// A job as it is shown: what is written down, and what is known only while it runs.
package struct JobInfo: Sendable {
  package var record: JobRecord
  package var waitingFor: [JobBlocker] = []
  /// Over the last seconds; nil when it does not run.
  package var bytesPerSecond: UInt64?
  package var secondsLeft: UInt64?
  /// It runs, and nothing has moved for two minutes.
  package var isStalled = false
  /// It was there already when it was asked for.
  package var isKnown = false
  /// Whether a cancel can still stop it.
  package var isCancellable = true
  /// Whether it goes on where it was after it was interrupted, or begins anew.
  package var isResumable = true

  package init(record: JobRecord) { self.record = record }
}

package struct JobLogLine: Sendable, Equatable {
  package var number: UInt64
  package var at: Double
  package var level: String
  package var message: String
}

/// The body of a request for a job.
package struct JobRequest: Sendable {
  package var type: String
  /// Nil for work that has none, or that makes one.
  package var device: String?
  package var parameters: [String: JobValue] = [:]
  package var priority = 50
  package var after: [String] = []
  package var limits = JobLimits()
  package var notBefore: Double?
  package var retry: JobRetry?
  package var dedupeKey: String?
  package var labels: [String: String] = [:]
  /// Of the device, if it has to be the one that the caller has seen.
  package var ifRevision: UInt64?

  package init(type: String, device: String? = nil) {
    self.type = type
    self.device = device
  }
}

/// What PATCH may change of a job; nil leaves it as it is.
package struct JobChange: Sendable {
  package var isPaused: Bool?
  package var priority: Int?
  package var limits = JobLimitsChange()
  /// Those that its type lets change while it runs; the others stay.
  package var parameters: [String: JobValue] = [:]

  package init() {}
}

/// What a job would do.
package struct JobPlan: Sendable {
  package var clusters: UInt64
  package var bytes: UInt64
  /// What it takes at most.
  package var requiredBytes: UInt64
  /// With less it is refused.
  package var leastBytes: UInt64 = 0
  /// Where it takes that.
  package var freeBytes: UInt64?
  /// As long as it takes at the limits that hold; nil where nothing limits it.
  package var estimatedSeconds: UInt64?
  package var blockers: [JobBlocker] = []
  /// Of a merge: forward or backward.
  package var direction: String?
  /// Of a backup: full or incremental.
  package var mode: String?
  /// Why that direction, or why all is copied.
  package var reason: String?
  /// Files that would be removed, and what they take.
  package var removes: [(path: String, diskBytes: UInt64)]?
  /// What else is known ahead, by the type of job.
  package var details: [String: JobValue]?
}

/// What holds for all jobs.
package struct QueueSettings: Codable, Sendable, Equatable {
  package var isPaused = false
  /// Jobs that run at the same time: all together, and on one file system.
  package var totalSlots = 4
  package var slotsPerFilesystem = 2
  /// For all of them together.
  package var limits = JobLimits()

  package init() {}
}

/// What PATCH may change of the queue; nil leaves it as it is.
package struct QueueChange: Sendable {
  package var isPaused: Bool?
  package var totalSlots: Int?
  package var slotsPerFilesystem: Int?
  package var limits = JobLimitsChange()

  package init() {}
}

package struct QueueInfo: Sendable {
  package var settings: QueueSettings
  package var running: Int
  package var queued: Int
  package var paused: Int
  package var oldestQueuedAt: Double?
  package var revision: UInt64
}
