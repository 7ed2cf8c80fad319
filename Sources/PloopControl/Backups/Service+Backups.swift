internal import Logging
internal import PloopBackup
internal import PloopFormat
internal import PloopIO

extension Service {
  package func backups(
    on target: String, of device: String?, after: String?, limit: Int
  ) async throws(ServiceError) -> Page<BackupInfo> {
    try await clerk(of: target).run { () throws(ServiceError) in
      let revision = self.store.shownRevision
      var found = try self.backups(on: target, of: device)
      if let after {
        guard let place = found.firstIndex(where: { $0.id == after }) else {
          throw ServiceError(.valueImpossible, "cursor: there is no backup \(after.prefix(80))")
        }
        found.removeFirst(place + 1)
      }
      let items = Array(found.prefix(limit))
      return Page(
        items: items, next: found.count > limit ? items.last?.id : nil,
        revision: revision)
    }
  }

  package func backup(
    _ id: String, on target: String
  ) async throws(ServiceError) -> BackupInfo {
    try await clerk(of: target).run { () throws(ServiceError) in
      try self.backup(id, on: target).info
    }
  }

  /// Removes a point, whole or not. Its files are gone when this returns, durably.
  package func removeBackup(
    _ id: String, on target: String, cascading: Bool
  ) async throws(ServiceError) {
    try requireServing()
    try await clerk(of: target).run { () throws(ServiceError) in
      let (info, point) = try self.backup(id, on: target)
      let dependents = try backingUp { () throws(BackupError) in try point.dependents(of: id) }
      let all = (cascading ? dependents.reversed() : []) + [id]
      for id in all where self.jobs.state.withLock({ $0.jobs[id] }) != nil {
        throw ServiceError(
          .imageInUse, "the job \(id) makes the backup \(id)", remedy: "cancel the job",
          errno: "EBUSY", holder: ServiceError.Holder(kind: "job", id: id))
      }
      for id in all { try self.remove(id, of: info.device, in: point, on: target) }
    }
    waiting.changed([.service, .target(target)])
  }

  private func remove(
    _ id: String, of device: String, in store: PointStore, on target: String
  ) throws(ServiceError) {
    try backingUp { () throws(BackupError) in try store.remove(id) }
    try noteRemoved(id, of: device, on: target)
    log.info("backup removed", metadata: ["target": "\(target)", "backup": "\(id)"])
  }

  /// Removes a point on which no other builds. One that is gone already has been removed.
  func removePoint(_ id: String, on target: String) throws(ServiceError) {
    do throws(ServiceError) {
      let (info, store) = try backup(id, on: target)
      try remove(id, of: info.device, in: store, on: target)
    } catch {
      guard error.code == .backupNotFound else { throw error }
    }
    waiting.changed([.service, .target(target)])
  }

  /// A point is gone: what was known of it is forgotten, and it is told.
  func noteRemoved(_ id: String, of device: String, on target: String) throws(ServiceError) {
    try store.write { transaction throws(ServiceError) in
      try transaction.removeVerdict(of: id, on: target)
      try transaction.note(
        .backupDeleted, id, device: device, at: try transaction.nextRevision())
    }
  }

  // MARK: Looking

  func backups(
    on target: String, of device: String?
  ) throws(ServiceError) -> [BackupInfo] {
    let verdicts = try store.read { transaction throws(ServiceError) in
      try transaction.verdicts(on: target)
    }
    switch try open(target: target) {
    case .directory(let directory):
      var found: [BackupInfo] = []
      for chain in try chains(in: directory, of: device) {
        let (points, descriptor) = try backingUp {
          () throws(BackupError) -> ([BackupPoint], Descriptor?) in
          (try chain.chain.points(), try? chain.chain.descriptor())
        }
        let path = try descriptorPath(of: chain, on: target)
        for point in points {
          var info = BackupInfo(point, chain, on: target, verdicts[point.id])
          if point.state == .whole {
            info.descriptor = path
            info.place =
              point.manifest.flatMap { GUID($0.guid) }.flatMap { descriptor?.shot($0) }?.guid
          }
          found.append(info)
        }
      }
      return found
    case .single(let single):
      return try backingUp { () throws(BackupError) in try single.points() }.map { point in
        BackupInfo(point, nil, on: target, verdicts[point.id])
      }.filter { info in device.map { $0 == info.device } ?? true }
    }
  }

  /// - Throws: `backup-not-found`.
  func backup(
    _ id: String, on target: String, pointer: String? = nil
  ) throws(ServiceError) -> (info: BackupInfo, point: PointStore) {
    let infos = try backups(on: target, of: nil)
    // A folder that somebody has copied has the same backups once more.
    let named = infos.filter { $0.id == id }
    guard let info = named.first(where: \.isWhole) ?? named.first else {
      throw ServiceError(
        .backupNotFound, "the target \(target) has no backup \(id.prefix(80))", errno: "ENOENT",
        pointer: pointer)
    }
    return (info, try store(of: info))
  }

  /// Opens what keeps a point.
  func store(of info: BackupInfo) throws(ServiceError) -> PointStore {
    switch try open(target: info.target) {
    case .directory(let directory):
      return try backingUp { () throws(BackupError) in
        .chain(
          PlacedChain(
            device: info.device, name: info.chain,
            chain: try directory.chain(info.chain, of: info.device)))
      }
    case .single(let single): return .single(single)
    }
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
}

extension BackupInfo {
  /// - Parameter chain: nil for what lies by itself in an export or a file.
  init(
    _ point: BackupPoint, _ chain: PlacedChain?, on target: String,
    _ verdict: StateTransaction.Verdict?
  ) {
    self.init(
      id: point.id, target: target, device: chain?.device ?? point.manifest?.device ?? "",
      chain: chain?.name ?? point.id, chainLength: point.chainLength, diskBytes: point.diskBytes)
    if let manifest = point.manifest {
      mode = manifest.mode.rawValue
      parent = manifest.parent
      pointInTime = manifest.pointInTime
      sizeBytes = manifest.sizeBytes
      clusterBytes = manifest.clusterBytes
      snapshot = manifest.snapshot
      checkpoint = manifest.checkpoint
      completedAt = manifest.result?.completedAt
      storedBytes = manifest.result?.bytesWritten
      journalDigest = manifest.result?.journalDigest
    }
    checkedBytes = point.checkedBytes
    verifiedAt = verdict?.verifiedAt
    switch point.state {
    case .whole:
      isWhole = true
      state = verdict?.problem == nil ? .complete : .damaged
      problem = verdict?.problem
    case .partial: (state, problem) = (.partial, "it was begun, and is not whole")
    case .missingParent(let parent):
      (state, problem) = (.missingParent, "it builds on \(parent), which is not whole")
    case .damaged(let reason): (state, problem) = (.damaged, reason)
    }
  }
}
