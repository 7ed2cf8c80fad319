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

    init(_ words: String) { self.words = words }
  }

  static func nothing(of device: String) -> String { "the target has no backup of \(device)" }

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

  /// The chain of which a point began with a checkpoint, and that has nothing behind it but snapshots that were
  /// made later: what was written since the newest of them was written since the checkpoint too.
  ///
  /// - Parameter name: which the checkpoint has, or is to have.
  func chain(beginning checkpoint: Checkpoint, as name: String) -> Chain? {
    chains.first { chain in
      guard
        let point = chain.points.last(where: { $0.manifest?.snapshot == nil })?.manifest
      else { return false }
      return BackupHistory.has(point, begun: checkpoint, as: name)
    }
  }

  /// Whether a checkpoint is the very one that began with a point.
  static func has(_ point: PointManifest, begun checkpoint: Checkpoint, as name: String) -> Bool {
    point.nextCheckpoint == name && point.pointInTime == checkpoint.createdAt
      && checkpoint.request == BackupHistory.request(of: point.id)
  }

  /// What an increment would build on.
  func increment(
    of subject: BackupSubject, _ checkpoints: BackupCheckpoints
  ) throws(Obstacle) -> BackupChoice {
    guard !chains.isEmpty else { throw Obstacle(BackupHistory.nothing(of: device)) }
    switch subject {
    case .live(let disk): return try increment(of: disk, checkpoints)
    case .snapshot(let snapshot, let disk):
      return try increment(of: snapshot, on: disk, checkpoints)
    }
  }

  private func increment(
    of disk: LiveDisk, _ checkpoints: BackupCheckpoints
  ) throws(Obstacle) -> BackupChoice {
    guard let base = checkpoints.base else { throw Obstacle("no checkpoint was named") }
    let found = checkpoints.names.compactMap { name in
      disk.device.checkpoints.first { $0.name == name }
    }
    guard !found.isEmpty else { throw Obstacle("the disk has no checkpoint \(base)") }
    for checkpoint in found {
      guard let chain = chain(beginning: checkpoint, as: base) else { continue }
      if let reason = checkpoint.inconsistency {
        throw Obstacle("the checkpoint \(base) says nothing: \(reason)")
      }
      let newest = try basis(chain, of: disk.device.geometry)
      try BackupHistory.require(newest, beneath: disk)
      return BackupChoice(
        chain: chain.name, parent: newest.id, checkpoint: BaseCheckpoint(checkpoint))
    }
    throw Obstacle(
      "no chain's newest backup is the one with which the checkpoint \(base) began")
  }

  /// The newest point of a chain, if one can be built on it for a disk of this geometry.
  func basis(_ chain: Chain, of geometry: Geometry) throws(Obstacle) -> PointManifest {
    if let damaged = chain.points.first(where: { $0.state != .whole }) {
      throw Obstacle("the backup \(damaged.id) of its chain is damaged")
    }
    guard chain.points.count < Descriptor.shotLimit else {
      throw Obstacle("its chain has \(chain.points.count) backups")
    }
    guard let manifest = chain.points.last?.manifest,
      manifest.clusterBytes == geometry.clusterBytes, manifest.sizeBytes <= geometry.sizeBytes
    else { throw Obstacle("the disk has another size than its last backup") }
    return manifest
  }

  /// A snapshot that was copied last has to be what the disk builds on: else the disk may have come to what it is on
  /// another way, of which its checkpoint knows nothing.
  private static func require(
    _ newest: PointManifest, beneath disk: LiveDisk
  ) throws(Obstacle) {
    guard let name = newest.snapshot else { return }
    guard let guid = GUID(name), let layers = newest.layers,
      (try? SnapshotLayers(disk.device, disk.shots))?.digest(of: guid) == layers
    else {
      throw Obstacle(
        "the snapshot \(name), of which its last backup is, is not beneath the disk any more, or not as it was copied"
      )
    }
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
