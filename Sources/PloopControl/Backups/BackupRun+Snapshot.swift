internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// A backup of a snapshot to a chain of points. It does not change, so an interrupted one is gone on with.

extension BackupRun {
  /// - Parameter earlier: what an interrupted attempt has left.
  func copy(
    _ snapshot: OpenSnapshot, _ history: BackupHistory, _ earlier: Earlier?, _ facts: BackupFacts
  ) throws(JobStop) -> [String: JobValue] {
    let layers = try failing { () throws(ServiceError) in
      try SnapshotLayers(snapshot).digest(of: snapshot.guid)
    }
    var choice = try choose(history, .snapshot(snapshot, of: try? LiveDisk(controller)))
    var begun = earlier
    if let earlier, earlier.manifest.parent == nil, choice.parent != nil {
      choice = BackupChoice(chain: id, reason: "an earlier attempt has begun to copy all")
    }
    if let earlier, !isGoneOn(earlier.manifest, choice, layers) {
      control.log(
        "the backup is begun anew: the snapshot's files, or what it builds on, are not what they were",
        level: "warning")
      try remove(earlier)
      begun = nil
    }
    do throws(JobStop) {
      return try copy(snapshot, choice, layers, begun, facts)
    } catch {
      let all = try allInstead(of: choice, after: error)
      service.removeBegunBackup(id, of: job.device, on: job.destination)
      return try copy(snapshot, all, layers, nil, facts)
    }
  }

  private func copy(
    _ snapshot: OpenSnapshot, _ choice: BackupChoice, _ layers: String?, _ begun: Earlier?,
    _ earlier: BackupFacts
  ) throws(JobStop) -> [String: JobValue] {
    let source = DeviceSource(snapshot.device, wanted: choice.wanted)
    var made = manifest(choice, source, at: nil)
    made.layers = layers
    if let begun {
      made = begun.manifest
      made.result = nil
    }
    control.log(choice.words)
    let chain = begun?.chain ?? choice.chain
    let place = PointPlace(service, job.destination, chain, made, wanted: source.wanted)
    var facts = earlier
    (facts.mode, facts.reason, facts.chain) = (choice.mode, choice.reason, chain)
    return result(of: made, try copyStill(source, to: place), at: place, facts)
  }

  /// Whether what was begun is what would be begun now.
  private func isGoneOn(
    _ begun: PointManifest, _ choice: BackupChoice, _ layers: String?
  ) -> Bool {
    // An older service did not write down the files, and copied all of them.
    let isSame = begun.layers == nil ? begun.parent == nil : begun.layers == layers
    return isSame && begun.parent == choice.parent
      && (begun.checkpoint == nil) == (choice.checkpoint == nil)
  }
}
