internal import PloopBackup
internal import PloopDevice
internal import PloopIO

/// What a backup builds on.
struct BackupChoice: Sendable {
  static let fileReason = "the target keeps no points that could be built on"

  /// That of its full backup, so the new point's own name for a full one.
  var chain: String
  /// The newest point of the chain; nil for a full backup.
  var parent: String?
  /// Of which what was written since is copied.
  var checkpoint: BaseCheckpoint?
  /// The clusters of a snapshot that are copied; nil for all.
  var wanted: Bitmap?
  /// Why all is copied, where less was asked for.
  var reason: String?

  var mode: PointManifest.Mode { parent == nil ? .full : .incremental }

  /// How many clusters are copied.
  func clusters(of disk: Device) throws(ServiceError) -> UInt64 {
    if let wanted { return UInt64(wanted.setCount) }
    guard let checkpoint else { return disk.mappedClusters }
    return UInt64(try checkpoint.find(on: disk).clusters(disk.geometry).setCount)
  }

  var words: String {
    guard let parent else { return reason.map { "a full backup: \($0)" } ?? "a full backup" }
    guard let checkpoint else {
      return "an increment on \(parent), of what was made above its snapshot"
    }
    return "an increment on \(parent), since the checkpoint \(checkpoint.name)"
  }

  static func refusal(_ reason: String) -> ServiceError {
    ServiceError(
      .incrementNotPossible, "there is nothing that an increment could build on: \(reason)",
      remedy: "take mode auto or full: all is copied, and the next one can be an increment")
  }
}
