internal import PloopBackup
internal import PloopDevice
internal import PloopFormat
internal import PloopIO

// What an increment of a snapshot builds on (docs/crash-safety.md, "An increment of a snapshot").

extension BackupHistory {
  func increment(
    of snapshot: OpenSnapshot, on disk: LiveDisk?, _ checkpoints: BackupCheckpoints
  ) throws(Obstacle) -> BackupChoice {
    let layers: SnapshotLayers
    do throws(ServiceError) { layers = try SnapshotLayers(snapshot) } catch {
      throw Obstacle("the snapshot's files cannot be looked at: \(error.detail)")
    }
    var first: Obstacle?
    for chain in chains {
      do throws(Obstacle) {
        let newest = try basis(chain, of: snapshot.device.geometry)
        guard newest.snapshot == nil else {
          return BackupChoice(
            chain: chain.name, parent: newest.id,
            wanted: try BackupHistory.wanted(of: snapshot, layers, above: newest))
        }
        let checkpoint = try BackupHistory.checkpoint(
          from: newest, to: snapshot, on: disk, checkpoints)
        return BackupChoice(
          chain: chain.name, parent: newest.id, checkpoint: BaseCheckpoint(checkpoint),
          wanted: checkpoint.clusters(snapshot.device.geometry))
      } catch {
        // What the newest chain lacks is what people want to know.
        first = first ?? error
      }
    }
    throw first ?? Obstacle(BackupHistory.nothing(of: device))
  }

  /// A snapshot above another one that was copied: as long as the files of that one are what they were, the two
  /// differ in nothing but what the files above it map.
  private static func wanted(
    of snapshot: OpenSnapshot, _ layers: SnapshotLayers, above newest: PointManifest
  ) throws(Obstacle) -> Bitmap {
    let name = newest.snapshot ?? ""
    guard let known = newest.layers else {
      throw Obstacle("the last backup, \(newest.id), does not say of which files it was made")
    }
    guard let guid = GUID(name), let level = layers.level(of: guid) else {
      throw Obstacle(
        "the snapshot does not build on \(name), of which the last backup is, or that was merged")
    }
    guard layers.digest(of: guid) == known else {
      throw Obstacle(
        "the files of the snapshot \(name) are not those of which the last backup was made: one was merged, moved or written"
      )
    }
    var wanted: Bitmap
    do throws(DeviceError) { wanted = try snapshot.device.clusters(aboveLevel: level) } catch {
      throw Obstacle("the snapshot cannot be looked at: \(error.detail)")
    }
    // Behind the end of a smaller disk is nothing but zeroes in the backup, whatever a file has there.
    let geometry = snapshot.device.geometry
    if newest.sizeBytes < geometry.sizeBytes, newest.sizeBytes % geometry.clusterBytes != 0 {
      wanted[Int(newest.sizeBytes / geometry.clusterBytes)] = true
    }
    return wanted
  }

  /// A snapshot that was made after the disk itself was copied: what the two differ in was written since the
  /// checkpoint that began with that backup, as long as the disk has come here by being written alone.
  private static func checkpoint(
    from newest: PointManifest, to snapshot: OpenSnapshot, on disk: LiveDisk?,
    _ checkpoints: BackupCheckpoints
  ) throws(Obstacle) -> Checkpoint {
    guard let disk, let base = checkpoints.base,
      let checkpoint = disk.device.checkpoints.first(where: {
        checkpoints.names.contains($0.name) && has(newest, begun: $0, as: base)
      })
    else {
      throw Obstacle(
        "the last backup, \(newest.id), is of the disk itself, and there is no checkpoint that began with it"
      )
    }
    if let reason = checkpoint.inconsistency {
      throw Obstacle("the checkpoint \(base) says nothing: \(reason)")
    }
    guard let own = disk.shots.dropLast().firstIndex(of: snapshot.guid) else {
      throw Obstacle("the disk does not build on the snapshot")
    }
    // Whatever lies above what was the newest snapshot then is newer than the backup.
    guard let below = newest.below.flatMap({ GUID($0) }),
      below == GUID.none || disk.shots[..<own].contains(below),
      snapshot.device.geometry.sizeBytes <= disk.device.geometry.sizeBytes
    else {
      throw Obstacle(
        "it cannot be said that the snapshot was made after the last backup, \(newest.id)")
    }
    return checkpoint
  }
}
