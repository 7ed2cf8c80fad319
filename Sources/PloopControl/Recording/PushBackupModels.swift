internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What is asked and answered about push backups.

package struct PushBackupRequest: Sendable {
  package enum OnDeadline: String, Sendable { case abort, wait, spill }

  package struct Spill: Sendable, Equatable {
    /// `root:relative`; nothing has that name, and nothing will.
    package var path: String
    package var limitBytes: UInt64

    package init(path: String, limitBytes: UInt64) {
      self.path = path
      self.limitBytes = limitBytes
    }
  }

  /// Made up when nil.
  package var uuid: String?
  package enum Clusters: Sendable, Equatable {
    case all
    /// One bit for each cluster, the first in the lowest bit of the first byte.
    case bitmap([UInt8])
    /// What was written since the checkpoint of this name.
    case since(String)
  }

  package var clusters = Clusters.all
  /// Begins with it, and goes if it fails.
  package var checkpoint: CheckpointRequest?
  package var onDeadline = OnDeadline.abort
  /// As long as the kernel's driver waits.
  package var deadlineSeconds = 42
  package var spill: Spill?
  package var hasExport = true

  package init() {}
}

package struct PushBackupInfo: Sendable {
  package enum State: String, Sendable {
    case active, failed
    /// Only of one that has just been stopped.
    case complete, aborted
  }

  /// Of a part that is read at a time.
  package static let mostBytes = 16 << 20

  package var uuid: String
  package var state: State
  package var reason: String?
  /// Whether only what was written since a checkpoint is copied, and if that was asked for in vain, why.
  package var isIncremental: Bool
  package var fullReason: String?
  package var clustersTotal: Int
  package var remaining: Int
  package var clusterBytes: UInt64
  package var blockedWrites: Int
  package var spilledBytes: UInt64
  package var longestWaitMilliseconds: UInt64
  package var deadlineSeconds: Int
  package var onDeadline: PushBackupRequest.OnDeadline
  package var export: String?
  /// The checkpoint that it copies from, and the one that began with it.
  package var since: String?
  package var checkpoint: String?
  /// Seconds since 1970.
  package var startedAt: Double
  /// For how long requests had to wait when it began.
  package var pauseNanoseconds: UInt64
}

/// What there is to do for whoever copies.
package struct PushBackupWork: Sendable {
  package struct Cluster: Sendable {
    package var cluster: Int
    package var offset: UInt64
    package var length: UInt64
    package var waitingMilliseconds: UInt64
  }

  package var pending: [Cluster]
  package var left: [Range<Int>]
  package var remaining: Int
  package var blockedWrites: Int
}

/// A backup, and what the service has for it.
struct PushBackupSession: Sendable {
  let backup: PushBackup
  /// Through which the frozen disk is read, if it is.
  let export: String?
  let since: String?
  /// Why everything is copied although less was asked for.
  let fullReason: String?
  let checkpoint: String?
  let pauseNanoseconds: UInt64

  var geometry: Geometry { backup.geometry }
}

extension PushBackupSession {
  /// As that of a job is shown.
  init(_ frozen: FrozenDisk) {
    self.init(
      backup: frozen.backup, export: nil, since: frozen.backup.since?.name,
      fullReason: frozen.backup.fullReason, checkpoint: frozen.checkpoints.kept,
      pauseNanoseconds: frozen.pauseNanoseconds)
  }
}

extension PushBackupInfo {
  init(_ session: PushBackupSession) {
    let backup = session.backup
    let facts = backup.facts
    var reason: String?
    if case .failed(let words) = facts.end { reason = words }
    self.init(
      uuid: backup.uuid, state: reason == nil ? .active : .failed, reason: reason,
      isIncremental: session.since != nil && session.fullReason == nil,
      fullReason: session.fullReason, clustersTotal: facts.clustersTotal,
      remaining: facts.remaining,
      clusterBytes: session.geometry.clusterBytes, blockedWrites: facts.blockedWrites,
      spilledBytes: facts.spilledBytes,
      longestWaitMilliseconds: facts.longestWaitNanoseconds / 1_000_000,
      deadlineSeconds: Int(backup.options.deadlineNanoseconds / 1_000_000_000),
      onDeadline: PushBackupRequest.OnDeadline(rawValue: backup.options.onDeadline.rawValue)
        ?? .abort,
      export: session.export, since: session.since, checkpoint: session.checkpoint,
      startedAt: backup.startedAt,
      pauseNanoseconds: session.pauseNanoseconds)
  }
}
