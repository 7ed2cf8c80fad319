internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

/// The chains of a device that a target has, the newest first.
struct BackupHistory: Sendable {
  struct Chain: Sendable {
    let name: String
    let folder: BackupChain
    /// Those that its descriptor names, oldest first.
    let points: [BackupPoint]
  }

  /// Why no increment is possible, in words.
  struct Obstacle: Error {
    let words: String
  }

  let target: DirectoryTarget
  let device: String
  private(set) var chains: [Chain] = []

  init(of device: String, on target: DirectoryTarget) throws(BackupError) {
    self.target = target
    self.device = device
    for name in try target.chains(of: device).reversed() {
      let folder = try target.chain(name, of: device)
      do {
        let points = try folder.points().filter { $0.chainLength > 0 }
        if !points.isEmpty { chains.append(Chain(name: name, folder: folder, points: points)) }
      } catch {
        // Nothing builds on what cannot be read.
        guard case .corrupt = error.kind else { throw error }
      }
    }
  }

  /// What makes the checkpoint that begins with a point, as it says itself.
  static func request(of point: String) -> String { "backup \(point)" }

  /// The chain whose newest point began with a checkpoint.
  ///
  /// - Parameter name: which the checkpoint has, or is to have.
  func chain(beginning checkpoint: Checkpoint, as name: String) -> Chain? {
    chains.first { chain in
      guard let newest = chain.points.last?.manifest else { return false }
      return newest.nextCheckpoint == name && newest.pointInTime == checkpoint.createdAt
        && checkpoint.request == BackupHistory.request(of: newest.id)
    }
  }

  /// What an increment would build on.
  func increment(
    of disk: Device, _ checkpoints: BackupCheckpoints
  ) -> Result<BackupChoice, Obstacle> {
    func no(_ words: String) -> Result<BackupChoice, Obstacle> { .failure(Obstacle(words: words)) }
    guard !chains.isEmpty else { return no("the target has no backup of \(device)") }
    guard let base = checkpoints.base else { return no("no checkpoint was named") }
    let names = [checkpoints.working, base].compactMap { $0 }
    let found = names.compactMap { name in disk.checkpoints.first { $0.name == name } }
    guard !found.isEmpty else { return no("the disk has no checkpoint \(base)") }
    for checkpoint in found {
      guard let chain = chain(beginning: checkpoint, as: base), let newest = chain.points.last
      else { continue }
      if let reason = checkpoint.inconsistency {
        return no("the checkpoint \(base) says nothing: \(reason)")
      }
      if let damaged = chain.points.first(where: { $0.state != .whole }) {
        return no("the backup \(damaged.id) of its chain is damaged")
      }
      guard chain.points.count < Descriptor.shotLimit else {
        return no("its chain has \(chain.points.count) backups")
      }
      guard let manifest = newest.manifest,
        manifest.clusterBytes == disk.geometry.clusterBytes,
        manifest.sizeBytes <= disk.geometry.sizeBytes
      else { return no("the disk has another size than its last backup") }
      return .success(
        BackupChoice(
          chain: chain.name, parent: newest.id, checkpoint: BaseCheckpoint(checkpoint)))
    }
    return no("no chain's newest backup is the one with which the checkpoint \(base) began")
  }
}

/// The checkpoint of which a backup copies what was written since. Until the disk is frozen anybody may remove
/// it and make another one of its name, which knows less.
struct BaseCheckpoint: Equatable, Sendable {
  let name: String
  private let createdAt: Double
  private let request: String?

  init(_ checkpoint: Checkpoint) {
    name = checkpoint.name
    createdAt = checkpoint.createdAt
    request = checkpoint.request
  }

  /// - Throws: `increment-not-possible` when it is not there any more.
  func find(on device: Device) throws(ServiceError) -> Checkpoint {
    guard let found = device.checkpoints.first(where: { BaseCheckpoint($0) == self }) else {
      throw BackupChoice.refusal("the checkpoint \(name) was removed or made anew meanwhile")
    }
    return found
  }
}

/// What a backup builds on.
struct BackupChoice: Equatable, Sendable {
  static let snapshotReason = "a snapshot is copied as a whole"
  static let fileReason = "the target keeps no points that could be built on"

  /// That of its full backup, so the new point's own name for a full one.
  var chain: String
  /// The newest point of the chain; nil for a full backup.
  var parent: String?
  /// Of which what was written since is copied.
  var checkpoint: BaseCheckpoint?
  /// Why all is copied, where less was asked for.
  var reason: String?

  var mode: PointManifest.Mode { parent == nil ? .full : .incremental }

  /// How many clusters it copies.
  func clusters(of disk: Device) throws(ServiceError) -> UInt64 {
    guard let checkpoint else { return disk.mappedClusters }
    return UInt64(try checkpoint.find(on: disk).clusters(disk.geometry).setCount)
  }

  static func refusal(_ reason: String) -> ServiceError {
    ServiceError(
      .incrementNotPossible, "there is nothing that an increment could build on: \(reason)",
      remedy: "take mode auto or full: all is copied, and the next one can be an increment")
  }
}
