internal import PloopFormat
internal import PloopIO

/// What of a device survives the process: enough to serve it again as it was.
struct DeviceRecord: Codable, Sendable, Equatable {
  struct Delta: Codable, Sendable, Equatable {
    var path: String
    var isRaw: Bool
    /// The snapshot, or the top, whose delta it is, where a descriptor says so.
    var guid: String?

    func hasSameFile(as other: Delta) -> Bool { path == other.path && isRaw == other.isRaw }
  }

  struct Export: Codable, Sendable, Equatable {
    var name: String
    var readonly: Bool
    var sharedWriters: Bool
    var summary: String
    var revision: UInt64
    /// The snapshot that is read; nil for the device as it is.
    var snapshot: String?
    /// Nil for everybody.
    var access: ExportAccess?
  }

  var id: String
  var uuid: String
  var revision: UInt64
  /// Oldest first.
  var deltas: [Delta]
  /// The descriptor that the deltas are taken from, each time anew; nil for a list of files.
  var descriptor: String?
  /// The snapshot that is attached, by its GUID; nil for the top.
  var snapshot: String?
  var readonly: Bool
  var suspended: Bool
  /// Of a disk that is suspended; nil where an earlier version has suspended it.
  var suspension: Suspension?
  /// Nobody resumes the disk while this is there.
  var prohibition: Prohibition?
  var autostart: Bool
  /// How fast its NBD clients may go; nil for as fast as it is.
  var throttle: TransferRates?
  var labels: [String: String]
  var exports: [Export] = []
  var sizeBytes: UInt64
  var clusterBytes: UInt64
  var version: Int
  /// True from attach to clean detach: an in-use mark in the image is our own then, and safe repair
  /// is implied when it comes back.
  var isAttached: Bool
  /// Whether a clean detach writes checkpoints into the image; nil as false.
  var bitmapsInImage: Bool?
  /// The copy of a disk that is still somebody else's, and by what it was named; nil once it was taken over.
  var incoming: String?
  /// Why the disk no longer took writes, if it came to that.
  var failure: String?
  /// The push backup that was going on: it does not outlive the process, and this is how that is told.
  var pushBackup: String?
  /// The checkpoint that began with it, and is to go if it fails.
  var pushBackupCheckpoint: String?
  /// Seconds since 1970.
  var createdAt: Double
  var updatedAt: Double

  /// Under the next revision, with an export that it gets, last, under the one behind that.
  func changed(
    adding export: Export?, numbering: () throws(ServiceError) -> UInt64
  ) throws(ServiceError) -> DeviceRecord {
    var record = self
    record.revision = try numbering()
    record.updatedAt = wallClockSeconds()
    if var export {
      export.revision = try numbering()
      record.exports.append(export)
    }
    return record
  }
}

/// What an attach was about to do when the process ended, if it did not get to its end: written
/// before it touches an image, gone with the record that makes the device known, or with the refusal.
struct AttachIntent: Codable, Sendable, Equatable {
  var id: String
  /// Oldest first.
  var deltas: [DeviceRecord.Delta]
  /// The image that was to be made; it may be there, whole or in part, and holds nothing of anybody.
  var creates: String?
  /// The image was in order before, so that an in-use mark in it is our own.
  var wasClosed: Bool
}

/// What happened to a device or an export: the kind of thing, a dot, and what happened.
package enum EventType: String, Sendable {
  case deviceCreated = "device.created"
  case deviceChanged = "device.changed"
  case deviceState = "device.state"
  case deviceSuspended = "device.suspended"
  case deviceDeleted = "device.deleted"
  case jobCreated = "job.created"
  case jobState = "job.state"
  case jobProgress = "job.progress"
  /// Another program has written a lower delta's file, or put another one in its place: what was
  /// recorded of its clusters is true no longer.
  case deltaRewritten = "delta.rewritten"
  case snapshotCreated = "snapshot.created"
  case snapshotChanged = "snapshot.changed"
  case snapshotDeleted = "snapshot.deleted"
  case checkpointCreated = "checkpoint.created"
  case checkpointDeleted = "checkpoint.deleted"
  case pushBackupPending = "push_backup.pending"
  case pushBackupComplete = "push_backup.complete"
  case pushBackupFailed = "push_backup.failed"
  case targetCreated = "target.created"
  case targetChanged = "target.changed"
  case targetDeleted = "target.deleted"
  case backupVerified = "backup.verified"
  case backupDeleted = "backup.deleted"
  /// A point is whole: it can be restored, and built on.
  case backupComplete = "backup.complete"
  case exportCreated = "export.created"
  case exportDeleted = "export.deleted"
  case clientConnected = "client.connected"
  case clientGone = "client.gone"

  /// Whether the next one of the same says more: such are told once a second. That a client came or left
  /// nobody says again.
  var isRepeated: Bool { self == .jobProgress || self == .pushBackupPending }
}
