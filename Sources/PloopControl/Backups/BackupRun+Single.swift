internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// A backup in a place that holds one: an export of an NBD server, or a file.

extension BackupRun {
  func copyWhole(to single: any SinglePointTarget) throws(JobStop) -> [String: JobValue] {
    let earlier = try waiting { () throws(ServiceError) in try begun(in: single) }
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
          try backingUp { () throws(BackupError) in try single.remove(id) }
        }
      }
      return try copyLive(nil, facts)
    }
    return try service.withSnapshot(
      snapshot, for: id, of: controller, failing: { .failed($0) }
    ) { (snapshot) throws(JobStop) in
      let choice = try choose(nil, .snapshot(snapshot, of: nil))
      facts.reason = choice.reason
      let source = DeviceSource(snapshot.device)
      let layers = try failing { () throws(ServiceError) in
        try SnapshotLayers(snapshot).digest(of: snapshot.guid)
      }
      var made = self.manifest(choice, source, at: nil)
      made.layers = layers
      var manifest = earlier ?? made
      if let earlier, earlier.layers != nil, earlier.layers != layers {
        control.log(
          "the backup is begun anew: the snapshot's files are not what they were", level: "warning")
        try waiting { () throws(ServiceError) in
          try backingUp { () throws(BackupError) in try single.remove(id) }
        }
        facts.isRestarted = true
        manifest = made
      }
      let place = SinglePlace(service, job.destination, manifest)
      return result(of: manifest, try copyStill(source, to: place), at: place, facts)
    }
  }

  private func begun(in single: any SinglePointTarget) throws(ServiceError) -> PointManifest? {
    try backingUp { () throws(BackupError) in
      try single.points().first { $0.id == id && $0.manifest != nil }?.manifest
    }
  }
}

/// A place that holds one backup. What an export held is forgotten as soon as something else is begun there.
final class SinglePlace: PointKeeper {
  let service: Service
  var target: String { destination.name }
  private let destination: BackupDestination
  private let made: PointManifest
  private var hasBegun = false

  init(_ service: Service, _ destination: BackupDestination, _ manifest: PointManifest) {
    self.service = service
    self.destination = destination
    made = manifest
  }

  private func single() throws(ServiceError) -> any SinglePointTarget {
    guard case .single(let single) = try service.open(destination) else {
      throw ServiceError(.targetUnsuitable, "the target \(target) is a folder")
    }
    return single
  }

  func manifest() throws(ServiceError) -> PointManifest {
    let single = try single()
    return try backingUp { () throws(BackupError) in try single.manifest(made.id) }
  }

  func open() throws(ServiceError) -> any BackupSink {
    let single = try single()
    let before = try backingUp { () throws(BackupError) in try single.points() }
    if hasBegun, !before.contains(where: { $0.id == made.id }) {
      // Another backup has begun meanwhile, and may be whole by now: it stays.
      throw ServiceError(
        .backupMismatch, "the target \(target) does not hold the backup \(made.id) any more",
        cause: before.last.map { "it holds \($0.id)" }, remedy: "back up to another target")
    }
    let sink = try backingUp { () throws(BackupError) in
      try single.write(made, isContinued: hasBegun)
    }
    hasBegun = true
    for point in before where point.id != made.id {
      try service.noteRemoved(
        point.id, of: point.manifest?.device ?? made.device, on: target)
    }
    return sink
  }

  /// What room a server has only it knows.
  func requireRoom(_ bytes: UInt64) throws(ServiceError) {
    let place = try service.find(destination).place
    try Service.requireSpace(
      bytes, of: service.freeBytes(at: place), for: "the target \(target)")
  }
}
