internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// A backup in an export of an NBD server, which holds one.

extension BackupRun {
  func copyToExport(_ export: NBDTarget) throws(JobStop) -> [String: JobValue] {
    let earlier = try waiting { () throws(ServiceError) in try begun(in: export) }
    var facts = BackupFacts()
    if let earlier, earlier.result != nil {
      control.log("an earlier attempt has made the backup whole")
      facts.isCompletedEarlier = true
      return result(of: earlier, facts)
    }
    guard let snapshot = job.snapshot else {
      facts.isRestarted = earlier != nil || control.hasProgressedBefore
      if earlier != nil {
        tellOfNewInstant()
        try waiting { () throws(ServiceError) in
          try backingUp { () throws(BackupError) in try export.remove(id) }
        }
      }
      return try copyLive(nil, facts)
    }
    return try service.withSnapshot(
      snapshot, for: id, of: controller, failing: { .failed($0) }
    ) { (device) throws(JobStop) in
      let choice = try choose(nil, nil)
      facts.reason = choice.reason
      let source = DeviceSource(device)
      let manifest = earlier ?? manifest(choice, source, at: nil)
      try copyStill(source, to: ExportPlace(service, job.target, manifest))
      return try result(in: export, of: manifest, facts)
    }
  }

  private func begun(in export: NBDTarget) throws(ServiceError) -> PointManifest? {
    try backingUp { () throws(BackupError) in
      try export.points().first { $0.id == id && $0.manifest != nil }?.manifest
    }
  }

  func result(
    in export: NBDTarget, of manifest: PointManifest, _ facts: BackupFacts
  ) throws(JobStop) -> [String: JobValue] {
    let whole = try waiting { () throws(ServiceError) in
      try backingUp { () throws(BackupError) in try export.manifest(manifest.id) }
    }
    return result(of: whole, facts)
  }
}

/// An export. What it held is forgotten as soon as something else is begun there.
final class ExportPlace: BackupPlace {
  let service: Service
  let target: String
  private let manifest: PointManifest
  private var hasBegun = false

  init(_ service: Service, _ target: String, _ manifest: PointManifest) {
    self.service = service
    self.target = target
    self.manifest = manifest
  }

  func open() throws(ServiceError) -> any BackupSink {
    guard case .nbd(let export, _) = try service.open(target: target) else {
      throw ServiceError(.targetUnsuitable, "the target \(target) is no export")
    }
    let before = try backingUp { () throws(BackupError) in try export.points() }
    if hasBegun, !before.contains(where: { $0.id == manifest.id }) {
      // Another backup has begun meanwhile, and may be whole by now: it stays.
      throw ServiceError(
        .backupMismatch, "the export of \(target) does not hold the backup \(manifest.id) any more",
        cause: before.last.map { "it holds \($0.id)" }, remedy: "back up to another export")
    }
    let sink = try backingUp { () throws(BackupError) in try export.write(manifest) }
    hasBegun = true
    for point in before where point.id != manifest.id {
      try service.noteRemoved(
        point.id, of: point.manifest?.device ?? manifest.device, on: target)
    }
    return sink
  }

  /// What room there is only the server knows.
  func requireRoom(_ bytes: UInt64) throws(ServiceError) {}
}
