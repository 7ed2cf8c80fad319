internal import PloopBackup
internal import PloopFormat
internal import PloopIO
internal import TestSupport

/// Writes a chain of backups with every call recorded, and knows what each point has to hold.
package final class BackupRecording {
  struct Known {
    let manifest: PointManifest
    let disk: ModelDisk
    let wanted: [Int]?
    /// From which position of the trace on it has to be there, and until when.
    var wholeFrom = Int.max
    var goneFrom = Int.max
  }

  let watch = Watch()
  let folder: ImageFolder
  let plain: ImageFolder
  let engine = IOEngine(threadLimit: 1, rings: false)
  var points: [Known] = []
  private var disk: ModelDisk
  private var lastValue: UInt64 = 0

  /// - Parameter path: an empty folder.
  package init(path: String) throws {
    plain = try ImageFolder(path: path)
    folder = try ImageFolder(path: path, probe: watch)
    // The last cluster is no whole one.
    disk = ModelDisk(sizeBytes: 12 * 4096 - 1024)
  }

  deinit { engine.stop(until: .after(seconds: 10)) }

  var position: Int { watch.trace.events.count }
  var chain: BackupChain { BackupChain(in: folder) }

  // MARK: Steps

  package func write(_ clusters: some Sequence<Int>) {
    for cluster in clusters {
      lastValue += 1
      disk.clusters[cluster] = lastValue
    }
  }

  package func zero(_ clusters: [Int], absent: Bool) {
    for cluster in clusters { disk.clusters[cluster] = absent ? nil : 0 }
  }

  package func grow(toClusters count: UInt64) { disk = disk.grown(to: count * 4096) }

  /// Copies the disk as it is now into a new point.
  ///
  /// - Parameters:
  ///   - clusters: for an increment, those that have changed.
  ///   - later: of an increment of a snapshot, what else a checkpoint says to who goes on with it.
  ///   - stops: after so many steps whoever writes it goes away, and another one goes on; again and again.
  package func point(
    changed clusters: [Int]? = nil, later: [Int] = [], stops: Int? = nil
  ) throws {
    let parent = points.last { $0.goneFrom == .max }?.manifest.id
    var source = ModelSource(disk, wanted: clusters)
    var manifest = PointManifest(
      "b\(points.count)", device: "disk", mode: parent == nil ? .full : .incremental,
      parent: parent, geometry: disk.geometry, wanted: source.wanted,
      pointInTime: Double(points.count))
    if !later.isEmpty {
      (manifest.snapshot, manifest.checkpoint, manifest.wantedDigest) = ("s", "c", nil)
    }
    let all = clusters.map { $0 + later }
    points.append(Known(manifest: manifest, disk: disk, wanted: all))
    while try !copy(source, manifest, chain, steps: stops ?? .max) {
      source = ModelSource(disk, wanted: all)
    }
    points[points.count - 1].wholeFrom = position
  }

  /// - Returns: whether it is whole.
  func copy(
    _ source: ModelSource, _ manifest: PointManifest, _ chain: BackupChain, steps: Int = .max
  ) throws -> Bool {
    try Self.copy(
      source, to: chain.write(manifest, wanted: source.wanted), on: engine, steps: steps)
  }

  /// - Returns: whether it is whole; else whoever has written it goes away after so many steps.
  static func copy(
    _ source: any BackupSource, to sink: any BackupSink, on engine: IOEngine, steps: Int
  ) throws -> Bool {
    let copy = BackupCopy(from: source, to: sink, on: engine)
    defer { copy.abandon() }
    var done = 0
    while true {
      let goesOn = try copy.step(limitBytes: 3 * 4096)
      if done == steps { return false }
      try copy.commit()
      done += 1
      guard goesOn else { break }
    }
    try copy.finish()
    return true
  }

  package func removeNewest() throws {
    guard let newest = points.lastIndex(where: { $0.goneFrom == .max }) else { return }
    points[newest].goneFrom = position
    try chain.remove(points[newest].manifest.id)
  }

  // MARK: The scenario

  /// A full backup, increments with trims and zeroes between them, some of them interrupted, one removed, one of
  /// which more is wanted the longer it takes.
  package func run() throws {
    write([0, 1, 2, 5, 6, 11])
    try point(stops: 1)
    write([1, 7])
    zero([2], absent: true)
    zero([5], absent: false)
    zero([8], absent: true)
    try point(changed: [1, 2, 5, 7, 8])
    write([2, 3])
    try point(changed: [2, 3])
    try removeNewest()
    grow(toClusters: 14)
    write([2, 3, 12])
    zero([1], absent: false)
    try point(changed: [1, 2, 3, 11, 12, 13], stops: 1)
    write([0, 9])
    zero([3, 6], absent: true)
    try point(changed: [0, 3, 6, 9], later: [1, 4, 11], stops: 1)
  }
}
