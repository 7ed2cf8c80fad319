internal import Logging
internal import PloopBackup
internal import PloopFormat
internal import PloopIO

/// A chain of a target, and where it lies.
struct PlacedChain {
  let device: String
  let name: String
  let chain: BackupChain
}

extension Service {
  package func backups(
    on target: String, of device: String?, after: String?, limit: Int
  ) async throws(ServiceError) -> Page<BackupInfo> {
    try await targetClerk.run { () throws(ServiceError) in
      var found = try self.backups(on: target, of: device)
      if let after {
        guard let place = found.firstIndex(where: { $0.id == after }) else {
          throw ServiceError(.invalidValue, "cursor: there is no backup \(after.prefix(80))")
        }
        found.removeFirst(place + 1)
      }
      let items = Array(found.prefix(limit))
      return Page(
        items: items, next: found.count > limit ? items.last?.id : nil,
        revision: self.store.lastRevision)
    }
  }

  package func backup(
    _ id: String, on target: String
  ) async throws(ServiceError) -> BackupInfo {
    try await targetClerk.run { () throws(ServiceError) in
      try self.backup(id, on: target).info
    }
  }

  /// Removes a point, whole or not. Its files are gone when this returns, durably.
  package func removeBackup(
    _ id: String, on target: String, cascading: Bool
  ) async throws(ServiceError) {
    try requireServing()
    try await targetClerk.run { () throws(ServiceError) in
      let (info, chain) = try self.backup(id, on: target)
      let dependents = try backingUp { () throws(BackupError) in
        try chain.chain.dependents(of: id)
      }
      for point in (cascading ? dependents.reversed() : []) + [id] {
        try backingUp { () throws(BackupError) in try chain.chain.remove(point) }
        try self.store.write { transaction throws(ServiceError) in
          try transaction.removeVerdict(of: point, on: target)
          try transaction.note(
            .backupDeleted, point, device: info.device, at: try transaction.nextRevision())
        }
        self.log.info("backup removed", metadata: ["target": "\(target)", "backup": "\(point)"])
      }
    }
    waiting.changed([.service, .target(target)])
  }

  // MARK: Looking

  func backups(
    on target: String, of device: String?
  ) throws(ServiceError) -> [BackupInfo] {
    let verdicts = try store.read { transaction throws(ServiceError) in
      try transaction.verdicts(on: target)
    }
    var found: [BackupInfo] = []
    for chain in try chains(in: try openDirectory(target: target), of: device) {
      let (points, descriptor) = try backingUp {
        () throws(BackupError) -> ([BackupPoint], Descriptor?) in
        (try chain.chain.points(), try? chain.chain.descriptor())
      }
      let path = try descriptorPath(of: chain, on: target)
      for point in points {
        found.append(info(point, chain, descriptor, path, verdicts[point.id], target))
      }
    }
    return found
  }

  /// - Throws: `backup-not-found`.
  func backup(
    _ id: String, on target: String, pointer: String? = nil
  ) throws(ServiceError) -> (info: BackupInfo, chain: PlacedChain) {
    let infos = try backups(on: target, of: nil)
    // A folder that somebody has copied has the same backups once more.
    let named = infos.filter { $0.id == id }
    guard let info = named.first(where: \.isWhole) ?? named.first else {
      throw ServiceError(
        .backupNotFound, "the target \(target) has no backup \(id.prefix(80))", errno: "ENOENT",
        pointer: pointer)
    }
    let directory = try openDirectory(target: target)
    let chain = try backingUp { () throws(BackupError) in
      try directory.chain(info.chain, of: info.device)
    }
    return (info, PlacedChain(device: info.device, name: info.chain, chain: chain))
  }

  /// In the order of devices, and of the names of their chains, which is that of time.
  func chains(
    in directory: DirectoryTarget, of wanted: String?
  ) throws(ServiceError) -> [PlacedChain] {
    try backingUp { () throws(BackupError) in
      var chains: [PlacedChain] = []
      for device in try directory.devices() where wanted.map({ $0 == device }) ?? true {
        for name in try directory.chains(of: device) {
          chains.append(
            PlacedChain(
              device: device, name: name, chain: try directory.chain(name, of: device)))
        }
      }
      return chains
    }
  }

  private func descriptorPath(
    of chain: PlacedChain, on target: String
  ) throws(ServiceError) -> String? {
    guard case .directory(let path) = try existing(target: target).place else { return nil }
    return "\(path)/\(chain.device)/\(chain.name)/\(Descriptor.fileName)"
  }

  private func info(
    _ point: BackupPoint, _ chain: PlacedChain, _ descriptor: Descriptor?, _ path: String?,
    _ verdict: StateTransaction.Verdict?, _ target: String
  ) -> BackupInfo {
    var info = BackupInfo(
      id: point.id, target: target, device: chain.device, chain: chain.name,
      chainLength: point.chainLength, diskBytes: point.diskBytes)
    if let manifest = point.manifest {
      info.mode = manifest.mode.rawValue
      info.parent = manifest.parent
      info.pointInTime = manifest.pointInTime
      info.sizeBytes = manifest.sizeBytes
      info.clusterBytes = manifest.clusterBytes
      info.snapshot = manifest.snapshot
      info.checkpoint = manifest.checkpoint
      info.completedAt = manifest.result?.completedAt
      info.storedBytes = manifest.result?.bytesWritten
      info.journalDigest = manifest.result?.journalDigest
    }
    info.verifiedAt = verdict?.verifiedAt
    switch point.state {
    case .whole:
      info.isWhole = true
      info.state = verdict?.problem == nil ? .complete : .damaged
      info.problem = verdict?.problem
      info.descriptor = path
      info.place =
        point.manifest.flatMap { GUID($0.guid) }
        .flatMap { descriptor?.shot($0) }?.guid
    case .partial: (info.state, info.problem) = (.partial, "it was begun, and is not whole")
    case .missingParent(let parent):
      (info.state, info.problem) = (.missingParent, "it builds on \(parent), which is not whole")
    case .damaged(let reason): (info.state, info.problem) = (.damaged, reason)
    }
    return info
  }
}
