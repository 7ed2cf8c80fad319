/// Why the service refused: a stable code, what happened to what, and what to do about it.
package struct ServiceError: Error, Sendable {
  /// The slugs of `/problems/…`. A code never changes its meaning.
  package struct Code: RawRepresentable, Hashable, Sendable {
    package let rawValue: String
    package init(rawValue: String) { self.rawValue = rawValue }
  }

  /// Who is in the way.
  package struct Holder: Sendable {
    package var kind: String
    package var id: String

    package init(kind: String, id: String) {
      self.kind = kind
      self.id = id
    }
  }

  /// More facts for machines, by member name.
  package enum Fact: Sendable {
    case number(UInt64)
    case text(String)
    case clients([ExportInfo.Client])
    case numbers([UInt64])
    case texts([String])
  }

  package var code: Code
  package var detail: String
  package var cause: String?
  package var remedy: String?
  /// The name of the error number that the kernel's driver gives in this case.
  package var errno: String?
  package var holder: Holder?
  /// JSON pointer to the member of the request that is wrong.
  package var pointer: String?
  package var facts: [String: Fact]

  package init(
    _ code: Code, _ detail: String, cause: String? = nil, remedy: String? = nil,
    errno: String? = nil, holder: Holder? = nil, pointer: String? = nil,
    facts: [String: Fact] = [:]
  ) {
    self.code = code
    self.detail = detail
    self.cause = cause
    self.remedy = remedy
    self.errno = errno
    self.holder = holder
    self.pointer = pointer
    self.facts = facts
  }
}

extension ServiceError {
  /// A place in the request, as RFC 6901 writes it: member names and indices on the way to it.
  package static func pointer(_ path: [String]) -> String {
    path.map { "/" + $0.replacing("~", with: "~0").replacing("/", with: "~1") }.joined()
  }
}

extension ServiceError.Code {
  private init(_ slug: StaticString) { self.init(rawValue: "\(slug)") }

  package static let invalidValue = Self("invalid-value")
  package static let valueImpossible = Self("value-impossible")
  package static let pathOutsideRoot = Self("path-outside-root")
  package static let deviceNotFound = Self("device-not-found")
  package static let deltaDamaged = Self("delta-damaged")
  package static let deltaNotFound = Self("delta-not-found")
  package static let exportNotFound = Self("export-not-found")
  package static let imageNotFound = Self("image-not-found")
  package static let deviceExists = Self("device-exists")
  package static let exportExists = Self("export-exists")
  package static let imageExists = Self("image-exists")
  package static let deviceBusy = Self("device-busy")
  package static let deviceInUse = Self("device-in-use")
  package static let exportInUse = Self("export-in-use")
  package static let writerExists = Self("writer-exists")
  package static let deviceFailed = Self("device-failed")
  package static let deviceReadOnly = Self("device-read-only")
  package static let snapshotNotFound = Self("snapshot-not-found")
  package static let snapshotExists = Self("snapshot-exists")
  package static let snapshotNotPossible = Self("snapshot-not-possible")
  package static let checkpointNotFound = Self("checkpoint-not-found")
  package static let checkpointExists = Self("checkpoint-exists")
  package static let checkpointInUse = Self("checkpoint-in-use")
  package static let checkpointUnsupported = Self("checkpoint-unsupported")
  package static let descriptorExists = Self("descriptor-exists")
  package static let imageInvalid = Self("image-invalid")
  package static let snapshotProtected = Self("snapshot-protected")
  package static let snapshotHasBranches = Self("snapshot-has-branches")
  package static let tooManyJobs = Self("too-many-jobs")
  package static let jobNotFound = Self("job-not-found")
  package static let jobActive = Self("job-active")
  package static let jobFinished = Self("job-finished")
  package static let jobNotFailed = Self("job-not-failed")
  package static let jobUncancellable = Self("job-uncancellable")
  package static let dependencyMissing = Self("dependency-missing")
  package static let dependencyFailed = Self("dependency-failed")
  package static let nothingToMerge = Self("nothing-to-merge")
  package static let mergeDirectionInvalid = Self("merge-direction-invalid")
  package static let tooManyDeltas = Self("too-many-deltas")
  package static let tooManyDevices = Self("too-many-devices")
  package static let rawNotBase = Self("raw-not-base")
  package static let geometryMismatch = Self("geometry-mismatch")
  package static let imageUnclean = Self("image-unclean")
  package static let imageInUse = Self("image-in-use")
  package static let imageHasChildren = Self("image-has-children")
  package static let imageNotOrphaned = Self("image-not-orphaned")
  package static let imageUnreadable = Self("image-unreadable")
  package static let imageCorrupt = Self("image-corrupt")
  package static let shrinkNotSupported = Self("shrink-not-supported")
  package static let sizeMisaligned = Self("size-misaligned")
  package static let sizeTooLarge = Self("size-too-large")
  package static let imageFull = Self("image-full")
  package static let insufficientSpace = Self("insufficient-space")
  package static let idempotencyKeyInUse = Self("idempotency-key-in-use")
  package static let idempotencyKeyReused = Self("idempotency-key-reused")
  package static let tooManyWatchers = Self("too-many-watchers")
  package static let eventsExpired = Self("events-expired")
  package static let preconditionFailed = Self("precondition-failed")
  package static let ioError = Self("io-error")
  package static let notReady = Self("not-ready")
  package static let shuttingDown = Self("shutting-down")
  package static let resumeProhibited = Self("resume-prohibited")
  package static let resumeNotProhibited = Self("resume-not-prohibited")
  package static let notSuspended = Self("not-suspended")
  package static let nothingBelowTop = Self("nothing-below-top")
  package static let rawNotAllowed = Self("raw-not-allowed")
  package static let trackingActive = Self("tracking-active")
  package static let trackingNotActive = Self("tracking-not-active")
  package static let pushBackupActive = Self("push-backup-active")
  package static let pushBackupNotActive = Self("push-backup-not-active")
  package static let pushBackupUUIDMismatch = Self("push-backup-uuid-mismatch")
  package static let pushBackupIncomplete = Self("push-backup-incomplete")
  package static let pushBackupExpired = Self("push-backup-expired")
  package static let clusterOutOfRange = Self("cluster-out-of-range")
  package static let clusterReleased = Self("cluster-released")
  package static let peerRefused = Self("peer-refused")
  package static let targetNotFound = Self("target-not-found")
  package static let targetExists = Self("target-exists")
  package static let targetInUse = Self("target-in-use")
  package static let targetNotEmpty = Self("target-not-empty")
  package static let targetUnreachable = Self("target-unreachable")
  package static let targetUnsuitable = Self("target-unsuitable")
  package static let backupNotFound = Self("backup-not-found")
  package static let backupCorrupt = Self("backup-corrupt")
  package static let backupIncomplete = Self("backup-incomplete")
  package static let backupMismatch = Self("backup-mismatch")
  package static let backupHasDependents = Self("backup-has-dependents")
  package static let incrementNotPossible = Self("increment-not-possible")
  package static let repairPlanOutdated = Self("repair-plan-outdated")
  package static let rangeInvalid = Self("range-invalid")
  package static let drainTimeout = Self("drain-timeout")
  package static let deviceOwnedElsewhere = Self("device-owned-elsewhere")
  package static let fleetUnreachable = Self("fleet-unreachable")
  package static let fleetNotConfigured = Self("fleet-not-configured")
  package static let nodeNotFound = Self("node-not-found")
  package static let nodeUnsuitable = Self("node-unsuitable")
  package static let takeoverUndecided = Self("takeover-undecided")
}
