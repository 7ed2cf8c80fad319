internal import Glibc
package import PloopDevice
package import PloopFormat
package import PloopIO

/// A disk that does not change while it is copied.
///
/// It is read by whole clusters, by several threads at a time.
package protocol BackupSource: Sendable {
  var geometry: Geometry { get }

  /// The clusters that are to be copied; nil for all.
  var wanted: Bitmap? { get }

  /// What is known without reading of the clusters from `cluster` on.
  ///
  /// - Parameter limit: most clusters, at least 1; not beyond the disk.
  /// - Returns: for how many clusters it holds, and whether nothing is there, so that they read as zero.
  func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool)

  /// Reads whole clusters; behind the disk's end, in its last cluster, are zeroes.
  func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError)

  /// Has a range of a file hold whole clusters, none of which ends behind the disk, by sharing the blocks that they
  /// have where they are.
  ///
  /// - Parameter offset: in bytes, a multiple of the cluster size.
  /// - Returns: false, perhaps with a part of them there, where they have to be read.
  func share(
    _ clusters: Range<UInt64>, with file: ImageFile, at offset: UInt64
  ) throws(BackupError) -> Bool

  /// These clusters, as far as they were wanted, are durable where they were copied to, and are not read
  /// again.
  func release(_ clusters: Range<UInt64>)
}

extension BackupSource {
  package func release(_ clusters: Range<UInt64>) {}

  package func share(
    _ clusters: Range<UInt64>, with file: ImageFile, at offset: UInt64
  ) throws(BackupError) -> Bool { false }

  /// Reads a piece of a disk; what lower deltas have of it has to be what it was when they were hashed.
  func read(
    _ device: Device, into region: ByteRegion, at offset: UInt64
  ) throws(BackupError) {
    var holes = HoleList()
    let part = part(region, at: offset)
    do throws(DeviceError) {
      try device.requireSound(offset: offset, length: UInt64(part.count))
      try device.read(into: part, at: offset, holes: &holes)
    } catch { throw BackupError(source: error) }
  }

  /// How much of a piece the disk has; the rest is zeroed.
  func part(_ region: ByteRegion, at offset: UInt64) -> ByteRegion {
    let count = Int(min(UInt64(region.count), geometry.sizeBytes - min(geometry.sizeBytes, offset)))
    region.slice(count, region.count - count).zero()
    return region.slice(0, count)
  }
}

/// A disk that is attached for reading, or that nobody writes meanwhile: a snapshot.
package struct DeviceSource: BackupSource {
  private let device: Device
  package let wanted: Bitmap?

  package init(_ device: Device, wanted: Bitmap? = nil) {
    self.device = device
    self.wanted = wanted
  }

  package var geometry: Geometry { device.geometry }

  package func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    let shift = UInt64(geometry.clusterShift)
    let runs: [Device.Run]
    do throws(DeviceError) {
      runs = try device.runs(offset: cluster << shift, length: limit << shift, limit: 1)
    } catch { throw BackupError(source: error) }
    guard let run = runs.first else { return (limit, true) }
    return (min(limit, (run.length - 1) >> shift + 1), run.level == nil)
  }

  package func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    try read(device, into: region, at: cluster << UInt64(geometry.clusterShift))
  }

  package func share(
    _ clusters: Range<UInt64>, with file: ImageFile, at offset: UInt64
  ) throws(BackupError) -> Bool {
    do throws(DeviceError) { return try device.share(clusters, with: file, at: offset) } catch {
      throw BackupError(source: error)
    }
  }
}

/// A live disk as it was at one instant, while guests go on writing it.
///
/// What was released is read no more: whoever has lost what was copied of it has to begin at another instant.
package struct FrozenSource: BackupSource {
  private let backup: PushBackup
  private let releasedEnd = Locked<UInt64>(0)
  package let wanted: Bitmap?

  /// - Parameter backup: one that has been started, since only the instant says what is wanted.
  package init(_ backup: PushBackup) {
    self.backup = backup
    wanted = backup.asked
  }

  package var geometry: Geometry { backup.geometry }

  package func content(
    from cluster: UInt64, limit: UInt64
  ) throws(BackupError) -> (count: UInt64, isAbsent: Bool) {
    let released = releasedEnd.withLock { $0 }
    guard cluster >= released else {
      throw BackupError(
        .source, "the disk at that instant is held from cluster \(released) on, not from \(cluster)"
      )
    }
    let shift = UInt64(geometry.clusterShift)
    let runs = try reading { () throws(PushBackup.Refusal) in
      try backup.runs(offset: cluster << shift, length: limit << shift, limit: 1)
    }
    guard let run = runs.first else { return (limit, true) }
    return (min(limit, (run.length - 1) >> shift + 1), run.isHole)
  }

  package func read(into region: ByteRegion, from cluster: UInt64) throws(BackupError) {
    let offset = cluster << UInt64(geometry.clusterShift)
    let part = part(region, at: offset)
    try reading { () throws(PushBackup.Refusal) in try backup.read(into: part, at: offset) }
  }

  package func release(_ clusters: Range<UInt64>) {
    releasedEnd.withLock { $0 = max($0, clusters.upperBound) }
    // Whoever has ended it meanwhile holds nothing any more.
    _ = try? backup.confirm([Int(clusters.lowerBound)..<Int(clusters.upperBound)])
  }

  private func reading<Result>(
    _ body: () throws(PushBackup.Refusal) -> Result
  ) throws(BackupError) -> Result {
    do { return try body() } catch { throw BackupError(source: error) }
  }
}
