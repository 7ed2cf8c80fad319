internal import Glibc
internal import PloopBackup
internal import PloopFormat
internal import PloopIO
internal import TestSupport

/// Writes backups into an export, one after the other, with every call recorded, and knows what each has to
/// hold and how long.
package final class ExportRecording {
  private struct Known {
    let manifest: PointManifest
    let disk: ModelDisk
    /// From which position of the trace on it has to be there, and until when.
    var wholeFrom = Int.max
    var goneFrom = Int.max
  }

  private static let export = "export"
  private static let sizeBytes = 12 * 4096 - 1024

  private let watch = Watch()
  private let folder: ImageFolder
  private let plain: ImageFolder
  private let engine = IOEngine(threadLimit: 1, rings: false)
  private var points: [Known] = []
  private var disk = ModelDisk(sizeBytes: UInt64(sizeBytes))
  /// What somebody has left in the export, with some room behind the disk's end.
  private let garbage = (0..<sizeBytes + 2048).map { UInt8(truncatingIfNeeded: $0 &* 7 | 1) }

  /// - Parameter path: an empty folder.
  package init(path: String) throws {
    plain = try ImageFolder(path: path)
    folder = try ImageFolder(path: path, probe: watch)
    let file = try plain.create(Self.export)
    try file.write(AlignedBuffer(garbage).region, at: 0)
  }

  deinit { engine.stop(until: .after(seconds: 10)) }

  private var position: Int { watch.trace.events.count }

  private static func target(_ folder: ImageFolder) -> NBDTarget {
    NBDTarget(records: folder) { () throws(BackupError) in
      do {
        return try FileExport(folder.open(export, writable: true))
      } catch let error as IOError { throw BackupError(error) } catch {
        throw BackupError(.failed, "\(error)")
      }
    }
  }

  // MARK: The scenario

  /// A backup that is interrupted, one that takes its place, and one that is removed.
  package func run() throws {
    let target = Self.target(folder)
    for (cluster, value) in [(0, 1), (1, 2), (5, 3), (6, 4), (11, 5)] {
      disk.clusters[cluster] = UInt64(value)
    }
    try point(target, stops: 1)
    disk.clusters[1] = nil
    disk.clusters[5] = 0
    for (cluster, value) in [(6, 6), (7, 7), (11, 8)] { disk.clusters[cluster] = UInt64(value) }
    try point(target, stops: 2)
    points[1].goneFrom = position
    try target.remove("b1")
    try point(target, stops: .max)
  }

  private func point(_ target: NBDTarget, stops: Int) throws {
    let manifest = PointManifest(
      "b\(points.count)", device: "disk", mode: .full, geometry: disk.geometry,
      pointInTime: Double(points.count))
    if let last = points.indices.last {
      points[last].goneFrom = min(points[last].goneFrom, position)
    }
    points.append(Known(manifest: manifest, disk: disk))
    while try !copy(points[points.count - 1], to: target, steps: stops) {}
    points[points.count - 1].wholeFrom = position
  }

  private func copy(_ known: Known, to target: NBDTarget, steps: Int) throws -> Bool {
    try BackupRecording.copy(
      ModelSource(known.disk), to: target.write(known.manifest), on: engine, steps: steps)
  }

  // MARK: After a crash

  /// Looks at states behind each event (``ChainRecording/enumerate(path:_:share:of:)``).
  package func enumerate(
    path: String, _ bounds: ChainRecording.Bounds
  ) throws -> Enumeration.Result {
    try FolderStates.enumerate(
      watch, in: folder, initial: [Self.export: garbage], path: path, bounds
    ) { check($0, at: $1, in: $2) }
  }

  private func check(
    _ state: [String: [UInt8]], at position: Int, in scratch: ImageFolder
  ) -> String? {
    do {
      try FolderStates.lay(state, in: scratch)
      let target = Self.target(scratch)
      if let fault = try checkWhole(target, at: position) { return fault }
      for point in try target.points() where point.state != .whole {
        guard point.state == .partial,
          let known = points.first(where: { $0.manifest.id == point.id })
        else {
          try target.remove(point.id)
          continue
        }
        guard try copy(known, to: target, steps: .max) else { return "\(point.id) does not end" }
        guard try target.points().map(\.state) == [.whole] else {
          return "\(point.id) was gone on with, and there is \(try target.points().map(\.state))"
        }
      }
      return try checkWhole(target, at: nil) ?? checkNames(scratch, target)
    } catch {
      return "\(error)"
    }
  }

  /// - Parameter position: nil when anything may have been replaced meanwhile.
  private func checkWhole(_ target: NBDTarget, at position: Int?) throws -> String? {
    let whole = try target.points().filter { $0.state == .whole }
    if let position {
      for known in points where known.wholeFrom <= position && position < known.goneFrom {
        guard whole.contains(where: { $0.id == known.manifest.id }) else {
          return "\(known.manifest.id) is gone"
        }
      }
    }
    for point in whole {
      guard let known = points.first(where: { $0.manifest.id == point.id }) else {
        return "nobody knows \(point.id)"
      }
      guard let values = try ModelDisk.values(of: target.reader(point.id)),
        known.disk.reads(like: values)
      else { return "\(point.id) holds another disk" }
      let check = try target.check(point.id)
      while try check.step(limitBytes: 1 << 20, on: engine) {}
      guard check.wrongClusters.isEmpty else {
        return "\(point.id): clusters \(check.wrongClusters) are wrong"
      }
    }
    return nil
  }

  private func checkNames(_ scratch: ImageFolder, _ target: NBDTarget) throws -> String? {
    let known = Set(
      try target.points().flatMap { ["\($0.id).sums", "\($0.id).json"] } + [Self.export, "lock"])
    let left = try scratch.names().filter { !known.contains($0) }
    return left.isEmpty ? nil : "left behind: \(left.sorted())"
  }

  // MARK: Faults

  /// How many calls the scenario makes.
  package static func calls(path: String) throws -> Int {
    let recording = try ExportRecording(path: path)
    return try recording.watch.countCalls { try recording.run() }
  }

  /// Runs the scenario until a call fails, and looks at what is there then; see
  /// ``BackupRecording/run(failing:with:isKill:path:)``.
  package static func run(failing number: Int, isKill: Bool, path: String) throws -> String? {
    let recording = try ExportRecording(path: path)
    recording.watch.use { call, _ in
      (isKill ? call >= number : call == number) ? .error(EIO) : nil
    }
    var wasTold = false
    do { try recording.run() } catch { wasTold = true }
    let position = recording.position
    recording.watch.use(nil)
    guard wasTold || recording.watch.hit == nil else { return "nobody was told" }
    var state: [String: [UInt8]] = [:]
    for name in try recording.plain.names() {
      state[name] = try recording.plain.bytes(of: name, limit: 1 << 20)
    }
    let scratch = try ImageFolder(path: path).makeFolder(beneath: "after")
    return recording.check(state, at: position, in: scratch)
  }
}
